"""Fisher merging in real sweeps: which moments are kept, what is merged by them, and what a loss of them costs."""

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import distributed
from torch.multiprocessing import spawn
from toy_grid import full_grid, setting, technique

from time_ray import api, merging
from time_ray.clip.models import base_weights
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.core.grid import Cell, last
from time_ray.core.keys import key_of
from time_ray.core.plan import Plan, plan
from time_ray.core.recipe import Experts, Kept, Moments, Trained
from time_ray.core.strategies import Outer
from time_ray.loop import run_to_end
from time_ray.merging import MergeError
from time_ray.realize import IncrementalMerges, realize
from time_ray.results import stored
from time_ray.store.recipe_index import RecipeIndex
from time_ray.store.why import first_difference
from time_ray.weight_cache import Cache, Memory, Weights, num_bytes

NUM_TASKS = 3
FISHER: dict[str, Any] = {
    "init": ["zs", "ema"],
    "deploy": ["ema", "all"],
    "technique": ["average", "fisher", {"name": "fisher", "rate": "element"}],
}
SMALL: dict[str, Any] = {"init": "zs", "deploy": "all", "technique": "fisher"}
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> api.Opened:
    return run(new_experiment(tmp_path_factory.mktemp("fisher"), **FISHER))


def run(path: Path, *changes: str) -> api.Opened:
    opened = api.open_experiment(path, changes)
    assert api.sweep(opened).exit_code == 0
    return opened


def the_cell(opened: api.Opened, init: str, deploy: str, rate: str = "model") -> Cell:
    label = "fisher" if rate == "model" else f"fisher(rate={rate})"
    (cell,) = [
        cell
        for cell in opened.study.cells
        if (cell.init.name, cell.deploy.name, cell.technique.label) == (init, deploy, label)
    ]
    return cell


def left(opened: api.Opened) -> Plan:
    return plan(opened.study.everything, stored(opened.store))


def weights(opened: api.Opened, key: str) -> Weights:
    found = opened.store.get(key)
    assert found is not None
    return found


def made_of(opened: api.Opened, cell: Cell) -> tuple[list[Weights], list[Weights], list[Weights]]:
    """A cell's experts, the moments of each, and the one model that it serves at the end."""
    steps = list(cell.walk())
    experts = [weights(opened, step.expert.key) for step in steps]
    moments = [weights(opened, Moments(step.expert).key) for step in steps]
    return experts, moments, [weights(opened, steps[-1].deployed.key)]


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def lose(opened: api.Opened, key: str) -> None:
    """No entry is under the key."""
    for entry in Path(opened.files.path("weights", key[:2], key)).iterdir():
        entry.unlink()


@pytest.mark.parametrize("rate", ["model", "element"])
@pytest.mark.parametrize("init", ["zs", "ema"])
def test_what_is_served_is_the_merge_by_the_moments_of_the_trainings(swept: api.Opened, init: str, rate: Any) -> None:
    experts, moments, (served,) = made_of(swept, the_cell(swept, init, "all", rate))
    assert same(served, merging.fisher_merge(experts, moments, rate=rate))
    assert not same(served, merging.merge(experts[0], experts[1:], "average"))


@pytest.mark.parametrize("rate", ["model", "element"])
def test_a_running_merge_knows_how_sure_all_before_were(swept: api.Opened, rate: Any) -> None:
    """It begins at the base, of which nothing is known, so it ends near the merge of all."""
    cell = the_cell(swept, "zs", "ema", rate)
    experts, moments, (served,) = made_of(swept, cell)
    older, known = base_weights(cell.setting.model), {name: 0 * tensor for name, tensor in moments[0].items()}
    for expert, newest in zip(experts, moments, strict=True):
        older = merging.fisher_merge([older, expert], [known, newest], rate=rate)
        known = {name: tensor + newest[name] for name, tensor in known.items()}
    assert same(served, dict(older))
    *_, (at_once,) = made_of(swept, the_cell(swept, "zs", "all", rate))
    for name, tensor in at_once.items():
        torch.testing.assert_close(served[name], tensor, rtol=0, atol=1e-4)


def test_moments_are_of_every_weight_and_say_something(swept: api.Opened) -> None:
    experts, moments, _ = made_of(swept, the_cell(swept, "zs", "all"))
    for expert, found in zip(experts, moments, strict=True):
        assert found.keys() == {name for name, tensor in expert.items() if tensor.is_floating_point()}
        assert sum(float(tensor.sum()) for tensor in found.values()) > 0


def test_moments_are_kept_where_they_are_merged_by_and_nowhere_else(swept: api.Opened) -> None:
    needed = {one.key for cell in swept.study.cells for one in cell.moments().values()}
    recipes = map(RecipeIndex(swept.store).recipe, swept.store.keys("weights"))
    kept = {recipe["key"] for recipe in recipes if recipe and recipe["kind"] == "moments"}
    assert kept == needed
    of_ema = 2 * (NUM_TASKS - 1)  # the second and third expert from each rate; the first is that of zs, too
    assert len(kept) == NUM_TASKS + of_ema


def test_a_cell_needs_moments_of_the_experts_that_it_merges() -> None:
    fisher, toys = technique("fisher", weighted=False, needs_moments=True), setting(NUM_TASKS)
    needed = {cell.name: cell.moments() for cell in full_grid([fisher, technique()], toys)}
    counts = {name.split()[0]: len(found) for name, found in needed.items() if "fisher" in name}
    assert {name for name, count in counts.items() if count == 0} == {"zs/ft", "ft/ft"}
    assert {name for name, count in counts.items() if count == NUM_TASKS - 1} == {"ema/ft", "all/ft"}  # not the last
    assert not any(found for name, found in needed.items() if "fisher" not in name)


def test_a_plan_counts_moments_to_be_stored_and_none_without_a_need(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    path = new_experiment(tmp_path, **SMALL)
    planned = [api.plan(api.open_experiment(path, [f"technique={name}"])) for name in ("average", "fisher")]
    one_model = planned[0].bytes // (NUM_TASKS + 1)
    assert planned[1].bytes == planned[0].bytes + NUM_TASKS * one_model
    assert planned[1].trainings.to_do == NUM_TASKS
    assert [one.moments for one in planned] == [0, NUM_TASKS]
    assert "weights of experts and final models, second moments of 3 experts" in time_ray("plan", path).out
    assert "moments" not in time_ray("plan", path, "technique=average").out


def test_what_is_not_there_is_trained_again_to_the_same_bits(
    swept: api.Opened, new_experiment: Make, tmp_path: Path
) -> None:
    """Experts of a sweep that kept no moments, and then lost moments; another storage has had both at once."""
    path = new_experiment(tmp_path, **SMALL)
    run(path, "technique=average")
    assert left(api.open_experiment(path)).trainings_to_do == NUM_TASKS
    opened = run(path)
    (cell,) = opened.study.cells
    lose(opened, Moments(list(cell.walk())[1].expert).key)
    counts = left(api.open_experiment(path))
    assert (counts.cells_to_do, counts.trainings_to_do, counts.evaluations_to_do) == (1, 1, 0)
    assert counts.work["mini-tiny"].weights == 1
    opened = run(path)
    assert left(opened).cells_to_do == 0
    for found, wanted in zip(made_of(opened, cell), made_of(swept, cell), strict=True):
        assert len(found) == len(wanted)
        assert all(same(*pair) for pair in zip(found, wanted, strict=True))


def test_the_store_keeps_and_explains_them(swept: api.Opened) -> None:
    steps = list(the_cell(swept, "zs", "all").walk())
    one, other = (Moments(step.expert) for step in steps[:2])
    index = RecipeIndex(swept.store)
    assert index.show(one.key)["parents"] == {one.expert.key: "stored"}
    recipes = index.recipe(one.key), index.recipe(other.key)
    assert recipes[0] is not None
    assert recipes[1] is not None
    difference = first_difference(*recipes, index.recipe)
    assert difference is not None
    assert difference[:3] == ("expert.task", 1, 2)
    assert not list(api.store_gc([swept], young=True, dry=True))
    averages = api.open_experiment(swept.path, ["technique=average"])
    freed = {item.path.split("/")[2] for item in api.store_gc([averages], young=True, dry=True)}
    assert {one.key, other.key} <= freed


@pytest.mark.parametrize("nesterov", [True, False])
def test_an_outer_step_adds_momentum_to_the_merge(nesterov: bool) -> None:
    """Task after task out of the library's functions, with the same bits, however little memory keeps."""
    fisher = technique("fisher", weighted=False, needs_moments=True, rate="model")
    toys, experts = setting(4), None
    for training in toys.trainings:
        experts = Experts.add(experts, Trained(toys.base, training))
    assert experts is not None
    recipe = Outer(nesterov=nesterov).recipe(toys.base, experts, fisher)
    slow = merge_before = before = drawn(toys.base)
    known = {name: 0 * tensor for name, tensor in slow.items()}
    for expert in experts:
        newest = drawn(Moments(expert))
        merged = merging.fisher_merge([slow, drawn(expert)], [known, newest])
        known = {name: tensor + newest[name] for name, tensor in known.items()}
        way = (merged, merge_before) if nesterov else (slow, before)
        before, merge_before = slow, merged
        slow = merging.with_momentum(merged, *way, 0.5)
    for limit in (0, 10**9):
        found = at_hand(limit)(recipe)
        assert found is not None
        assert same(found, dict(slow))
    for lost in experts:
        assert at_hand(0, lost=Moments(lost).key)(recipe) is None


def drawn(recipe: Kept) -> Weights:
    """Numbers that follow from the key alone; moments are no less than 0."""
    random = torch.Generator().manual_seed(int(key_of(recipe.key)[:12], 16))
    made = {"w": torch.randn(4, 8, generator=random), "v": torch.randn(16, generator=random)}
    return {name: tensor.square() for name, tensor in made.items()} if isinstance(recipe, Moments) else made


def at_hand(limit: int, lost: str = "") -> IncrementalMerges:
    """Merges of experts and moments that are all there but one."""
    memory = Memory(limit)
    cache = Cache[Weights](memory, num_bytes)

    def read(recipe: Kept) -> Weights | None:
        if recipe.key == lost:
            return None
        return drawn(recipe) if isinstance(recipe, Trained | Moments) else cache.get(recipe.key)

    return IncrementalMerges(drawn, read, cache, Cache[merging.Fold](memory, attrgetter("num_bytes")))


def work(rank: int, path: Path, folder: Path) -> None:
    """One of two workers trains the experts, and merges them by their moments."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/start", rank=rank, world_size=2)
    opened = api.open_experiment(path)
    backend = SweepBackend(opened.study, opened.store, LocalCoordinator())
    (cell,) = opened.study.cells
    list(run_to_end(cell, backend))
    torch.save(realize(last(cell), backend), folder / f"{rank}.pt")
    backend.settle()
    distributed.destroy_process_group()


@pytest.mark.nightly
def test_workers_keep_the_moments_of_all_of_them(new_experiment: Make, tmp_path: Path) -> None:
    training = {"batch_size": 8, "augment": "none", "eps": 1e-3}  # a large eps: rounding moves no step far
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    one = run(new_experiment(alone, **SMALL, training=training))
    path = new_experiment(together, **SMALL, training=training)
    spawn(work, (path, together), nprocs=2)
    other = api.open_experiment(path)
    (cell,) = one.study.cells
    merged = [torch.load(together / f"{rank}.pt") for rank in range(2)]
    assert same(*merged)
    for step in cell.walk():
        left_by = [weights(opened, Moments(step.expert).key) for opened in (one, other)]
        for name, tensor in left_by[0].items():
            torch.testing.assert_close(left_by[1][name], tensor, rtol=1e-3, atol=1e-7)


def test_without_moments_it_is_refused_in_a_line(tmp_path: Path, time_ray: Callable[..., Any]) -> None:
    models = [{"w": torch.ones(2)}, {"w": torch.zeros(2)}]
    says = "^fisher: it needs the second moments of each expert's training, which are in no model file; name it in"
    for act in (merging.merge, merging.ema):
        with pytest.raises(MergeError, match=says):
            act(models[0], models, "fisher")
    with pytest.raises(MergeError, match=says):
        merging.fold("fisher", models[0])
    paths = [str(tmp_path / f"{number}.safetensors") for number in range(2)]
    for model, path in zip(models, paths, strict=True):
        save_file(model, path)
    done = time_ray("merge", "--base", paths[0], paths[1], "-o", str(tmp_path / "merged"), "--technique", "fisher")
    assert done.status == 2
    assert [line for line in done.err.splitlines() if "fisher: it needs the second moments" in line]
    assert not (tmp_path / "merged").exists()
    with pytest.raises(MergeError, match="average: it takes no moments; use merge"):
        merging.merge_by_moments("average", models, models, {})
    assert "fisher: it merges by second moments" in time_ray("check-technique", "fisher").err
