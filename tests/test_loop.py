"""The main path over a Backend of two dicts: stages in order, nothing twice, and a failure only costs a restart."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_grid import full_grid, setting, strategies, technique

from time_ray.core.errors import CellError
from time_ray.core.grid import Cell, Setting, grid
from time_ray.core.keys import key_of
from time_ray.core.plan import plan
from time_ray.core.recipe import Base, Merged, Recipe, Running, Trained
from time_ray.loop import Accuracy, DeployedModel, run
from time_ray.realize import realize
from time_ray.trials import by_trajectory
from time_ray.weight_cache import Weights


class Interrupted(Exception):  # noqa: N818 what happens to a process is no error of its code
    """The power went."""


class ToyBackend:
    """A Backend of two dicts. `calls` says what was asked of it; at call number `dies_at` the power goes."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.weights: dict[str, Weights] = {}
        self.accuracy: dict[str, Accuracy] = {}
        self.calls: list[tuple[str, str]] = []
        self.dies_at = dies_at

    def load(self, base: Base) -> Weights:
        self._called("load", base.key)
        return {"w": _vector(base.key)}

    def train(self, expert: Trained, start: Weights) -> Weights:
        self._called("train", expert.key)
        return {"w": start["w"] + _vector(expert.training.key)}

    def merge(self, merge: Merged | Running) -> Weights | None:
        self._called("merge", merge.key)
        try:
            return {"w": self._merged(merge)}
        except KeyError:  # an expert that is lost
            return None

    def evaluate(self, _: Setting, models: Iterable[Weights]) -> Iterator[Accuracy]:
        for weights in models:
            self._called("evaluate", _bits(weights))
            yield {"toys": float(weights["w"].sum()), "held out": float(weights["w"].prod())}

    def has(self, recipe: Recipe) -> bool:
        self._called("has", recipe.key)
        return recipe.key in self.weights

    def get(self, recipe: Recipe) -> Weights | None:
        self._called("get", recipe.key)
        return self.weights.get(recipe.key)

    def put(self, recipe: Recipe, weights: Weights) -> None:
        self._called("put", recipe.key)
        self.weights[recipe.key] = weights

    def scores(self, where: Setting, recipe: Recipe) -> Accuracy | None:
        self._called("scores", recipe.key)
        return self.accuracy.get(where.scores_key(recipe))

    def record(self, where: Setting, recipe: Recipe, accuracy: Accuracy) -> None:
        self._called("record", recipe.key)
        self.accuracy[where.scores_key(recipe)] = accuracy

    @contextmanager
    def lease(self, name: str) -> Iterator[bool]:
        self._called("lease", name)
        yield True

    def count(self, name: str) -> Counter[str]:
        return Counter(key for call, key in self.calls if call == name)

    def _called(self, name: str, key: str) -> None:
        self.calls.append((name, key))
        if len(self.calls) == self.dies_at:
            raise Interrupted(f"at call {self.dies_at}, {name}")

    def _merged(self, recipe: Recipe) -> Tensor:
        if isinstance(recipe, Base):
            return _vector(recipe.key)
        if isinstance(recipe, Trained):
            return self.weights[recipe.key]["w"]
        if isinstance(recipe, Running):
            share = 0.5 if recipe.weight is None else recipe.weight
            return share * self._merged(recipe.newer) + (1 - share) * self._merged(recipe.older)
        return torch.stack([self._merged(expert) for expert in recipe.experts]).mean(0)


def _vector(key: str) -> Tensor:
    """Weights that differ wherever keys do."""
    return torch.tensor([int(key_of(key, i)[:6], 16) / 16**6 for i in range(3)], dtype=torch.float64)


def _bits(weights: Weights) -> str:
    return key_of(*(float(x) for x in weights["w"]))


def finish(cells: Sequence[Cell], backend: ToyBackend) -> list[DeployedModel]:
    """All deployed models, trajectory after trajectory."""
    return [model for group in by_trajectory(cells).values() for model in run(group, backend) if model is not None]


def end_state(backend: ToyBackend) -> tuple[dict[str, str], dict[str, Accuracy]]:
    return {key: _bits(weights) for key, weights in backend.weights.items()}, backend.accuracy


GRID = full_grid([technique(), technique("sum", weighted=False, alone=False)], setting(3))


def test_the_stages_of_a_task_come_in_order() -> None:
    (cell,) = grid(strategies(["ema"]), strategies(["ema"]), [technique()], [setting(2)])
    backend = ToyBackend()
    models = run([cell], backend)
    assert next(models).task == 0
    stages: list[list[str]] = []
    for _ in range(2):
        backend.calls.clear()
        next(models)
        stages.append(
            [name for name, _ in backend.calls if name in ("load", "train", "put", "merge", "evaluate", "record")]
        )
    assert stages[0] == ["load", "train", "put", "merge", "evaluate", "record"]
    # the start of task 2 is a merge, and the last deployed model is kept
    assert stages[1] == ["merge", "train", "put", "merge", "put", "evaluate", "record"]


def test_rows_say_what_is_served_after_every_task() -> None:
    models = finish(GRID[:1], ToyBackend())
    assert [model.task for model in models] == [0, 1, 2, 3]
    assert models[0].recipe.key == GRID[0].setting.base.key
    assert {model.cell for model in models} == {GRID[0]}


def test_what_is_stored_is_neither_made_nor_read() -> None:
    backend = ToyBackend()
    first = finish(GRID, backend)
    backend.calls.clear()
    assert [model.accuracy for model in finish(GRID, backend)] == [model.accuracy for model in first]
    assert {name for name, _ in backend.calls} == {"has", "scores"}


def test_cells_of_a_trajectory_are_measured_in_one_pass() -> None:
    sizes = []

    class Passes(ToyBackend):
        def evaluate(self, where: Setting, models: Iterable[Weights]) -> Iterator[Accuracy]:
            together = list(models)
            sizes.append(len(together))
            yield from super().evaluate(where, together)

    finish(grid(strategies(["ft"]), strategies(["ft", "ema", "all"]), [technique()], [setting(3)]), Passes())
    # the base; after task 1 ft and all are the same model; then all three differ
    assert sizes == [1, 2, 3, 3]


def test_every_expert_is_trained_once_and_every_model_scored_once() -> None:
    backend = ToyBackend()
    finish(GRID, backend)
    counts = plan(GRID)
    assert max(backend.count("train").values()) == 1
    assert max(backend.count("record").values()) == 1
    assert backend.count("train").total() == counts.trainings_distinct
    assert backend.count("evaluate").total() == counts.evaluations_distinct


NAMES = st.lists(st.sampled_from(["zs", "ft", "ema", "all"]), min_size=1, max_size=4, unique=True)
TECHNIQUES = st.lists(
    st.sampled_from([technique(), technique("sum", weighted=False, alone=False), technique(scaling=2.0)]),
    min_size=1,
    max_size=3,
    unique=True,
)


@given(NAMES, NAMES, TECHNIQUES, st.integers(1, 4), st.integers(1, 2), st.data())
@settings(max_examples=40)
def test_the_plan_counts_what_running_performs(
    inits: Sequence[str], deploys: Sequence[str], techniques: list, num_tasks: int, seeds: int, data: st.DataObject
) -> None:
    toys = [setting(num_tasks, seed=seed) for seed in range(seeds)]
    cells = grid(strategies(inits), strategies(deploys), techniques, toys)
    backend = ToyBackend()
    finish(data.draw(st.permutations(cells)), backend)
    counts = plan(cells)
    assert backend.count("train").total() == counts.trainings_distinct
    assert backend.count("evaluate").total() == counts.evaluations_distinct
    assert len(backend.accuracy) == counts.evaluations_distinct
    assert len(set(backend.count("merge"))) <= counts.merges_distinct
    assert len(backend.weights) == sum(work.weights for work in counts.work.values())


@given(st.permutations(GRID))
@settings(max_examples=10)
def test_the_order_of_cells_changes_nothing(cells: list[Cell]) -> None:
    one, other = ToyBackend(), ToyBackend()
    finish(GRID, one)
    finish(cells, other)
    assert end_state(one) == end_state(other)


@pytest.mark.parametrize("cells", [GRID[i : i + 1] for i in range(0, len(GRID), 5)], ids=lambda cells: cells[0].name)
def test_a_failure_at_any_call_only_costs_a_restart(cells: Sequence[Cell]) -> None:
    undisturbed = ToyBackend()
    models = finish(cells, undisturbed)
    for call in range(1, len(undisturbed.calls) + 1):
        backend = ToyBackend(dies_at=call)
        with pytest.raises(Interrupted):
            finish(cells, backend)
        died_in, _ = backend.calls.pop()  # the call that never ended
        trained = backend.count("train")
        backend.calls, backend.dies_at = [], None
        assert [model.accuracy for model in finish(cells, backend)] == [model.accuracy for model in models]
        assert end_state(backend) == end_state(undisturbed)
        # a training is done again only if the power went before it was kept
        assert max((trained + backend.count("train")).values()) <= (2 if died_in == "put" else 1)


@pytest.mark.parametrize("init", ["zs", "ft", "ema", "all"])
@pytest.mark.parametrize("deploy", ["ema", "all"])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_an_expert_that_is_lost_is_made_again(init: str, deploy: str, lost: int) -> None:
    (cell,) = grid(strategies([init]), strategies([deploy]), [technique()], [setting(3)])
    backend = ToyBackend()
    models = finish([cell], backend)
    whole = end_state(backend)
    last = models[-1].recipe
    del backend.weights[[step.expert.key for step in cell.walk()][lost]]
    backend.weights.pop(last.key)
    assert _bits(realize(last, backend)) == whole[0][last.key]
    finish([cell], backend)
    assert end_state(backend) == whole


def test_an_expert_trained_meanwhile_elsewhere_is_not_trained_again() -> None:
    class Raced(ToyBackend):
        """Another trial trains every expert just as we ask for it."""

        @contextmanager
        def lease(self, name: str) -> Iterator[bool]:
            experts = {step.expert.key: step.expert for step in GRID[0].walk()}
            if name not in experts:  # scores are ours
                yield True
                return
            elsewhere = ToyBackend()
            elsewhere.weights = self.weights
            self.weights[name] = elsewhere.train(experts[name], realize(experts[name].start, elsewhere))
            yield False

    backend = Raced()
    finish(GRID[:1], backend)
    alone = ToyBackend()
    finish(GRID[:1], alone)
    assert end_state(backend) == end_state(alone)
    assert not backend.count("train")


def test_a_failing_expert_fails_the_cells_that_need_it() -> None:
    class Failing(ToyBackend):
        def train(self, *_: object) -> Weights:
            raise CellError("loss is nan at step 3")

    backend = Failing()
    models = run(GRID[:1], backend)
    assert next(models).task == 0
    with pytest.raises(CellError, match="nan at step 3"):
        next(models)
    assert backend.weights == {}
