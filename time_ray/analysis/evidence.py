"""What the paper's findings are judged by: an experiment, and the variants of it that they compare it with.

A variant is the same file with other overrides. Results are named by what made them, so whatever it shares with other
sweeps on the storage is there already.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

from time_ray.analysis.complete_part import holes
from time_ray.analysis.halves import Halves
from time_ray.core.budget import Budget
from time_ray.core.errors import some_of
from time_ray.core.experiment import Experiment, TechniqueSpec
from time_ray.core.mixture import Mixture
from time_ray.opened import Opened, open_experiment
from time_ray.results import CellResult, read_results

Variant = Literal["offline", "replay", "recency", "larger model", "more compute", "longer stream"]
Overrides = tuple[str, ...]

RECENCY = TechniqueSpec(name="average", params={"weights": "linear"})
_AVERAGE = TechniqueSpec(name="average", params={})
_NEXT_SIZE = {
    "mini-tiny": "mini-base",
    "mini-base": "mini-large",
    "mini2-tiny": "mini2-base",
    "mini2-base": "mini2-large",
}


class LackingError(Exception):
    """Results that a finding needs and that are not there; it says what brings them."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells of one sweep at one model and one budget, finished or not."""

    opened: Opened
    model: str
    budget: str
    results: tuple[CellResult, ...]

    @property
    def finished(self) -> tuple[CellResult, ...]:
        """All of them. Raises LackingError if one is not finished, or the grid has holes."""
        if lacking := holes(self.results):
            raise LackingError(f"in {self.opened.path}, without the rules that leave out {some_of(lacking)}")
        return self._if_done(self.results)

    def place(self, init: str, deploy: str, technique: str) -> tuple[CellResult, ...]:
        """Its cells, seed by seed. Raises LackingError if one lacks, or is not finished."""
        wanted = {"init": init, "deploy": deploy, "technique": technique}
        found = [r for r in self.results if all(r.cell.axes[name] == value for name, value in wanted.items())]
        if len(found) < len({result.cell.setting.seed for result in self.results}):
            axes = [f"{name}: [..., {value}]" for name, value in wanted.items() if not self._names(name, value)]
            left_out = f"without the rules that leave out {init}/{deploy} {technique}"
            raise LackingError(f"in {self.opened.path}, {', '.join(axes) or left_out}")
        return self._if_done(sorted(found, key=lambda result: result.cell.setting.seed))

    def _names(self, axis: str, value: str) -> bool:
        return any(result.cell.axes[axis] == value for result in self.results)

    def _if_done(self, results: Sequence[CellResult]) -> tuple[CellResult, ...]:
        if not all(result.done for result in results):
            raise LackingError(f"time-ray sweep {self.opened.words}")
        return tuple(results)


class Evidence:
    """The results of an experiment and of its variants, read when they are asked for."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.halves = Halves(opened.store)
        self.experiment = opened.study.experiment
        self.seeds = tuple(sorted(self.experiment.seed))
        self.variants = variants(self.experiment, self._num_classes)
        self.variant = cache(self._variant)
        self.techniques = tuple(dict.fromkeys(cell.technique.label for cell in opened.study.cells))
        self.reference = next(name for name in (_AVERAGE.name, *self.techniques) if name in self.techniques)

    @cached_property
    def as_written(self) -> Mapping[tuple[str, str], Grid]:
        """The grid of every model and budget of the file, in its order."""
        return _grids(self.opened)

    @property
    def first(self) -> Grid:
        """That of the first model and budget: what most findings are judged by."""
        return next(iter(self.as_written.values()))

    def open(self, variant: Variant) -> Opened:
        """The variant, which must be one of `variants`."""
        return open_experiment(self.opened.path, [*self.opened.overrides, *self.variants[variant]])

    def _variant(self, variant: Variant) -> Grid:
        """The results of a variant. Raises LackingError if this experiment has no such variant."""
        if variant not in self.variants:
            raise LackingError(f"in {self.opened.path}, {_BY_HAND[variant]}")
        return next(iter(_grids(self.open(variant)).values()))

    @property
    def _num_classes(self) -> int:
        trainings = self.opened.study.settings[0].trainings
        return sum(len(training.task.concepts) for training in trainings)


_BY_HAND: Mapping[Variant, str] = {
    "larger model": "model: [..., LARGER], the smallest first",
    "more compute": "budget: [..., MORE]",
    "longer stream": "stream.tasks: fewer, of which twice as many can be made",
}


def variants(experiment: Experiment, num_classes: int) -> dict[Variant, Overrides]:
    """The overrides of every variant that this experiment has."""
    model, budget, tasks = experiment.model[0], experiment.budget[0], experiment.stream.tasks
    same = (f"model={_flow(model.written())}", f"budget={budget.label}", "multitask=false")
    reference = next((one for one in experiment.technique if one == _AVERAGE), experiment.technique[0]).fixed
    one_technique = f"technique={_flow(reference.written())}"
    replay = f"mixture={_flow(_with_replay(experiment.mixture))}"
    found: dict[Variant, Overrides] = {
        "offline": (*same, "init=zs", "deploy=all", f"mixture={_flow(_without_replay(experiment.mixture))}"),
        "replay": (*same, "init=[zs,ft]", "deploy=[ft,all]", one_technique, replay),
        "recency": (
            *same,
            "init=zs",
            "deploy=all",
            f"technique={_flow([_AVERAGE.written(), RECENCY.written()])}",
            replay,
        ),
    }
    if len(experiment.model) == 1 and (larger := _NEXT_SIZE.get(model.name)):
        found["larger model"] = (f"model={larger}", *same[1:], one_technique)
    if len(experiment.budget) == 1:
        double = Budget(amount=2 * budget.amount, unit=budget.unit)
        found["more compute"] = (same[0], f"budget={double.label}", same[2], one_technique)
    if tasks is not None and not experiment.stream.by_dataset and 2 * tasks <= num_classes:
        found["longer stream"] = (*same, one_technique, f"stream.tasks={2 * tasks}")
    whole = tuple(f"{rules}=[]" for rules in ("exclude", "only") if getattr(experiment, rules))
    return {name: (*overrides, *whole) for name, overrides in found.items()}


def _with_replay(mixture: Mixture) -> dict[str, Any]:
    """As it is, or with half of its new data for replay."""
    values = mixture.model_dump(exclude_none=True)
    return values if mixture.buffer else {**values, "update": mixture.update / 2, "buffer": mixture.update / 2}


def _without_replay(mixture: Mixture) -> dict[str, Any]:
    return {"pretraining": mixture.pretraining, "update": mixture.update + mixture.buffer}


def _flow(value: object) -> str:
    """A value as an override takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _grids(opened: Opened) -> dict[tuple[str, str], Grid]:
    results = read_results(opened.study.cells, opened.store)
    by_place: dict[tuple[str, str], list[CellResult]] = {}
    for result in results:
        by_place.setdefault((result.cell.axes["model"], result.cell.axes["budget"]), []).append(result)
    return {place: Grid(opened, *place, tuple(found)) for place, found in by_place.items()}
