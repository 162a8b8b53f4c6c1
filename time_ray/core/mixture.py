"""The batch mixture: which share of every batch is new data, replayed data and pretraining data."""

from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from time_ray.core.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Counts(NamedTuple):
    """Samples of each source in one batch."""

    pretraining: int
    update: int
    buffer: int


class Mixture(Section):
    """Shares of a batch: `pretraining` pool, `update` (the current task) and `buffer` (all earlier tasks)."""

    pretraining: Share = 0.0
    update: Share = 1.0
    buffer: Share = 0.0
    buffer_size: Annotated[
        int | None, Field(ge=1, description="samples of earlier tasks that are remembered; null: all of them")
    ] = None

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.pretraining + self.update + self.buffer
        if abs(total - 1) > 1e-6:
            msg = f"shares sum to {total:g}, not 1; change update, buffer or pretraining"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _limits_what_is_used(self) -> Self:
        if self.buffer_size is not None and not self.buffer:
            msg = "buffer_size changes nothing while buffer is 0; raise buffer, or leave buffer_size out"
            raise ValueError(msg)
        return self

    def counts(self, batch_size: int, *, first_task: bool) -> Counts:
        """Split a batch in whole samples, as FoMo-in-Flux does: round down, then give the rest out in order.

        On the first task nothing can be replayed yet: its buffer share is split evenly between the other two
        sources in use. Batch 512 at .33/.34/.33 gives 169/175/168, and 253/259/0 on the first task.
        """
        shares = (self.pretraining, self.update, self.buffer)
        sizes = [int(batch_size * share) for share in shares]
        used = [i for i, share in enumerate(shares) if share > 0]
        for extra in range(batch_size - sum(sizes)):
            sizes[used[extra % len(used)]] += 1
        if first_task and sizes[2]:
            others = [i for i in used if i != 2] or [1]
            for i, amount in zip(others, _even(sizes[2], len(others)), strict=True):
                sizes[i] += amount
            sizes[2] = 0
        return Counts(*sizes)


def _even(total: int, parts: int) -> list[int]:
    whole, rest = divmod(total, parts)
    return [whole + (i < rest) for i in range(parts)]
