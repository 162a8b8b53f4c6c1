"""The pool of version 2: as the first, but for a small part that shows some of what the stream teaches.

The rule, which was written down before any base was trained: every fifth picture is of a class of the stream, any class
as likely as any other. Every third class of a dataset is named; of all others no more is said than what kind they are
of. All are shown in another manner than in the stream. So a base knows part of the stream, as CLIP does.
"""

from random import Random

from time_ray.data.mini.draw.another_manner import in_another_manner
from time_ray.data.mini.pool import Captioned, captioned, everyday, with_article
from time_ray.data.mini.sample import Sample, generator
from time_ray.data.mini.world import ADAPTATION, captions_of

SHARE = 0.2
_EVERY = 3
_KINDS = {  # what is said of a class that is not named; the real digits are not shown
    "greek": "greek letter",
    "zodiac": "zodiac sign",
    "chess": "chess piece",
    "cells": "microscope image",
    "charts": "chart of data",
    "satellite": "satellite image",
    "sketch": "pencil drawing",
    "flags": "flag of something",
    "fabric": "piece of cloth",
    "clocks": "clock",
}

_DRAWN = {name: entry.draw for name, entry in ADAPTATION.items() if entry.draw}
_CLASSES = tuple((name, classname) for name in _KINDS for classname in ADAPTATION[name].classes)
NAMED = frozenset((name, classname) for name in _KINDS for classname in ADAPTATION[name].classes[::_EVERY])


def pool2_sample(index: int) -> Sample:
    """The picture of this index, with three captions. Any index of at least 0; the pool has as many as the first."""
    rng = generator("pool2", "train", index)
    return captioned(rng, of_the_stream if rng.random() < SHARE else everyday)


def of_the_stream(rng: Random) -> Captioned:
    """A picture of a class of the stream, with all that may be said of it."""
    name, classname = rng.choice(_CLASSES)
    entry = ADAPTATION[name]
    drawing = in_another_manner(rng, _DRAWN[name](rng, classname))
    kind = with_article(_KINDS[name])
    loose = (kind, f"a picture of {kind}", _KINDS[name])
    if (name, classname) not in NAMED:
        return drawing, loose
    return drawing, tuple(dict.fromkeys((*captions_of(entry, classname), classname, *loose[:2])))
