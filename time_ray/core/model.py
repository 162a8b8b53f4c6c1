"""The models of the grid's size axis."""

from typing import Annotated

from pydantic import Field

from time_ray.core.section import Section


class ModelSpec(Section):
    """An open_clip architecture and where its pretrained weights come from."""

    name: Annotated[str, Field(description="open_clip architecture, or mini-tiny, mini-base, mini-large")]
    weights: Annotated[
        str | None, Field(description="local safetensors or torch file, or open_clip tag; null: the shipped base")
    ] = None

    @property
    def label(self) -> str:
        """The name, with the weights where they were given."""
        return self.name if self.weights is None else f"{self.name}@{self.weights}"
