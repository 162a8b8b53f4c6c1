"""Preprocessing: how an image becomes a model's input. It belongs to the weights, which learned from such input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from time_ray.core.section import Section

ResizeMode = Literal["shortest", "longest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Resizing:
    """How an image becomes a square of `size` pixels a side.

    `shortest`: its shorter side is resized to that, and the centre cut out. `longest`: its longer side is, and the
    square is filled up with grey of the value `fill`, 0 to 255. `squash`: both sides are, whatever their ratio.
    """

    size: int
    mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"
    fill: int = 0

    def __str__(self) -> str:
        """A name for files: the size, and what differs from the default."""
        rest = "" if self == Resizing(self.size) else f"-{self.mode}-{self.interpolation}"
        return f"{self.size}{rest}{f'-{self.fill}' if self.fill else ''}"


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a model's input; mean and standard deviation are per channel, for pixels in 0..1."""

    resizing: Resizing
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD

    def as_dict(self) -> dict[str, Any]:
        """Plain values, named as in an experiment."""
        how = self.resizing
        fill = {"fill": how.fill} if how.mode == "longest" else {}
        named = {"size": how.size, "resize": how.mode, "interpolation": how.interpolation}
        return {**named, **fill, "mean": list(self.mean), "std": list(self.std)}

    def changed(self) -> dict[str, Any]:
        """What is not as OpenAI's models have it; the size is the architecture's."""
        default = Preprocessing(Resizing(self.resizing.size)).as_dict()
        return {name: value for name, value in self.as_dict().items() if default.get(name, 0) != value}

    def __str__(self) -> str:
        """How images are resized and normalised, for people."""
        values = self.as_dict()
        changed = self.changed()
        words: list[str] = [self.resizing.mode, self.resizing.interpolation]
        words += [f"fill {values['fill']}"] if "fill" in values else []
        if {"mean", "std"}.isdisjoint(changed):
            return ", ".join([*words, "OpenAI's mean and std"])
        return ", ".join([*words, *(f"{name} {' '.join(f'{x:g}' for x in values[name])}" for name in ("mean", "std"))])


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _three(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) != 3:
        msg = f"{len(values)} values, but there are three channels; give three, for pixels from 0 to 1"
        raise ValueError(msg)
    return values


_Mean = Annotated[float, Field(ge=0, le=1)]
_Std = Annotated[float, Field(gt=0, le=1)]
_channels = (BeforeValidator(_as_tuple), AfterValidator(_three))


class PreprocessSpec(Section):
    """What is said of a model's images: whatever a tag of its architecture says, and single values."""

    tag: Annotated[str | None, Field(description="open_clip tag of this architecture, whose values are meant")] = None
    mean: Annotated[
        Annotated[tuple[_Mean, ...], *_channels] | None, Field(description="of red, green, blue, for pixels in 0..1")
    ] = None
    std: Annotated[
        Annotated[tuple[_Std, ...], *_channels] | None, Field(description="of red, green, blue, for pixels in 0..1")
    ] = None
    resize: Annotated[ResizeMode | None, Field(description="which side is resized to the model's size")] = None
    interpolation: Annotated[Interpolation | None, Field(description="how it is resized")] = None
    fill: Annotated[int | None, Field(ge=0, le=255, description="grey beside the image, with resize: longest")] = None
    size: Annotated[int | None, Field(ge=1, description="pixels a side; the architecture's, and only checked")] = None
    quick_gelu: Annotated[bool | None, Field(description="activation; null: the architecture's")] = None

    @property
    def said(self) -> Mapping[str, Any]:
        """What is given, but for the tag."""
        return self.model_dump(exclude={"tag"}, exclude_none=True)

    @property
    def label(self) -> str:
        """What is given, for people."""
        return ",".join(f"{name}={_written(value)}" for name, value in self.model_dump(exclude_none=True).items())


def _written(value: object) -> str:
    return "/".join(f"{x:g}" for x in value) if isinstance(value, tuple) else str(value)
