"""How a sweep searches for the best cell without running all of them: as it is written in the experiment."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from time_ray.core.errors import UserError
from time_ray.core.metrics import metric_named
from time_ray.core.section import Section


def _metric(name: str) -> str:
    try:
        return metric_named(name).name
    except UserError as error:
        raise ValueError(*error.faults) from None


class Search(Section):
    """Cells leave seed after seed, and what has left is trained no more. Nothing here changes a result.

    See `time_ray.core.racing` for how they leave.
    """

    by: Annotated[str, AfterValidator(_metric), Field(description="metric, after the last task")] = "gm"
    mode: Annotated[
        Literal["race", "halve"],
        Field(description="race: what is surely no better leaves; halve: the worse half of trajectories does"),
    ] = "race"
    epsilon: Annotated[float, Field(gt=0, description="race: difference that does not matter, in `by`'s unit")] = 1.0
    delta: Annotated[
        float, Field(gt=0, lt=1, description="race: how often no survivor may be within epsilon of the best")
    ] = 0.05
    max_seeds: Annotated[int | None, Field(ge=2, description="of `seed` the first so many; null: all")] = None
