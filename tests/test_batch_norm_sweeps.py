"""Models with BatchNorm through whole sweeps: a small one of RN50's kind, with open_clip's own weights at the start."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_norm import STATISTICS, buffers, start
from safetensors.torch import load_file, save_file
from torch import Tensor

from time_ray import api, merging
from time_ray.api import Opened
from time_ray.clip.models import create
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import Recipe, Reestimated
from time_ray.events import ExpertTrained
from time_ray.plugins import load_plugins
from time_ray.realize import realize

pytestmark = pytest.mark.usefixtures("untracked")

Make = Callable[..., Path]
Command = Callable[..., Any]
PLUGIN = """
from time_ray.clip.mini import MODELS
from time_ray.extend import Architecture

VISION = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
SMALL = Architecture("small-resnet", {**MODELS["mini-tiny"].config, "vision_cfg": VISION})
"""
STEPS, TASKS = 2, 3
OTHERS = sorted(merging.TECHNIQUES.keys() - {"average", "ties", "task_arithmetic"})
LINES = {"name": "task_arithmetic", "lines": {}}


@pytest.fixture(scope="module")
def experiment(new_experiment: Make, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """An experiment on the small model."""
    shared = tmp_path_factory.mktemp("normed")
    (shared / "small_resnet.py").write_text(PLUGIN)
    load_plugins([str(shared / "small_resnet.py")])
    save_file(start(create(ModelSpec(name="small-resnet"))), shared / "base.safetensors")
    model = {"name": "small-resnet", "weights": str(shared / "base.safetensors")}
    data = {"adaptation": "mini:chess"}
    return partial(new_experiment, plugins=[str(shared / "small_resnet.py")], model=model, data=data)


class Swept:
    """A finished sweep."""

    def __init__(self, path: Path, *overrides: str) -> None:
        self.path = path
        events: list[Any] = []
        self.opened: Opened = api.open_experiment(path, overrides)
        self.outcome = api.sweep(self.opened, events.append)
        self.trained = sum(isinstance(event, ExpertTrained) for event in events)
        self.results = {
            tuple(result.cell.axes[axis] for axis in ("init", "deploy", "technique")): result
            for result in self.outcome.results
        }

    def stored(self, key: str) -> dict[str, Tensor]:
        found = self.opened.store.get(key)
        assert found is not None
        return dict(found)

    def served(self, *axes: str) -> dict[str, Tensor]:
        return self.stored(self.results[axes].final_key)

    def last(self, *axes: str) -> Recipe:
        *_, step = self.results[axes].cell.walk()
        return step.deployed


def counters(weights: Mapping[str, Tensor]) -> set[int]:
    return {int(tensor) for name, tensor in weights.items() if name.endswith("num_batches_tracked")}


def is_sound(weights: Mapping[str, Tensor]) -> bool:
    variances = [tensor for name, tensor in weights.items() if name.endswith("running_var")]
    finite = all(bool(tensor.isfinite().all()) for tensor in weights.values())
    return finite and len(variances) == 19 and all(bool((tensor >= 0).all()) for tensor in variances)


@pytest.fixture(scope="module")
def grid(experiment: Make, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    strategies = ["zs", "ft", "ema", "all"]
    techniques = ["average", "ties"]
    folder = tmp_path_factory.mktemp("grid")
    return Swept(experiment(folder, init=strategies, deploy=strategies, technique=techniques))


@pytest.fixture(scope="module")
def others(experiment: Make, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("others")
    return Swept(experiment(folder, init="ft", deploy=["ema", "all"], technique=[*OTHERS, LINES]))


def test_every_cell_of_the_grid_ends(grid: Swept) -> None:
    assert grid.outcome.exit_code == 0, grid.outcome.failures
    assert len(grid.results) == 4 * 4 * 2
    assert all(is_sound(grid.stored(result.final_key)) for result in grid.outcome.results)


@pytest.mark.nightly
def test_every_other_technique_ends_as_well(others: Swept) -> None:
    assert others.outcome.exit_code == 0, others.outcome.failures
    assert len(others.results) == 2 * (len(OTHERS) + 1)
    assert all(is_sound(others.stored(result.final_key)) for result in others.outcome.results)


@pytest.mark.parametrize("init", ["zs", "ft", "ema", "all"])
def test_the_count_of_batches_is_the_newest_experts(grid: Swept, init: str) -> None:
    """A training goes on counting where its start stopped: a merge has the count of its newest expert."""
    seen = STEPS if init == "zs" else TASKS * STEPS
    for deploy in ("ft", "ema", "all"):
        assert counters(grid.served(init, deploy, "ties")) == {seen}
    assert counters(grid.served(init, "zs", "ties")) == {0}


@pytest.mark.parametrize("technique", ["average", "ties"])
@pytest.mark.parametrize("init", ["zs", "ft", "all"])
def test_merge_and_sweep_agree(grid: Swept, time_ray: Command, tmp_path: Path, technique: str, init: str) -> None:
    recipe: Any = grid.last(init, "all", technique)
    paths = [tmp_path / f"{expert.key}.safetensors" for expert in recipe.experts]
    for expert, path in zip(recipe.experts, paths, strict=True):
        save_file(grid.stored(expert.key), path)
    base = grid.opened.study.experiment.model[0].weights
    out = tmp_path / "merged.safetensors"
    done = time_ray("merge", *paths, "--base", base, "-t", technique, "-o", out)
    assert done.status == 0, done.err
    merged, served = load_file(out), grid.served(init, "all", technique)
    assert all(torch.equal(merged[name], served[name]) for name in served)


def reestimated(swept: Swept) -> Swept:
    return Swept(swept.path, "batch_norm.statistics=reestimate", "batch_norm.batches=3", "init=ft,all")


@pytest.fixture(scope="module")
def on_data(grid: Swept) -> Swept:
    """The same experiment, with statistics of deployed merges from data."""
    return reestimated(grid)


@pytest.mark.nightly
def test_estimating_trains_nothing_and_changes_statistics_alone(grid: Swept, on_data: Swept) -> None:
    assert on_data.outcome.exit_code == 0, on_data.outcome.failures
    assert on_data.trained == 0
    for axes, result in on_data.results.items():
        found, before = on_data.stored(result.final_key), grid.served(*axes)
        if axes[1] in ("zs", "ft"):
            assert result.final_key == grid.results[axes].final_key
            continue
        moved = {name for name in found if not torch.equal(found[name], before[name])}
        assert moved == buffers(found).keys()
        assert counters(found) == {3}
        assert is_sound(found)


def test_the_statistics_are_those_of_the_newest_tasks_first_batches(grid: Swept, on_data: Swept) -> None:
    """With the momentum of training, which forgets, replaced by a mean; the expert saw the same batches first."""
    one, other = (on_data.last("ft", "all", name) for name in ("average", "ties"))
    assert isinstance(one, Reestimated)
    assert isinstance(other, Reestimated)
    assert one.newest.key == other.newest.key == grid.last("ft", "ft", "average").key
    assert (one.batches, one.newest.training.task.number) == (3, TASKS)
    # the first layer sees the images alone, so its statistics differ by its own kernel only
    first = "visual.bn1.running_mean"
    kernels = [on_data.served("ft", "all", name)["visual.conv1.weight"] for name in ("average", "ties")]
    means = [on_data.served("ft", "all", name)[first] for name in ("average", "ties")]
    assert (means[0] - means[1]).abs().max() < 3 * (kernels[0] - kernels[1]).abs().sum((1, 2, 3)).max()


def test_what_is_served_can_be_made_again_from_its_recipe(on_data: Swept) -> None:
    backend = SweepBackend(on_data.opened.study, on_data.opened.store, LocalCoordinator())
    for deploy in ("ema", "all"):
        recipe = on_data.last("all", deploy, "ties")
        assert isinstance(recipe, Reestimated)
        again, served = backend.reestimate(recipe, realize(recipe.merge, backend)), on_data.stored(recipe.key)
        assert all(torch.equal(again[name], served[name]) for name in served)


def test_a_store_that_lost_them_ends_with_the_same_bits(on_data: Swept) -> None:
    def ends(swept: Swept) -> dict[tuple[str, ...], object]:
        return {axes: (r.final_key, r.weights and r.weights["digest"]) for axes, r in swept.results.items()}

    root = Path(str(on_data.opened.study.experiment.storage))
    recipes = [on_data.last(*axes) for axes in on_data.results]
    lost = {recipe.key for recipe in recipes if isinstance(recipe, Reestimated)}
    files = [path for key in lost for path in (root / "weights").rglob(f"*{key}*")]
    assert len(files) == len(lost)
    for path in files:
        shutil.rmtree(path)
    again = reestimated(on_data)
    assert again.trained == 0
    assert ends(again) == ends(on_data)


def test_an_export_has_the_estimated_statistics(on_data: Swept, time_ray: Command, tmp_path: Path) -> None:
    overrides = ("batch_norm.statistics=reestimate", "batch_norm.batches=3", "init=ft,all")
    cell = "init=ft,deploy=all,technique=ties"
    done = time_ray("export", on_data.path, *overrides, "--cell", cell, "-o", tmp_path / "out")
    assert done.status == 0, done.err
    (path,) = (tmp_path / "out").glob("*.safetensors")
    served = on_data.served("ft", "all", "ties")
    assert all(torch.equal(tensor, served[name]) for name, tensor in load_file(path).items())
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())["recipe"]
    assert (recipe["kind"], recipe["batches"], recipe["merge"]["technique"]) == ("reestimated", 3, "ties")


def test_store_why_names_what_differs(grid: Swept, on_data: Swept, time_ray: Command) -> None:
    keys = [swept.results["ft", "all", "ties"].final_key for swept in (grid, on_data)]
    done = time_ray("store", "why", on_data.path, *keys)
    assert done.status == 0, done.err
    assert "reestimated" in done.out


def keys_of(path: Path, *overrides: str) -> list[tuple[str, str]]:
    study = api.open_experiment(path, overrides).study
    return [(cell.key, step.deployed.key) for cell in study.cells for step in cell.walk()]


def test_the_option_is_in_no_key_where_it_does_nothing(
    experiment: Make, new_experiment: Make, tmp_path: Path, time_ray: Command
) -> None:
    option = "batch_norm.statistics=reestimate"
    for folder in ("with", "without"):
        (tmp_path / folder).mkdir()
    path = new_experiment(tmp_path / "without")
    assert keys_of(path, option) == keys_of(path)
    assert json.loads(time_ray("plan", path, option, "-f", "json").out)["notes"] == [
        "batch_norm.statistics is without effect on mini-tiny, which has no BatchNorm"
    ]
    normed = experiment(tmp_path / "with", init="ft", deploy="all", technique="ties")
    assert keys_of(normed, "batch_norm.batches=7") == keys_of(normed)
    three = keys_of(normed, option, "batch_norm.batches=3")
    assert not {*three} & {*keys_of(normed)}
    assert not {*three} & {*keys_of(normed, option)}
    notes = json.loads(time_ray("plan", normed, option, "-f", "json").out)["notes"]
    assert not any("batch_norm" in note for note in notes)


def test_micro_batches_are_refused_before_anything_runs(experiment: Make, tmp_path: Path, time_ray: Command) -> None:
    path = experiment(tmp_path)
    done = time_ray("sweep", path, "run.accumulate=4")
    assert done.status == 2
    (line,) = [line for line in done.err.splitlines() if "accumulate" in line]
    assert line.startswith("error: command line 'run.accumulate=4': run.accumulate: model small-resnet@")
    assert "has BatchNorm, whose statistics are of whole batches; set it to 1" in line
    assert not list((tmp_path / "runs").glob("weights/*"))
    assert STATISTICS == ("running_mean", "running_var")
