"""How models are scored: on which part of the test images, and with which class prompts."""

from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from time_ray.core.section import Section

SMALLEST_SUBSET = 300  # images
PER_CLASS = 2


def _listed(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _at_least_one(templates: tuple[str, ...]) -> tuple[str, ...]:
    if not templates:
        msg = "no prompt to name a class by; give one, or null for each dataset's own"
        raise ValueError(msg)
    return templates


def _with_place_for_a_class(template: str) -> str:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError:
        fields = []
    if fields != [""]:
        msg = f"'{template}' must name the class by {{}}, once, and hold no other braces"
        raise ValueError(msg)
    return template


Template = Annotated[str, AfterValidator(_with_place_for_a_class)]


class Scoring(Section):
    """What decides scores besides weights and data. The seed of a cell chooses the images of a subset."""

    subset: Annotated[
        float | None, Field(gt=0, lt=1, description="share of the test images of each dataset; null: all of them")
    ] = None
    templates: Annotated[
        Annotated[tuple[Template, ...], AfterValidator(_at_least_one)] | None,
        BeforeValidator(_listed),
        Field(description="class prompts for all datasets; null: each has its own"),
    ] = None


WHOLE = Scoring()  # all test images, each dataset's own prompts


def subset_size(rows: int, classes: int, share: float) -> int:
    """How many of a test split's images make its subset: the benchmark's rule, which keeps two images a class."""
    return min(rows, max(PER_CLASS * classes, SMALLEST_SUBSET, int(share * rows)))
