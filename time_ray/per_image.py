"""Outcomes of test images, read back from the store: of one half of them, or of the classes of a task."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np

from time_ray.core.grid import Setting
from time_ray.core.outcomes import SCORED_SIDES, SIDES, Bits, Outcomes, Question, Rows, labels_in, unpacked
from time_ray.store.store import Store

Half = Literal["select", "report"]
T = TypeVar("T")

KEPT = 4096  # outcomes in memory: those of one model are some kilobytes


@dataclass(frozen=True)
class TestImages:
    """What is known of the images of every question, in the order of outcomes."""

    select: Mapping[Question, Bits]  # belongs to the half on which a winner is selected
    labels: Mapping[Question, Rows]  # its class, by number; -1 for none
    classes: Mapping[str, Sequence[str]]  # names of classes, by dataset

    @cached_property
    def report(self) -> Mapping[Question, Bits]:
        """Belongs to the half on which a winner is reported."""
        return {question: ~bits for question, bits in self.select.items()}

    @cached_property
    def has_halves(self) -> bool:
        """Whether every question is asked of an image in both."""
        return all(bits.any() and not bits.all() for bits in self.select.values())

    def half(self, half: Half) -> Mapping[Question, Bits]:
        """Which images belong to it."""
        return self.select if half == "select" else self.report

    def percents(self, outcomes: Outcomes, half: Half) -> dict[Question, float]:
        """Of each question how many of its outcomes in that half are right, which must not be empty."""
        mask, starts, counts = self._masks[half]
        right = np.concatenate([outcomes[question] for question in self.select])
        shares: list[float] = (100 * np.add.reduceat(right & mask, starts, dtype=np.int64) / counts).tolist()
        return dict(zip(self.select, shares, strict=True))

    @cached_property
    def _masks(self) -> dict[Half, tuple[Bits, Rows, Rows]]:
        """All questions one after the other: which images count, where each begins, and how many of it count."""
        sizes = [len(bits) for bits in self.select.values()]
        starts = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
        found: dict[Half, tuple[Bits, Rows, Rows]] = {}
        for half in ("select", "report"):
            mask = np.concatenate(list(self.half(half).values()))
            found[half] = mask, starts, np.add.reduceat(mask, starts, dtype=np.int64)
        return found

    def tasks(self, setting: Setting) -> dict[Question, Rows]:
        """Of every image the task that teaches its class, from 1; 0 where none does."""
        number = {
            tuple(concept): training.task.number for training in setting.trainings for concept in training.task.concepts
        }
        found: dict[Question, Rows] = {}
        for question, labels in self.labels.items():
            named = self.classes.get(question.dataset, ())
            of_class = np.array([*(number.get((question.dataset, name), 0) for name in named), 0], dtype=np.int64)
            found[question] = of_class[labels]  # -1, no class, is the last one
        return found


class PerImage:
    """Outcomes by the keys of scores. What a store kept before there were outcomes has none."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.outcomes = lru_cache(KEPT)(self._outcomes)
        self._test_images = lru_cache(KEPT)(self._read_test_images)
        self._tasks = lru_cache(KEPT)(self._in_tasks)

    def test_images(self, setting: Setting) -> TestImages | None:
        """What the test images of a setting are; None where its base was scored before outcomes were kept."""
        return self._test_images(setting.scores_key(setting.base))

    def has_outcomes(self, scores_key: str) -> bool:
        """Whether outcomes were kept with these scores."""
        entry = self._store.entry("scores", scores_key)
        return entry is not None and "payload" in entry

    def by_task(self, scores_key: str, setting: Setting, half: Half | None = None) -> list[float] | None:
        """Accuracy (percent) on the classes of every task, in order; NaN for a task without test images.

        Each image counts once: of a retrieval set by the mean of both directions' R@5. Of one half, if it is named.
        """
        outcomes, tasks, images = self.outcomes(scores_key), self._tasks(setting), self.test_images(setting)
        if outcomes is None or tasks is None or images is None:
            return None
        if half is not None:
            chosen = images.half(half)
            outcomes = {question: bits[chosen[question]] for question, bits in outcomes.items()}
            tasks = {question: of_task[chosen[question]] for question, of_task in tasks.items()}
        count = len(setting.trainings) + 1
        right, asked = np.zeros(count), np.zeros(count)
        for question, of_task, number in _scored(outcomes, tasks, count):
            with np.errstate(invalid="ignore"):
                share = np.bincount(of_task, outcomes[question], count) / np.bincount(of_task, minlength=count)
            right += np.where(number > 0, share * number, 0)
            asked += number
        with np.errstate(invalid="ignore"):
            percents: list[float] = (100 * right / asked)[1:].tolist()
        return percents

    def _outcomes(self, scores_key: str) -> Outcomes | None:
        arrays = self._store.arrays(scores_key)
        return None if arrays is None else unpacked(arrays)

    def _read_test_images(self, scores_key: str) -> TestImages | None:
        entry: Any = self._store.entry("scores", scores_key)
        arrays = self._store.arrays(scores_key)
        if entry is None or arrays is None:
            return None
        return TestImages(unpacked(arrays, "select"), labels_in(arrays), entry["classes"])

    def _in_tasks(self, setting: Setting) -> dict[Question, Rows] | None:
        found = self.test_images(setting)
        return None if found is None else found.tasks(setting)


class _Part(NamedTuple):
    question: Question
    of_task: Rows
    images: Any  # how many of each task this question speaks for: halves, where two questions share them


def _scored(outcomes: Outcomes, tasks: Mapping[Question, Rows], count: int) -> Iterator[_Part]:
    """The questions that make a dataset's score."""
    for question in outcomes:
        if not question.side:
            yield _Part(question, tasks[question], np.bincount(tasks[question], minlength=count))
        elif question.side in SCORED_SIDES:
            asked = np.bincount(tasks[Question(question.dataset, SIDES[-1])], minlength=count)  # once an image
            yield _Part(question, tasks[question], asked / 2)


class Lazy(Sequence[T]):
    """A sequence whose items are made when they are first asked for."""

    def __init__(self, make: Callable[[int], T], numbers: range, made: dict[int, T] | None = None) -> None:
        self._make = make
        self._numbers = numbers
        self._made: dict[int, T] = {} if made is None else made

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "Lazy[T]": ...
    def __getitem__(self, index: int | slice) -> "T | Lazy[T]":
        found = self._numbers[index]
        if isinstance(found, range):
            return Lazy(self._make, found, self._made)
        if found not in self._made:
            self._made[found] = self._make(found)
        return self._made[found]
