"""The models of the grid's size axis."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from time_ray.core.preprocessing import PreprocessSpec
from time_ray.core.section import Section


def _tagged(value: object) -> object:
    return {"tag": value} if isinstance(value, str) else value


class ModelSpec(Section):
    """An open_clip architecture, where its pretrained weights come from, and what images they want."""

    name: Annotated[
        str, Field(min_length=1, description="open_clip architecture, or mini2-tiny, mini2-base, mini2-large")
    ]
    weights: Annotated[
        str | None,
        Field(min_length=1, description="local safetensors or torch file, or open_clip tag; null: the shipped base"),
    ] = None
    preprocess: Annotated[
        PreprocessSpec | None,
        BeforeValidator(_tagged),
        Field(description="a tag of the architecture, or the values; null: as the weights say"),
    ] = None

    @property
    def label(self) -> str:
        """The name, with the weights and the preprocessing where they were given."""
        said = f"({self.preprocess.label})" if self.preprocess and self.preprocess.label else ""
        return f"{self.name}{'' if self.weights is None else f'@{self.weights}'}{said}"

    def written(self) -> str | dict[str, Any]:
        """Plain values that mean this model, short where there is nothing to say."""
        given = self.model_dump(mode="json", exclude_none=True)
        return self.name if given == {"name": self.name} else given
