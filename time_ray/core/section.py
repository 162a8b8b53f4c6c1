"""The common form of every part of an experiment: frozen, strict, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the experiment as written. Wrong types and unknown keys are faults; values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
