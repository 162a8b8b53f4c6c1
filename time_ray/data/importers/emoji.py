"""Import of emoji: the same things as several styles draw them, a dataset a style or a year of release."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, Unpack

from time_ray.core.errors import UserError, unknown
from time_ray.data.dataset import Card
from time_ray.data.importers.emoji_things import STYLES, THINGS, Icons, Thing, matched, things_of
from time_ray.data.importers.npm_packages import check, read_json
from time_ray.data.importers.pipeline import DatasetSpec, ImportSettings, import_parts
from time_ray.data.importers.sample_faults import SampleFault, note
from time_ray.data.shards import Row

By: TypeAlias = Literal["style", "year"]
PROMPT = "{}, a drawing"  # the class goes first, as a small model may see no more of a text
CAPTIONS = ("{category}: {name}", PROMPT.format("{category}"), "{name}, drawn by {title}")
PACKAGES = (THINGS, *STYLES.values())
SPLITS = ("train", "test")
PART_DRAWINGS = 256
LARGEST = 1024  # pixels
TEST_SHARE = 5  # every so many things are for testing
LICENCES = "LICENCES.txt"


class _Drawing(NamedTuple):
    """A thing as a style draws it."""

    thing: Thing
    style: str
    svg: str

    @property
    def key(self) -> str:
        """Its name in a dataset: when it was released, what it is, and whose it is."""
        return f"{self.thing.year}/{self.thing.code}/{self.style}"


@dataclass(frozen=True)
class Emoji:
    """All that the packages hold: styles, and their drawings of things, in order of release."""

    styles: Mapping[str, Icons]
    drawings: tuple[_Drawing, ...]

    def names(self, by: By) -> list[str]:
        """The datasets that have two classes or more: as styles are listed, or by year."""
        found: dict[str, list[_Drawing]] = {}
        for drawing in self.drawings:
            found.setdefault(_names(drawing)[by], []).append(drawing)
        return [name for name in (found if by == "style" else sorted(found)) if len(_classes(found[name])) > 1]

    @property
    def licences(self) -> str:
        """Whose drawings these are, and what may be done with them: a line a style."""
        each = (
            f"{style}: {icons.title} by {icons.author}, {icons.licence} ({icons.address}), of {STYLES[style].spec}"
            for style, icons in self.styles.items()
        )
        return "".join(f"{line}\n" for line in (*each, f"names, categories and years: {THINGS.spec}, MIT"))


@lru_cache(maxsize=1)
def read_emoji(folder: Path) -> Emoji:
    """What is in the packages of that folder. Raises UserError with every one that is missing, or is another."""
    check(PACKAGES, folder)
    (listed,) = read_json(THINGS, folder, ["emoji.json"])
    files = ["icons.json", "info.json", "chars.json"]
    styles = {style: Icons.of(*read_json(package, folder, files)) for style, package in STYLES.items()}
    things = things_of(listed)
    drawn = matched(things, styles)
    return Emoji(
        styles,
        tuple(
            _Drawing(thing, style, drawn[style][thing.code])
            for style in styles
            for thing in things
            if thing.code in drawn[style]
        ),
    )


def import_emoji(
    packages: str | Path, folder: str | Path, *, dataset: str, size: int = 64, **settings: Unpack[ImportSettings]
) -> Card:
    """Write the drawings of one style, or of one year, as a dataset.

    Classes are subcategories of Unicode, and captions are made of names; some name the style. A thing is for training
    or for testing in all styles alike, by the digest of its code points: one of five is for testing. A class without
    either is left out, and the report says so.

    Args:
        packages: folder with the files of all packages.
        folder: as import_parts takes it.
        dataset: `noto` or another style, or `emoji_2015` or another year.
        size: pixels a side.
        **settings: how it is run.

    Raises:
        UserError: no such dataset; packages that are missing or others; nothing that draws SVG is installed.
        StoreError: as import_parts does.

    """
    check_drawable(size)
    emoji = read_emoji(Path(packages))
    mine = [drawing for drawing in emoji.drawings if dataset in _names(drawing).values()]
    if not mine:
        raise UserError(unknown("dataset of emoji", dataset, [*emoji.names("style"), *emoji.names("year")]))
    classes = _classes(mine)
    lacking = sorted({drawing.thing.category for drawing in mine} - set(classes))
    notes = [note("class with nothing to learn or nothing to test, left out", dataset, lacking)] if lacking else []
    return import_parts(
        folder,
        DatasetSpec(dataset, "classification", classes, (PROMPT,), SPLITS),
        list(_parts(mine, classes, emoji, size)),
        notes,
        **settings,
    )


def check_drawable(size: int) -> None:
    """Raises UserError where there is no such size, or nothing that draws SVG: before anything is fetched."""
    if not 1 <= size <= LARGEST:
        raise UserError(f"--size {size}: not from 1 to {LARGEST} pixels; give another")
    _renderer()


def _names(drawing: _Drawing) -> dict[By, str]:
    """The datasets that it is part of."""
    return {"style": drawing.style, "year": f"emoji_{drawing.thing.year}"}


def _classes(drawings: Sequence[_Drawing]) -> tuple[str, ...]:
    """Those with something in both splits."""
    sides = ({d.thing.category for d in drawings if _split(d.thing) == split} for split in SPLITS)
    return tuple(sorted(set.intersection(*sides)))


def _split(thing: Thing) -> str:
    digest = hashlib.sha256(thing.code.encode()).digest()
    return "train" if int.from_bytes(digest[:8]) % TEST_SHARE else "test"


@dataclass(frozen=True)
class _Part:
    """Drawings that become one shard. SVG is small, so that it goes to another process as it is."""

    split: str
    key: str
    size: int
    rows: tuple[tuple[str, Row], ...]  # with SVG where the image will be

    @property
    def weight(self) -> int:
        """How many drawings."""
        return len(self.rows)

    def read(self) -> Iterator[tuple[str, Row] | SampleFault]:
        """Each as PNG."""
        draw = _renderer()
        for where, row in self.rows:
            try:
                image = draw(
                    svg_string=row.image.decode(),
                    width=self.size,
                    height=self.size,
                    background="white",
                    skip_system_fonts=True,
                )
            except ValueError as error:
                yield SampleFault("no drawing", self.split, where, f"cannot be drawn ({error}); leave it out")
            else:
                yield where, row._replace(image=bytes(image))


def _parts(drawings: Sequence[_Drawing], classes: Sequence[str], emoji: Emoji, size: int) -> Iterator[_Part]:
    label = {name: number for number, name in enumerate(classes)}
    for split in SPLITS:
        rows = [
            (f"{drawing.style}: {drawing.thing.name}", _row(drawing, label[drawing.thing.category], emoji))
            for drawing in drawings
            if drawing.thing.category in label and _split(drawing.thing) == split
        ]
        for start in range(0, len(rows), PART_DRAWINGS):
            some = tuple(rows[start : start + PART_DRAWINGS])
            said = json.dumps([size, [[row.image.decode(), row.captions, row.label, row.key] for _, row in some]])
            yield _Part(split, hashlib.sha256(said.encode()).hexdigest(), size, some)


def _row(drawing: _Drawing, label: int, emoji: Emoji) -> Row:
    thing, title = drawing.thing, emoji.styles[drawing.style].title
    captions = (text.format(category=thing.category, name=thing.name, title=title) for text in CAPTIONS)
    return Row(drawing.svg.encode(), tuple(captions), label, drawing.key)


def _renderer() -> Callable[..., bytes]:
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise UserError("resvg-py, which draws SVG, is not installed; pip install 'time_ray[drawings]'") from error
    renderer: Callable[..., bytes] = svg_to_bytes
    return renderer
