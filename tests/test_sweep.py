"""A tiny sweep on the mini world, in this process: results, MLflow, resuming, failing, exporting."""

import gc
import json
import os
import shutil
import signal
import socket
import sqlite3
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from mlflow import MlflowClient
from PIL import Image

from time_ray import api
from time_ray.api import Opened
from time_ray.cluster import sweep as sweep_module
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.work import work
from time_ray.core.errors import CellError
from time_ray.core.metrics import METRICS
from time_ray.core.plan import plan
from time_ray.core.recipe import Running, Trained
from time_ray.data.sources import prepare
from time_ray.events import CellDone, Event, ExpertTrained, ModelEvaluated, Note, Planned
from time_ray.store.files import Files
from time_ray.store.stop_request import stop_requests
from time_ray.store.store import Store
from time_ray.tracking.tracker import Tracker
from time_ray.trials import Costs, trials
from time_ray.weight_cache import Weights

Make = Callable[..., Path]
DISTINCT = 22  # of 24 cells: zs/ft and ft/ft merge nothing, so both techniques serve the same models
Command = Callable[..., Any]


class Swept:
    """A finished sweep, and what was told on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.opened = api.open_experiment(path)
        self.outcome = api.sweep(self.opened, self.events.append)

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> Swept:
    return Swept(new_experiment(tmp_path_factory.mktemp("swept")))


def digests(opened: Opened) -> dict[str, object]:
    """What every cell serves at the end, by cell key."""
    return {result.cell.key: result.weights and result.weights["digest"] for result in api.status(opened)}


def rows(opened: Opened) -> dict[str, list[Any]]:
    return {result.cell.key: [(row.task, dict(row.accuracy)) for row in result.rows] for result in api.status(opened)}


def same_as(swept: Swept, opened: Opened) -> bool:
    """Whether every cell of a smaller sweep ended exactly as it did in the whole one."""
    ends, scores = digests(opened), rows(opened)
    whole, whole_scores = digests(swept.opened), rows(swept.opened)
    return ends == {key: whole[key] for key in ends} and scores == {key: whole_scores[key] for key in scores}


def content(root: Path) -> dict[str, tuple[int, int]]:
    """Every file of the store, as far as a change would show."""
    files = [path for kind in ("weights", "scores", "payloads") for path in (root / kind).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_every_cell_is_done_and_nothing_was_done_twice(swept: Swept) -> None:
    assert swept.outcome.exit_code == 0
    assert not swept.outcome.failures
    assert swept.outcome.tracking_error is None
    counts = plan(swept.opened.study.cells)
    assert counts.trainings_distinct == 1 + 2 * (2 + 2 * 2) - 1  # average of one expert is that expert
    assert swept.count(ExpertTrained) == counts.trainings_distinct
    assert swept.count(ModelEvaluated) == counts.evaluations_distinct
    assert swept.count(CellDone) == counts.cells == 24
    assert Note("mini-tiny: trained on the CPU") in swept.events
    for result in swept.outcome.results:
        assert [row.task for row in result.rows] == [0, 1, 2, 3]
        assert all(set(row.accuracy) == {"chess", "textures"} for row in result.rows)
        assert all(0 <= value <= 100 for row in result.rows for value in row.accuracy.values())


def test_kept_weights_are_what_the_plan_said(swept: Swept) -> None:
    fresh = plan(swept.opened.study.cells)
    assert len(swept.opened.store.keys("weights")) == sum(work.weights for work in fresh.work.values())
    assert len(swept.opened.store.keys("scores")) == fresh.evaluations_distinct


def test_different_cells_serve_different_models(swept: Swept) -> None:
    """2 + 10 K models; `average` shares nothing more after three tasks."""
    assert len(set(digests(swept.opened).values())) == 2 + 10 * 2


def test_the_same_command_again_does_nothing_and_prints_the_same_table(swept: Swept, time_ray: Command) -> None:
    before = content(swept.path.parent / "runs")
    one, other = time_ray("sweep", swept.path), time_ray("sweep", swept.path)
    assert one.status == other.status == 0
    assert one.out == other.out
    rows = [line for line in one.out.splitlines() if "." in line]
    assert len(rows) == 12 + 2  # the first ones; of the baselines plain fine-tuning, and the base
    more = time_ray("sweep", swept.path, "--all").out.splitlines()
    assert len([line for line in more if "." in line]) == DISTINCT + 1
    assert "one seed: order shown, no ranking supported" in one.err
    assert "Best-in-TIME: init " in one.err
    for command in ("time-ray best", "time-ray export", "time-ray ui"):
        assert f"{command} {swept.path}" in one.err
    assert content(swept.path.parent / "runs") == before
    events: list[Event] = []
    api.sweep(swept.opened, events.append)
    assert events == [Planned(trainings=0, evaluations=0, cells=0)]


class Tracked:
    """What MLflow holds of a sweep."""

    def __init__(self, swept: Swept) -> None:
        self.database = swept.path.parent / "runs" / "mlflow.db"
        self.client = MlflowClient(f"sqlite:///{self.database}")
        experiment = self.client.get_experiment_by_name("tiny")
        assert experiment is not None
        self.id = experiment.experiment_id
        runs = self.client.search_runs([self.id], max_results=1000)
        self.parents = [run for run in runs if run.data.tags["time_ray.kind"] == "sweep"]
        self.children = [run for run in runs if run.data.tags["time_ray.kind"] == "cell"]

    def rows(self) -> int:
        connection = sqlite3.connect(self.database)
        (count,) = connection.execute("select count(*) from metrics").fetchone()
        connection.close()
        return int(count)


@pytest.fixture
def tracked(swept: Swept) -> Tracked:
    return Tracked(swept)


def test_mlflow_has_a_parent_and_a_child_for_every_cell(swept: Swept, tracked: Tracked) -> None:
    (parent,) = tracked.parents
    assert parent.info.status == "FINISHED"
    cells = {cell.key: cell for cell in swept.opened.study.cells}
    assert {run.data.tags["time_ray.cell"] for run in tracked.children} == set(cells)
    assert len(tracked.children) == len(cells)
    for run in tracked.children:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        place = {**cells[run.data.tags["time_ray.cell"]].axes, "tasks": "3"}
        assert place.items() <= run.data.params.items()
    artifacts = {file.path for file in tracked.client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"experiment.yaml", "figures", "versions.json"}


def test_mlflow_has_every_metric_once_at_every_task(swept: Swept, tracked: Tracked) -> None:
    results = {result.cell.key: result for result in swept.outcome.results}
    for run in tracked.children[::7]:
        result = results[run.data.tags["time_ray.cell"]]
        for name, values in (
            ("KA", [row.scores["ka"] for row in result.rows]),
            ("ZS", [row.scores["zs"] for row in result.rows]),
            ("GM", [row.scores["gm"] for row in result.rows]),
            ("forgetting", [row.scores["forgetting"] for row in result.rows]),
            ("adaptation/chess", [row.accuracy["chess"] for row in result.rows]),
            ("retention/textures", [row.accuracy["textures"] for row in result.rows]),
        ):
            history = tracked.client.get_metric_history(run.info.run_id, name)
            assert [(point.step, point.value) for point in history] == [
                (i, round(v, 4)) for i, v in enumerate(values) if v is not None
            ], name
        assert {"seconds/init", "seconds/train", "seconds/deploy", "seconds/eval"} <= set(run.data.metrics)
        assert {"seconds/data", "seconds/step", "seconds/evaluation", "seconds/store"} <= set(run.data.metrics)
        assert run.data.metrics["performance/samples_per_second"] > 0
        assert "performance/mfu" not in run.data.metrics  # a CPU has no peak


def test_mlflow_has_one_model_for_every_distinct_weights(swept: Swept, tracked: Tracked) -> None:
    models = tracked.client.search_logged_models(experiment_ids=[tracked.id], max_results=50)
    assert Counter(model.tags["time_ray.digest"] for model in models) == Counter(set(digests(swept.opened).values()))
    for run in tracked.children:
        outputs = tracked.client.get_run(run.info.run_id).outputs.model_outputs
        (model,) = [model for model in models if model.model_id == outputs[0].model_id]
        assert model.tags["time_ray.digest"] == digests(swept.opened)[run.data.tags["time_ray.cell"]]
        assert [file.path for file in tracked.client.list_artifacts(run.info.run_id)] == ["deployed", "figures"]


def test_a_second_sync_doubles_nothing(swept: Swept, tracked: Tracked) -> None:
    before = tracked.rows()
    tracker = Tracker(swept.opened.study, swept.opened.files)
    tracker.sync(swept.outcome.results)
    run = tracked.children[0]
    tracked.client.set_tag(run.info.run_id, "time_ray.rows", "2")  # as after a driver that died before its last call
    tracker = Tracker(swept.opened.study, swept.opened.files)
    tracker.sync(swept.outcome.results)
    tracker.finish(swept.outcome.results)
    after = Tracked(swept)
    assert after.rows() == before
    assert len(after.parents) == 1
    assert len(after.children) == len(tracked.children)


def test_status_and_plan_speak_json(swept: Swept, time_ray: Command) -> None:
    status = json.loads(time_ray("status", swept.path, "-f", "json").out)
    assert len(status) == 24
    assert list(status[0]) == [*swept.opened.study.cells[0].axes, "tasks", "done", *METRICS]
    assert all(row["done"] is True for row in status)
    found = json.loads(time_ray("plan", swept.path, "-f", "json").out)
    assert found["cells"] == 24
    assert found["trials"] == found["bytes"] == 0
    work = {"trials", "trainings", "merges", "evaluations", "bytes", "moments"}
    assert set(found) - {"seconds"} == {
        "stream",
        "steps",
        "cells",
        "preprocessing",
        "needs",
        "on",
        *work,
        "gpu_hours",
        "fleet",
        "notes",
        "search",
        "tunings",
    }
    assert found["stream"] == {"tasks": 3, "classes": 6, "datasets_never_learned": 0}
    assert found["gpu_hours"] is None
    assert found["trainings"] == {"asked": 72, "distinct": 12, "to_do": 0}
    assert set(found["merges"]) == {"distinct"}
    assert set(found["evaluations"]) == {"distinct", "to_do"}


def test_a_new_plan_knows_bytes_and_time(swept: Swept, time_ray: Command) -> None:
    found = json.loads(time_ray("plan", swept.path, "seed=[0,1]", "-f", "json").out)
    assert found["cells"] == 48
    assert found["trainings"]["to_do"] == 12
    assert found["trials"] == 1
    assert found["bytes"] > 1e6
    assert found["seconds"] > 0


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_show_is_itself_a_valid_experiment(swept: Swept, time_ray: Command, tmp_path: Path, form: str) -> None:
    done = time_ray("show", swept.path, "-f", form)
    assert done.status == 0
    assert done.err == ""
    if form != "csv":
        again = tmp_path / "again.yaml"
        again.write_text(done.out, encoding="utf-8")
        assert time_ray("show", again, "-f", form).out == done.out


def test_best_ranks_and_registers(swept: Swept, time_ray: Command, tracked: Tracked) -> None:
    done = time_ray("best", swept.path, "-f", "json", "--register")
    *ranked, base = json.loads(done.out)
    assert (base["init"], base["baseline"], base["ka"]) == (
        "(base)",
        "base",
        swept.outcome.results[0].rows[0].scores["ka"],
    )
    assert len(ranked) == DISTINCT
    columns = "init deploy technique model budget seeds ka zs gm ka_sd zs_sd gm_sd pareto forgetting forgetting_sd"
    assert set(columns.split()) <= set(ranked[0])
    assert [row["value"] for row in ranked[1:]] == sorted((row["value"] for row in ranked[1:]), reverse=True)
    assert ranked[0]["selected_on"] == max(row["selected_on"] for row in ranked)
    assert ranked[0]["seeds"] == 1
    assert ranked[0]["gm_sd"] is ranked[0]["tied"] is ranked[0]["lower"] is None
    assert sum(row["p_best"] for row in ranked) == pytest.approx(1)
    plain = [(row["init"], row["technique"]) for row in ranked if row["deploy"] == "ft" and row["technique"] == "any"]
    assert sorted(plain) == [("ft", "any"), ("zs", "any")]
    assert any(row["pareto"] for row in ranked)
    assert "registered: models:/time-ray-tiny@best-in-time" in done.err
    version = tracked.client.get_model_version_by_alias("time-ray-tiny", "best-in-time")
    best = api.best(swept.opened).winner
    assert version.tags["time_ray.digest"] == best.weights["digest"]
    assert (version.tags["time_ray.seeds"], version.tags["time_ray.metric"]) == ("1", "gm")
    assert version.tags["time_ray.tied"] == "0"
    assert "Chosen by gm" in version.description
    again = time_ray("best", swept.path, "-f", "csv", "--register")
    assert again.out.splitlines()[0].startswith(columns.replace(" ", ","))
    assert tracked.client.get_model_version_by_alias("time-ray-tiny", "best-in-time").version == version.version
    for by in ("ka", "forgetting", "acc", "bwt"):
        *found, _ = json.loads(time_ray("best", swept.path, "--by", by, "-f", "json").out)
        values = [METRICS[by].loss(row["selected_on"]) for row in found]
        assert values[0] == min(values)


def test_a_metric_that_is_none_is_refused(swept: Swept, time_ray: Command) -> None:
    assert time_ray("best", swept.path, "--by", "forgeting") == (
        2,
        "",
        "error: no such metric 'forgeting'; did you mean 'forgetting'?\n",
    )


@pytest.mark.parametrize("overrides", [[], ["technique=average"]], ids=["the same grid", "a part of it"])
def test_registering_leaves_no_run_going_and_makes_none(swept: Swept, time_ray: Command, overrides: list[str]) -> None:
    assert time_ray("best", swept.path, *overrides, "--register").status == 0
    found = Tracked(swept)
    assert len(found.parents) == 1
    assert len(found.children) == len(swept.opened.study.cells)
    assert {run.info.status for run in (*found.parents, *found.children)} == {"FINISHED"}


def test_an_export_loads_in_open_clip(swept: Swept, time_ray: Command, tmp_path: Path) -> None:
    cell = "init=ema,deploy=all,technique=ties"
    done = time_ray("export", swept.path, "--cell", cell, "-o", tmp_path / "out")
    assert done.status == 0
    path = Path(done.out.strip())
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    saved = safetensors.torch.load_file(path)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    recipe = json.loads((path.parent / "recipe.json").read_text(encoding="utf-8"))
    assert (recipe["init"], recipe["deploy"], recipe["technique"]) == ("ema", "all", "ties(scaling=0.5)")
    (result,) = [
        r for r in swept.outcome.results if list(r.cell.axes.values())[:3] == ["ema", "all", "ties(scaling=0.5)"]
    ]
    assert recipe["digest"] == result.weights["digest"]


def test_without_register_nothing_is_registered_and_it_is_said_how(swept: Swept, time_ray: Command) -> None:
    done = time_ray("best", swept.path, "--by", "ka", "-f", "csv")
    assert done.err.endswith(f"register it: time-ray best {swept.path} --by ka -f csv --register\n")
    assert "registered:" not in done.err


def test_a_model_is_known_by_its_preprocessing(
    swept: Swept, new_experiment: Make, time_ray: Command, tmp_path: Path
) -> None:
    said = {"resize": "longest", "interpolation": "bilinear", "fill": 128, "mean": [0.5] * 3, "std": [0.5, 0.5, 0.25]}
    models = ["mini-tiny", {"name": "mini-tiny", "preprocess": said}]
    path = new_experiment(tmp_path, model=models, init="ft", deploy="all", technique="average", stream={"tasks": 2})
    done = Swept(path)
    assert done.outcome.exit_code == 0
    usual, other = done.outcome.results
    assert usual.cell.setting.base.key == swept.opened.study.cells[0].setting.base.key
    assert other.cell.setting.base.key != usual.cell.setting.base.key
    assert other.cell.setting.model.label == (
        "mini-tiny(mean=0.5/0.5/0.5,std=0.5/0.5/0.25,resize=longest,interpolation=bilinear,fill=128)"
    )
    assert usual.rows[0].accuracy != other.rows[0].accuracy  # the same base, shown other pixels
    assert usual.weights["digest"] != other.weights["digest"]
    difference = api.store_why(path, usual.final_key, other.final_key)
    assert "preprocessing" in str(difference)

    plan = json.loads(time_ray("plan", path, "-f", "json").out)
    assert plan["preprocessing"][other.cell.setting.model.label] == {
        "size": 32,
        **said,
        "quick_gelu": False,
        "source": "the experiment over the shipped base",
    }
    assert "longest, bilinear, fill 128, mean 0.5 0.5 0.5, std 0.5 0.5 0.25, GELU" in time_ray("plan", path).out
    params = {run.data.params["model"]: run.data.params for run in Tracked(done).children}
    of_other = params[other.cell.setting.model.label]
    assert of_other["preprocess.resize"] == "longest"
    assert of_other["preprocess.std"] == "[0.5, 0.5, 0.25]"
    assert of_other["preprocess.quick_gelu"] == "False"
    assert params["mini-tiny"]["preprocess.interpolation"] == "bicubic"

    cell = f"model={other.cell.setting.model.label}"
    exported = time_ray("export", path, "--cell", cell, "-o", tmp_path / "out").out.strip()
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    saved = safetensors.torch.load_file(exported)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert model.visual.preprocess_cfg == {
        "size": (32, 32),
        "mode": "RGB",
        "mean": said["mean"],
        "std": said["std"],
        "interpolation": "bilinear",
        "resize_mode": "longest",
        "fill_color": 128,
    }
    assert transform(Image.new("RGB", (9, 5), "red")).shape == (3, 32, 32)
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")(["a red square"])
    assert tokens.shape == (1, 12)
    again = time_ray("plan", path, f"model={{name: mini-tiny, weights: {exported}}}", "-f", "json")
    (found,) = json.loads(again.out)["preprocessing"].values()
    assert found.pop("source") == str(tmp_path / "out" / "open_clip_config.json")
    assert found == {"size": 32, **said, "quick_gelu": False}
    assert json.loads(again.out)["notes"] == []
    (tmp_path / "out" / "open_clip_config.json").unlink()
    bare = time_ray("plan", path, f"model={{name: mini-tiny, weights: {exported}}}")
    assert bare.err == (
        f"note: mini-tiny@{exported}: no preprocessing given: OpenAI's mean and std, shortest, bicubic assumed; "
        "set preprocess\n"
    )


def test_a_cell_must_be_singled_out(swept: Swept, time_ray: Command, tmp_path: Path) -> None:
    done = time_ray("export", swept.path, "--cell", "init=ema,deploy=all", "-o", tmp_path / "out")
    assert done.status == 2
    assert done.err.startswith("error: --cell init=ema,deploy=all: 2 finished cells match")


SMALL = {"init": ["ft", "ema"], "deploy": ["ema", "all"], "technique": ["average"]}


@pytest.mark.parametrize(
    ("one_each", "one_process"),
    [
        (True, True),
        (False, False),
        pytest.param(True, False, marks=pytest.mark.nightly),
        pytest.param(False, True, marks=pytest.mark.nightly),
    ],
)
def test_results_do_not_depend_on_trials(
    swept: Swept, new_experiment: Make, tmp_path: Path, *, one_each: bool, one_process: bool
) -> None:
    """Nor on whether one process runs all of them, with what earlier ones left in its memory, or each has its own."""
    opened = api.open_experiment(new_experiment(tmp_path, **SMALL))
    made = trials(opened.study.cells, {"mini-tiny": Costs(1.0, 1.0)}, one_each=one_each)
    assert len(made) == (4 if one_each else 2)

    def process() -> SweepBackend:
        return SweepBackend(opened.study, Store(opened.files), LocalCoordinator())

    backend = process()
    for trial in reversed(made):
        backend = backend if one_process else process()
        work([cell for cell in opened.study.cells if cell.key in trial.cells], backend)
    assert same_as(swept, opened)


def test_a_process_lets_go_of_the_models_of_earlier_trials(new_experiment: Make, tmp_path: Path) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, model=["mini-tiny", "mini-base"]))
    backend = SweepBackend(opened.study, opened.store, LocalCoordinator())
    tiny, base = opened.study.settings
    held = [weakref.ref(next(iter(backend.load(setting.base).values()))) for setting in (tiny, base)]
    backend.keep_only([base])
    gc.collect()
    assert [tensor() is None for tensor in held] == [True, False]


@pytest.mark.parametrize("write", [4, 7, *(pytest.param(write, marks=pytest.mark.nightly) for write in (1, 10))])
def test_a_sweep_that_is_cut_off_goes_on(
    swept: Swept, new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, init="ema", deploy="all", technique="average"))
    whole, writes = Files.write, Counter[str]()

    def cut_off(files: Files, data: bytes, *parts: str) -> None:
        if parts[0] in ("weights", "scores") or parts[0].startswith("payloads"):
            writes["all"] += 1
            if writes["all"] == write:
                whole(files, data[: len(data) // 2], *parts)
                raise KeyboardInterrupt
        whole(files, data, *parts)

    with monkeypatch.context() as context:
        context.setattr(Files, "write", cut_off)
        assert api.sweep(opened).exit_code == 130
    assert api.sweep(opened).exit_code == 0
    assert same_as(swept, opened)


def test_ctrl_c_finishes_what_is_running(swept: Swept, new_experiment: Make, tmp_path: Path, time_ray: Command) -> None:
    path = new_experiment(tmp_path, **SMALL)
    opened = api.open_experiment(path)

    def stop(event: Event) -> None:
        if isinstance(event, ExpertTrained):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    outcome = api.sweep(opened, stop)
    assert signal.getsignal(signal.SIGINT) is before
    assert outcome.interrupted
    assert outcome.exit_code == 130
    assert not outcome.failures
    assert len(opened.store.keys("weights")) > 0
    done = time_ray("sweep", path)
    assert done.status == 0
    assert same_as(swept, opened)


@pytest.mark.parametrize("how", ["finish", "now"])
def test_a_sweep_stops_when_its_storage_says_so(
    swept: Swept, new_experiment: Make, tmp_path: Path, time_ray: Command, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(sweep_module, "stop_requests", partial(stop_requests, seconds=0.02))
    path = new_experiment(tmp_path, **SMALL)
    opened = api.open_experiment(path)
    said: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, ExpertTrained) and not said:
            said.append(time_ray("stop", path, *(["--now"] if how == "now" else [])).err)

    before = signal.getsignal(signal.SIGTERM)
    outcome = api.sweep(opened, stop)
    assert signal.getsignal(signal.SIGTERM) is before
    assert f"asked process {os.getpid()} on {socket.gethostname()}" in said[0]
    assert (outcome.interrupted, outcome.exit_code, outcome.failures) == (True, 130, {})
    assert not list((tmp_path / "runs").glob("stops/**/*.*"))
    again = time_ray("stop", path)
    assert (again.status, again.out) == (0, "")
    assert again.err == f"sweep 'tiny' is not running on {tmp_path / 'runs'}\n"
    assert time_ray("sweep", path).status == 0
    assert same_as(swept, opened)


def test_a_failing_cell_fails_alone(
    swept: Swept, new_experiment: Make, tmp_path: Path, time_ray: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_experiment(tmp_path, **SMALL | {"seed": [7]})
    overrides = ("init=[ft,ema]", "seed=0")
    whole = SweepBackend.train

    def failing(backend: SweepBackend, expert: Trained, start: Weights) -> Weights:
        if isinstance(expert.start, Running):
            raise CellError("the loss is [/nan] at step 1")
        return whole(backend, expert, start)

    with monkeypatch.context() as context:
        context.setattr(SweepBackend, "train", failing)
        done = time_ray("sweep", path, *overrides)
    assert done.status == 1
    failed = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    for deploy in ("ema", "all"):
        assert f"failed: ema/{deploy} average · mini-tiny 2 steps seed 0: the loss is [/nan] at step 1" in failed
    assert (
        f"2 of 4 cells are done; nothing is lost, resume with: time-ray sweep {path} 'init=[ft,ema]' seed=0\n"
        in done.err
    )
    assert f"time-ray best {path} 'init=[ft,ema]' seed=0" in done.err
    status = json.loads(time_ray("status", path, *overrides, "-f", "json").out)
    assert [row["done"] for row in status] == [True, True, False, False]
    assert time_ray("sweep", path, *overrides).status == 0
    assert same_as(swept, api.open_experiment(path, overrides))


@pytest.mark.nightly
def test_results_wait_for_mlflow(
    swept: Swept, new_experiment: Make, tmp_path: Path, time_ray: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_experiment(tmp_path, init="ft", deploy="ft", technique="average")
    with monkeypatch.context() as context:
        context.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}/below/a/file.db")
        done = time_ray("sweep", path)
    assert done.status == 0
    assert "MLflow: " in done.err
    assert "results are in the store, the same command or time-ray sync" in done.err
    assert "MLflow: " not in time_ray("sweep", path).err
    later = Swept(path)
    assert len(Tracked(later).children) == 1
    assert same_as(swept, later.opened)


def test_damaged_final_weights_are_made_again(
    swept: Swept, new_experiment: Make, tmp_path: Path, time_ray: Command
) -> None:
    path = new_experiment(tmp_path, init="ema", deploy="all", technique="average")
    first = Swept(path)
    (result,) = first.outcome.results
    payload = tmp_path / "runs" / str(result.weights["payload"])
    data = payload.read_bytes()
    payload.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = time_ray("export", path, "-o", tmp_path / "out")
    assert done.status == 2
    assert f"its weights are not there; run: time-ray sweep {path}" in done.err
    assert time_ray("sweep", path).status == 0
    assert time_ray("export", path, "-o", tmp_path / "out").status == 0
    assert (tmp_path / "out" / "open_clip_model.safetensors").read_bytes() == data
    assert same_as(swept, first.opened)


@pytest.fixture
def small_vit(tmp_path: Path) -> Iterator[Path]:
    """A small open_clip ViT with random weights in a local file."""
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "ViT-small-test.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(tmp_path / "ViT-small-test.json")
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-small-test", load_weights=False)
    path = tmp_path / "vit.safetensors"
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    yield path
    open_clip.factory._MODEL_CONFIGS.pop("ViT-small-test")


def test_a_small_vit_learns_an_image_folder(new_experiment: Make, tmp_path: Path, small_vit: Path) -> None:
    for colour in ("red", "green", "blue", "grey"):
        for index in range(5):
            picture = tmp_path / "pictures" / f"{colour}_things" / f"{index}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + index, 36), colour).save(picture)
    path = new_experiment(
        tmp_path,
        model={"name": "ViT-small-test", "weights": str(small_vit)},
        data=str(tmp_path / "pictures"),
        init=["ft", "ema"],
        deploy="all",
        technique="average",
        stream={"tasks": 2},
    )
    done = Swept(path)
    assert done.outcome.exit_code == 0
    for result in done.outcome.results:
        assert set(result.rows[-1].accuracy) == {"pictures"}
        assert result.final["ka"] is not None
        assert result.final["gm"] is None  # nothing was held out
    weights = api.export(done.opened, "init=ema", tmp_path / "out")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{weights.parent}")
    assert sum(tensor.numel() for tensor in model.state_dict().values()) > 0


def test_the_mini_world_is_drawn_once(tmp_path: Path, new_experiment: Make) -> None:
    opened = api.open_experiment(new_experiment(tmp_path))
    said: list[str] = []
    prepare(opened.study.datasets.all, said.append)
    assert said == []


def test_the_storage_of_a_sweep_is_listed_verified_and_explained(swept: Swept, time_ray: Command) -> None:
    root = swept.path.parent / "runs"
    before = content(root)
    listed = {row["kind"]: row for row in json.loads(time_ray("store", "ls", swept.path, "-f", "json").out)}
    counts = plan(swept.opened.study.cells)
    assert listed["scores"]["keys"] == counts.evaluations_distinct
    assert listed["weights"]["unneeded"] == listed["payloads"]["unneeded"] == 0
    assert time_ray("store", "ls", root).out == time_ray("store", "ls", swept.path).out
    verified = time_ray("store", "verify", swept.path, "-f", "csv")
    assert verified.status == 0
    assert "B/s" in verified.err
    assert all(line.endswith(",0") for line in verified.out.splitlines()[1:])
    one, other = (
        next(iter(cell.walk())).expert.key for cell in (swept.opened.study.cells[0], swept.opened.study.cells[-1])
    )
    late = [step.expert.key for step in swept.opened.study.cells[-1].walk()][1]
    assert one == other  # every trajectory starts from the base
    shown = json.loads(time_ray("store", "show", swept.path, late[:10], "-f", "json").out)
    assert shown["key"] == late
    assert shown["parents"] == {one: "stored"}
    why = json.loads(time_ray("store", "why", swept.path, one[:10], late[:10], "-f", "json").out)
    assert why == [{"field": "start.kind", one[:10]: "base", late[:10]: "merged"}]
    assert time_ray("store", "show", swept.path, "nothing").status == 2
    assert content(root) == before


def test_gc_keeps_what_the_listed_experiments_can_reach(swept: Swept, time_ray: Command) -> None:
    def freed(*words: str | Path) -> dict[str, int]:
        rows = json.loads(time_ray("store", "gc", *words, "--dry-run", "--all", "-f", "json").out)
        return {f"{row['kind']} {row['why']}": row["files"] for row in rows if row["kind"] in ("weights", "scores")}

    assert freed(swept.path) == freed(swept.path.parent / "runs") == {}
    smaller = api.open_experiment(swept.path, ["init=zs"])
    kept, everything = plan(smaller.study.cells), plan(swept.opened.study.cells)
    unreached = freed(swept.path, "init=zs")
    assert unreached["scores out of reach"] == everything.evaluations_distinct - kept.evaluations_distinct
    assert freed(swept.path, "init=zs", swept.path) == {}


def test_a_damaged_storage_is_verified_and_healed(swept: Swept, tmp_path: Path, time_ray: Command) -> None:
    shutil.copytree(swept.path.parent / "runs", tmp_path / "runs", symlinks=True)
    (tmp_path / "tiny.yaml").write_text(swept.path.read_text().replace(str(swept.path.parent), str(tmp_path)))
    payload = min((tmp_path / "runs" / "payloads").rglob("*.safetensors"))
    payload.write_bytes(payload.read_bytes()[:-4])
    found = time_ray("store", "verify", tmp_path / "tiny.yaml")
    assert found.status == 1
    assert f"{payload.relative_to(tmp_path / 'runs')}: its digest does not match; set aside" in found.err
    assert time_ray("sweep", tmp_path / "tiny.yaml").status == 0
    assert time_ray("store", "verify", tmp_path / "tiny.yaml").status == 0
    assert same_as(swept, api.open_experiment(tmp_path / "tiny.yaml"))
