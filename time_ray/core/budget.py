"""Compute budgets: how many optimiser steps a task gets."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from time_ray.core.section import Section

DEFAULT_GFLOPS = 1.8e9  # FoMo-in-Flux: memory-adjusted, over the whole stream
_FORM = re.compile(
    r"(?P<whole>\d+)\s*(?P<counted>steps|samples)|(?P<real>\d+\.?\d*([eE][+-]?\d+)?)\s*(?P<unit>x|GFLOPs)"
)


class Cost(NamedTuple):
    """What one optimiser step costs.

    `memory_ratio` is the method's peak memory over that of full fine-tuning. Every training here is full fine-tuning:
    each tensor has a gradient and two AdamW moments, and merging takes place between trainings. So it is 1. How a
    step is executed (workers, accumulation, recomputation) is no part of a method and does not count.
    """

    gflops: float
    memory_ratio: float = 1.0

    @property
    def maf(self) -> float:
        """Memory-adjusted GFLOPs (FoMo-in-Flux, arXiv:2408.14471)."""
        return self.gflops * self.memory_ratio


class Budget(Section):
    """Compute, as optimiser steps or training samples of each task, or as memory-adjusted FLOPs of the whole stream.

    `x` counts in the benchmark's default of 1.8e9 GFLOPs.
    """

    amount: Annotated[float, Field(gt=0)]
    unit: Literal["steps", "samples", "x", "GFLOPs"]

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """The budget that `30 steps`, `1920 samples`, `0.5x` or `1.8e9 GFLOPs` says; ValueError for anything else."""
        match = _FORM.fullmatch(text.strip())
        amount = float(match["whole"] or match["real"]) if match else 0.0
        if not match or not 0 < amount < float("inf"):
            msg = (
                f"'{text}' is no budget; write a positive amount for each task, as in '30 steps' or '1920 samples', "
                "or for the whole stream, as in '0.5x' or '1.8e9 GFLOPs'"
            )
            raise ValueError(msg)
        return cls(amount=amount, unit=match["counted"] or match["unit"])  # type: ignore[arg-type]

    @property
    def label(self) -> str:
        """The budget as people write it."""
        if self.unit in ("steps", "samples"):
            return f"{self.amount:.0f} {self.unit}"
        exact = Decimal(repr(self.amount)).normalize()
        if self.unit == "x":
            return f"{exact:f}x"
        return f"{exact:f} GFLOPs" if exact < 10_000 else f"{exact:e} GFLOPs".replace("e+", "e")

    @property
    def gflops(self) -> float | None:
        """Memory-adjusted GFLOPs of the whole stream; None where steps or samples of a task are given."""
        return {"x": self.amount * DEFAULT_GFLOPS, "GFLOPs": self.amount}.get(self.unit)

    def steps(self, batch_size: int, num_tasks: int, cost: Callable[[], Cost]) -> int:
        """Optimiser steps on one task, at least one; `cost` is asked for only where FLOPs are given.

        FLOPs are spread over the tasks as the benchmark does: round(total / (T * MAF)). Raises ValueError if that
        is less than one step.
        """
        if self.unit == "steps":
            return int(self.amount)
        if self.gflops is None:
            return max(1, int(self.amount) // batch_size)
        maf = cost().maf
        steps = round(self.gflops / (num_tasks * maf))
        if not steps:
            least = Budget(amount=float(f"{num_tasks * maf:.1e}"), unit="GFLOPs").label
            msg = f"'{self.label}' is less than a step for each of {num_tasks} tasks; give more, from about {least}"
            raise ValueError(msg)
        return steps
