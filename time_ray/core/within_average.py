"""Averages within a training: an expert may be the mean of its own last snapshots, or an average over its steps."""

from typing import Annotated

from pydantic import Field, model_validator

from time_ray.core.section import Section


class WithinAverage(Section):
    """Which weights of its own training an expert is the mean of, and how they count.

    The mean of the last snapshots is LAWA (https://arxiv.org/abs/2209.14981); over all steps, each counting `ema`
    times as much as the next, it is an exponential moving average without any of the weights that training starts from.
    """

    last: Annotated[
        int | None, Field(ge=2, description="the mean of so many snapshots, the last of them at the end")
    ] = None
    every: Annotated[int, Field(ge=1, description="steps from one of these snapshots to the next")] = 1
    ema: Annotated[
        float | None, Field(gt=0, lt=1, description="the mean over all steps, each counting so much of the next")
    ] = None

    @model_validator(mode="after")
    def _one_way(self) -> "WithinAverage":
        if (self.last is None) == (self.ema is None):
            raise ValueError("it is by 'last' or by 'ema'; give one of them")
        if self.last is None and self.every != 1:
            raise ValueError("'every' is of 'last'; leave it out beside 'ema'")
        return self

    def snapshots(self, steps: int) -> int:
        """Of how many snapshots the mean is after a training of so many steps: a short one has fewer than `last`."""
        return min(self.last or steps, (steps - 1) // self.every + 1)

    def share(self, step: int, steps: int) -> float | None:
        """The share of the weights after that many of the steps in the mean so far; None where they do not count."""
        if self.ema is not None:
            return (1 - self.ema) / (1 - self.ema**step)
        before_end, rest = divmod(steps - step, self.every)
        number = self.snapshots(steps) - before_end
        return None if rest or number <= 0 else 1 / number
