"""BatchNorm's running statistics of what is deployed: averaged with the weights, or estimated anew on data."""

from typing import Annotated, Literal

from pydantic import Field

from time_ray.core.section import Section


class BatchNorm(Section):
    """Where a merged model's running statistics come from; models without BatchNorm have none."""

    statistics: Annotated[
        Literal["average", "reestimate"],
        Field(description="of deployed merges: averages of the experts', or estimated on the newest task's batches"),
    ] = "average"
    batches: Annotated[
        int, Field(ge=1, description="how many training batches of the task, from its first on, they are estimated on")
    ] = 50

    @property
    def num_batches(self) -> int | None:
        """The batches that statistics are estimated on; None where they are not."""
        return self.batches if self.statistics == "reestimate" else None
