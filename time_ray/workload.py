"""What a sweep has to do, as trials for the simulator: a trial for each trajectory, in the order of its loop."""

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple

from time_ray.core.grid import Cell
from time_ray.core.plan import Stored
from time_ray.core.recipe import Recipe, Trained
from time_ray.core.schedule import Piece, SimulatedTrial
from time_ray.rates import Rate
from time_ray.trials import of_a_trial


class TrialNeeds(NamedTuple):
    """What a trial of a model takes: seconds, GPUs, and the bytes of its weights."""

    rate: Rate
    gpus: float
    num_bytes: int


class Workload(NamedTuple):
    """Trials with something to do, how many trainings each lacks, and keys of experts that are stored already."""

    trials: list[SimulatedTrial]
    trainings: list[int]
    stored: frozenset[str]


def workload(
    cells: Sequence[Cell], needs: Mapping[str, TrialNeeds], stored: Stored, *, one_each: bool = False
) -> Workload:
    """What is left to do of the cells, given what each model needs, by its label; `one_each` as in `of_a_trial`."""
    trials, trainings, found = list[SimulatedTrial](), list[int](), set[str]()
    for group in of_a_trial(cells, one_each=one_each):
        need = needs[group[0].setting.model.label]
        moments = {key: one.key for cell in group for key, one in cell.moments().items()}
        stages = [stage for stage in _stages(group, need, stored, moments) if stage]
        experts = [step.expert.key for step in group[0].walk()]
        have = {key for key in experts if key in stored.weights and moments.get(key, key) in stored.weights}
        if any(piece.key not in have for stage in stages for piece in stage):
            trials.append(SimulatedTrial(stages, need.gpus, experts))
            trainings.append(len(experts) - len(have))
            found |= have
    return Workload(trials, trainings, frozenset(found))


def _stages(group: Sequence[Cell], need: TrialNeeds, stored: Stored, moments: Container[str]) -> Iterator[list[Piece]]:
    """As `loop.run` goes: the base is scored; then, task after task, an expert is made and what is deployed is scored.

    What is deployed last is kept.
    """
    setting, scored = group[0].setting, set[str]()

    def scores(deployed: Sequence[Recipe], *, last: bool = False) -> list[Piece]:
        named = {setting.scores_key(recipe): recipe for recipe in deployed}
        new = [key for key in named if key not in scored and key not in stored.scores]
        scored.update(new)
        return [
            Piece(key, need.rate.evaluation, need.num_bytes if last and not isinstance(named[key], Trained) else 0)
            for key in new
        ]

    deployed: list[Recipe] = [setting.base] * len(group)
    yield scores(deployed[:1])
    for steps in zip(*(cell.walk() for cell in group), strict=True):
        expert, training = steps[0].expert, steps[0].training
        written = need.num_bytes * (2 if expert.key in moments else 1)
        yield [Piece(expert.key, training.steps * need.rate.step, written, need.num_bytes)]
        deployed = [step.deployed for step in steps]
        yield scores(deployed, last=training is setting.trainings[-1])
    yield scores(
        [recipe for cell, model in zip(group, deployed, strict=True) for recipe in cell.at_lengths(model).values()]
    )
