"""Why two models differ: the first field in which their recipes do, down through the experts they are made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Recipe = Mapping[str, Any]  # as core.recipe.describe writes it
RecipeLookup = Callable[[str], Recipe | None]


class Difference(NamedTuple):
    """A place in two recipes, as in `start.experts[1].training.lr`, and what each has there (None: nothing)."""

    field: str
    one: object
    other: object


def first_difference(one: Recipe, other: Recipe, look_up: RecipeLookup, field: str = "") -> Difference | None:
    """The first field, in the order in which a recipe is written; None if the two describe the same weights.

    `look_up` knows the recipes of experts; of one that it does not know only the key can be told.
    """
    if one.get("key") is not None and one.get("key") == other.get("key"):
        return None
    one, other = _whole(one, look_up), _whole(other, look_up)
    for name in dict.fromkeys([*one, *other]):
        at = f"{field}.{name}" if field else name
        if name != "key" and (found := _compared(one.get(name), other.get(name), look_up, at)):
            return found
    if one.get("key") != other.get("key"):
        return Difference(f"{field}.key" if field else "key", one.get("key"), other.get("key"))
    return None


def _whole(recipe: Recipe, look_up: RecipeLookup) -> Recipe:
    """The recipe itself where only its key is given."""
    return recipe if recipe.keys() - {"kind", "key"} else look_up(str(recipe.get("key"))) or recipe


def _compared(one: object, other: object, look_up: RecipeLookup, at: str) -> Difference | None:
    if one == other:
        return None
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return first_difference(one, other, look_up, at)
    if isinstance(one, list) and isinstance(other, list):
        return _compared_lists(one, other, look_up, at)
    return Difference(at, one, other)


def _compared_lists(one: Sequence[Any], other: Sequence[Any], look_up: RecipeLookup, at: str) -> Difference | None:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if at.endswith("experts"):
            left, right = {"key": str(left)}, {"key": str(right)}  # noqa: PLW2901 an expert by its key
        if found := _compared(left, right, look_up, f"{at}[{index}]"):
            return found
    shorter = min(len(one), len(other))
    return Difference(f"{at}[{shorter}]", *(items[shorter] if len(items) > shorter else None for items in (one, other)))
