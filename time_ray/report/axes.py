"""Which axes of the grid a table shows: TIME's three, and others that its rows differ on."""

from collections import Counter
from collections.abc import Mapping, Sequence

from time_ray.core.experiment import AXES

ALWAYS = ("init", "deploy", "technique")


def with_short_techniques(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """The rows with techniques by their names, as far as these tell them apart; JSON has parameters, too."""
    labels = {str(row.get("technique")) for row in rows}
    count = Counter(label.partition("(")[0] for label in labels)
    short = {label: name if count[name := label.partition("(")[0]] == 1 else label for label in labels}
    return [{**row, "technique": short[str(row.get("technique"))]} for row in rows]


def shown_axes(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """In the order of the grid; an axis that no row has is none."""
    return [name for name in AXES if name in ALWAYS or len({row.get(name) for row in rows}) > 1]
