"""A selection of cells, as people write it: `init=ema,deploy=ema,technique=ties`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from time_ray.core.errors import UserError, unknown
from time_ray.core.experiment import AXES

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """Values of some axes; cells with these are meant, whatever their other axes say.

    A bare name means the value that is written so; if there is none, all values of that name, with any parameters.
    """

    text: str
    axes: Mapping[str, str]

    def of(self, items: Iterable[T], axes: Callable[[T], Mapping[str, str]]) -> list[T]:
        """Those items that are meant, which may be none."""
        every = [(item, axes(item)) for item in items]
        wanted = {name: meant({place[name] for _, place in every}, value) for name, value in self.axes.items()}
        return [item for item, place in every if all(place[name] in values for name, values in wanted.items())]

    def unmatched(self, labels: Sequence[Mapping[str, str]]) -> str | None:
        """What is wrong with it where none of these is meant: the value that an axis lacks."""
        for name, value in self.axes.items():
            known = dict.fromkeys(place[name] for place in labels)
            if not meant(known, value):
                return unknown(name, value, known)
        return None


def read_selection(text: str, where: str) -> Selection:
    """The selection that is written so. Raises UserError, which begins with `where`, if an axis is unknown."""
    axes = dict(part.partition("=")[::2] for part in _split(text))
    wrong = [name for name in axes if name not in AXES]
    if wrong:
        raise UserError(
            f"{where}: no axis '{wrong[0]}'; write for example init=ema,deploy=ema; axes: {', '.join(AXES)}"
        )
    return Selection(text, axes)


def meant(known: Iterable[str], value: str) -> set[str]:
    """The labels that a value means: that which is written so, or else all of that name, with any parameters."""
    labels = set(known)
    return {value} if value in labels else {label for label in labels if label.partition("(")[0] == value}


def _split(text: str) -> list[str]:
    """Commas part the axes, but not the parameters within parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
