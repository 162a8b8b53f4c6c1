"""What a sweep would do, by set arithmetic on recipes: no GPU, no weights."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from time_ray.core.grid import Cell
from time_ray.core.recipe import Recipe, merge_in


class Stored(NamedTuple):
    """Keys of what the store holds: weights (experts, their moments, and final models), and scores."""

    weights: Container[str]
    scores: Container[str]


NOTHING = Stored(frozenset(), frozenset())


class Needs(NamedTuple):
    """What one cell needs to exist: its trainings with their steps, its scores, its final weights."""

    experts: dict[str, int]
    moments: dict[str, str]  # keys of second moments, by that of the expert that leaves them
    scores: list[str]
    final: str
    merges: list[str]

    def missing(self, stored: Stored) -> bool:
        """Whether anything is not in the store yet."""
        return (
            self.final not in stored.weights
            or bool(self.untrained(stored))
            or any(key not in stored.scores for key in self.scores)
        )

    def untrained(self, stored: Stored) -> dict[str, int]:
        """The trainings to do, with their steps: the expert is not in the store yet, or its moments are not."""
        return {
            key: steps
            for key, steps in self.experts.items()
            if key not in stored.weights or self.moments.get(key, key) not in stored.weights
        }


def needs(cell: Cell) -> Needs:
    """What the cell needs, in the order in which its loop asks for it."""
    setting = cell.setting
    experts: dict[str, int] = {}
    scores, merges = [setting.scores_key(setting.base)], []
    final: Recipe = setting.base
    for step in cell.walk():
        experts[step.expert.key] = step.training.steps
        scores.append(setting.scores_key(step.deployed))
        merges += [merge.key for weights in (step.start, step.deployed) if (merge := merge_in(weights))]
        final = step.deployed
    scores += [setting.scores_key(recipe) for recipe in cell.at_lengths(final).values()]
    moments = {key: one.key for key, one in cell.moments().items()}
    return Needs(experts, moments, scores, final.key, merges)


class Work(NamedTuple):
    """Work left on one model."""

    steps: int
    evaluations: int
    weights: int  # models to be stored, and second moments, which are as large


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Counts of work. `asked`: as if no cell shared anything. `to_do`: distinct, and not in the store yet."""

    cells: int
    cells_to_do: int
    trainings_asked: int
    trainings_distinct: int
    trainings_to_do: int
    merges_distinct: int
    evaluations_distinct: int
    evaluations_to_do: int
    moments_to_do: int  # second moments to be stored
    work: Mapping[str, Work]  # by model label


def plan(cells: Sequence[Cell], stored: Stored = NOTHING) -> Plan:
    """Union of all cells' needs, less what is in the store. Linear in cells x tasks."""
    experts: dict[str, tuple[str, int]] = {}
    scores: dict[str, str] = {}
    finals: dict[str, str] = {}
    moments: dict[str, str] = {}
    untrained: dict[str, tuple[str, int]] = {}
    merges: set[str] = set()
    asked = to_do = 0
    for cell in cells:
        need, model = needs(cell), cell.setting.model.label
        asked += len(need.experts)
        experts.update((key, (model, steps)) for key, steps in need.experts.items())
        scores.update(dict.fromkeys(need.scores, model))
        finals[need.final] = model
        moments.update(dict.fromkeys(need.moments.values(), model))
        untrained.update((key, (model, steps)) for key, steps in need.untrained(stored).items())
        merges.update(need.merges)
        to_do += need.missing(stored)
    evaluations = [model for key, model in scores.items() if key not in stored.scores]
    kept = {key: model for key, (model, _) in experts.items()} | moments | finals
    weights = [model for key, model in kept.items() if key not in stored.weights]
    return Plan(
        cells=len(cells),
        cells_to_do=to_do,
        trainings_asked=asked,
        trainings_distinct=len(experts),
        trainings_to_do=len(untrained),
        merges_distinct=len(merges),
        evaluations_distinct=len(scores),
        evaluations_to_do=len(evaluations),
        moments_to_do=sum(key not in stored.weights for key in moments),
        work=_work(untrained.values(), evaluations, weights),
    )


def _work(trainings: Iterable[tuple[str, int]], evaluations: list[str], weights: list[str]) -> dict[str, Work]:
    steps: dict[str, int] = {}
    for model, amount in trainings:
        steps[model] = steps.get(model, 0) + amount
    models = sorted({*steps, *evaluations, *weights})
    return {m: Work(steps.get(m, 0), evaluations.count(m), weights.count(m)) for m in models}
