"""Which axes of the grid a table shows: TIME's three, and others that its rows differ on."""

from collections.abc import Mapping, Sequence

from time_ray.core.experiment import AXES

ALWAYS = ("init", "deploy", "technique")


def shown_axes(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """In the order of the grid; an axis that no row has is none."""
    return [name for name in AXES if name in ALWAYS or len({row.get(name) for row in rows}) > 1]
