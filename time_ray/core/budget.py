"""Compute budgets: how many optimiser steps a task gets."""

import re
from typing import Annotated, Literal

from pydantic import Field

from time_ray.core.section import Section

_FORM = re.compile(r"(?P<amount>\d+)\s*(?P<unit>steps|samples)")


class Budget(Section):
    """Compute for each task, in optimiser steps or in training samples."""

    amount: Annotated[int, Field(gt=0)]
    unit: Literal["steps", "samples"]

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """The budget that `30 steps` or `1920 samples` says; ValueError for anything else."""
        match = _FORM.fullmatch(text.strip())
        if not match or not int(match["amount"]):
            msg = f"'{text}' is no budget; write a positive amount for each task, as in '30 steps' or '1920 samples'"
            raise ValueError(msg)
        return cls(amount=int(match["amount"]), unit=match["unit"])  # type: ignore[arg-type]

    @property
    def label(self) -> str:
        """The budget as people write it."""
        return f"{self.amount} {self.unit}"

    def steps(self, batch_size: int) -> int:
        """Optimiser steps on one task, at least one."""
        return self.amount if self.unit == "steps" else max(1, self.amount // batch_size)
