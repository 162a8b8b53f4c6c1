"""The table of the mini world: eleven datasets to learn, nine that only measure what is kept, and the pool."""

from collections.abc import Iterator
from typing import NamedTuple

from time_ray.data.mini.digits import NUM_TEST, digit_images
from time_ray.data.mini.draw.canvas import COLOURS, Draw, finish
from time_ray.data.mini.draw.cells import CELLS, draw_cell
from time_ray.data.mini.draw.charts import CHARTS, draw_chart
from time_ray.data.mini.draw.clocks import HOURS, draw_clock
from time_ray.data.mini.draw.fabric import FABRICS, draw_fabric
from time_ray.data.mini.draw.flags import FLAGS, draw_flag
from time_ray.data.mini.draw.glyphs import (
    CHESS,
    DIGITS,
    GREEK,
    LETTERS,
    SYMBOLS,
    ZODIAC,
    draw_chess,
    draw_greek,
    draw_letter,
    draw_street_number,
    draw_symbol,
    draw_zodiac,
)
from time_ray.data.mini.draw.satellite import LANDS, draw_land
from time_ray.data.mini.draw.scenes import SCENES, draw_blurred
from time_ray.data.mini.draw.shapes import HELD_OUT, NUMBERS, SHAPES, draw_colour, draw_count, draw_outline, draw_pair
from time_ray.data.mini.draw.sketch import THINGS, draw_sketch
from time_ray.data.mini.draw.textures import TEXTURES, draw_texture
from time_ray.data.mini.sample import Sample, generator

TRAIN_PER_CLASS = 40
TEST_PER_CLASS = 30


class MiniDataset(NamedTuple):
    """A dataset of the world: its classes, what is said of them, and how they are drawn (None: the real digits)."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    draw: Draw | None


ADAPTATION: dict[str, MiniDataset] = {
    "digits_real": MiniDataset(DIGITS, ("a handwritten {}", "handwritten digit {}", "the digit {} by hand"), None),
    "greek": MiniDataset(GREEK, ("greek letter {}", "the greek letter {}", "a picture of greek {}"), draw_greek),
    "zodiac": MiniDataset(ZODIAC, ("zodiac sign {}", "the sign of {}", "a picture of the {} sign"), draw_zodiac),
    "chess": MiniDataset(CHESS, ("a chess {}", "chess piece {}", "a {} on a chess board"), draw_chess),
    "cells": MiniDataset(CELLS, ("{} cell", "a microscope image of {}", "a slide with {} cells"), draw_cell),
    "charts": MiniDataset(CHARTS, ("{} chart", "a {} chart of data", "a picture of a {} chart"), draw_chart),
    "satellite": MiniDataset(LANDS, ("a satellite image of {}", "{} from above", "an aerial view of {}"), draw_land),
    "sketch": MiniDataset(THINGS, ("a sketch of a {}", "a pencil drawing of a {}", "{} sketch"), draw_sketch),
    "flags": MiniDataset(FLAGS, ("the flag of {}", "flag of {}", "a picture of the flag of {}"), draw_flag),
    "fabric": MiniDataset(FABRICS, ("{} fabric", "a piece of {} cloth", "a picture of {} fabric"), draw_fabric),
    "clocks": MiniDataset(HOURS, ("a clock at {}", "{}", "a clock that shows {}"), draw_clock),
}

EVALUATION: dict[str, MiniDataset] = {
    "shape_outline": MiniDataset(SHAPES, ("the outline of a {}", "a picture of a {}"), draw_outline),
    "shape_colour": MiniDataset(HELD_OUT, ("a {}", "a picture of a {}"), draw_pair),
    "colours": MiniDataset(tuple(COLOURS), ("something {}", "the color {}"), draw_colour),
    "letters": MiniDataset(LETTERS, ("the letter {}", "a picture of the letter {}"), draw_letter),
    "textures": MiniDataset(TEXTURES, ("{} texture", "a pattern of {}"), draw_texture),
    "counting": MiniDataset(NUMBERS, ("{} things", "a picture of {} things"), draw_count),
    "street_numbers": MiniDataset(DIGITS, ("the number {}", "a picture of the number {}"), draw_street_number),
    "scenes_blur": MiniDataset(SCENES, ("a {}", "a picture of a {}"), draw_blurred),
    "symbols_tex": MiniDataset(SYMBOLS, ("a {}", "{} symbol"), draw_symbol),
}

WORLD: dict[str, MiniDataset] = {**ADAPTATION, **EVALUATION}


def splits(name: str) -> tuple[str, ...]:
    """The splits of a dataset: a dataset that only measures has no training images."""
    return ("train", "test") if name in ADAPTATION else ("test",)


def num_test(name: str) -> int:
    """How many test images a dataset has; the pool has none."""
    if name not in WORLD:
        return 0
    entry = WORLD[name]
    return NUM_TEST if entry.draw is None else TEST_PER_CLASS * len(entry.classes)


def samples(name: str, split: str) -> Iterator[Sample]:
    """The images of one split of a dataset, classes taking turns."""
    entry = WORLD[name]
    if entry.draw is None:
        for pixels, label in digit_images(split, TRAIN_PER_CLASS):
            yield Sample(pixels, captions_of(entry, entry.classes[label]), label)
        return
    per_class = TRAIN_PER_CLASS if split == "train" else TEST_PER_CLASS
    for index in range(per_class * len(entry.classes)):
        label = index % len(entry.classes)
        classname = entry.classes[label]
        rng = generator(name, split, index)
        yield Sample(finish(rng, entry.draw(rng, classname)), captions_of(entry, classname), label)


def captions_of(entry: MiniDataset, classname: str) -> tuple[str, ...]:
    """What is said of a class."""
    return tuple(template.format(classname) for template in entry.templates)
