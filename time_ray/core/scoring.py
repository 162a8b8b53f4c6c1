"""How models are scored: on which part of the test images, and with which class prompts."""

from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from time_ray.core.section import Section

SMALLEST_SUBSET = 300  # images
PER_CLASS = 2


def _listed(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _each(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value if isinstance(value, tuple) else (value,)


def _at_least_one(templates: tuple[str, ...]) -> tuple[str, ...]:
    if not templates:
        msg = "no prompt to name a class by; give one, or null for each dataset's own"
        raise ValueError(msg)
    return templates


def _with_place_for_a_class(template: str) -> str:
    try:
        fields = [field for _, *field in Formatter().parse(template) if field != [None, None, None]]
    except ValueError:
        fields = []
    if fields != [["", "", None]]:
        msg = f"'{template}' must name the class by {{}}, once, and hold no other braces"
        raise ValueError(msg)
    return template


Template = Annotated[str, AfterValidator(_with_place_for_a_class)]


def _distinct(lengths: tuple[float, ...]) -> tuple[float, ...]:
    """In order; 1 is what every cell serves, and is scored anyway."""
    return tuple(sorted({float(length) for length in lengths} - {1.0}))


class Scoring(Section):
    """What decides scores besides weights and data. The seed of a cell chooses the images of a subset.

    `lengths` are other models than those of the cells: they are scored as well, and change nothing of the cells.
    """

    subset: Annotated[
        float | None, Field(gt=0, lt=1, description="share of the test images of each dataset; null: all of them")
    ] = None
    templates: Annotated[
        Annotated[tuple[Template, ...], AfterValidator(_at_least_one)] | None,
        BeforeValidator(_listed),
        Field(description="class prompts for all datasets; null: each has its own"),
    ] = None
    precision: Annotated[
        Literal["fp32", "tf32", "bf16", "auto"],
        Field(description="of activations; auto: tf32 where run.accelerator has it, else fp32"),
    ] = "auto"
    lengths: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        BeforeValidator(_each),
        AfterValidator(_distinct),
        Field(description="final models are also scored at these lengths: base + length * (model - base)"),
    ] = ()


WHOLE = Scoring(precision="fp32")  # all test images, each dataset's own prompts


def subset_size(rows: int, classes: int, share: float) -> int:
    """How many of a test split's images make its subset: the benchmark's rule, which keeps two images a class."""
    return min(rows, max(PER_CLASS * classes, SMALLEST_SUBSET, int(share * rows)))
