"""Sweeps on several hosts of which one is lost, joins or is cut off: the same bytes as on one that is left alone."""

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from hosts import Host, Network, need_namespaces, network
from kept import end_state, table
from ray_hosts import Experiment, RayHosts, wait_until
from s3_server import SECRET, S3Server

from time_ray import api
from time_ray.store.files import Files
from time_ray.store.lease import STALE_SECONDS
from time_ray.tracking.tracked import is_tracked

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]

Make = Callable[..., Path]
SMALL = {"init": ["ft", "ema"], "deploy": ["ema", "all"], "technique": ["average"], "budget": "20 steps"}
CUT_SECONDS = 15
ON_RAY = {**SMALL, "run": {"workers": 1}}


def kept(folder: Path, *overrides: str) -> tuple[object, ...]:
    opened = api.open_experiment(folder / "tiny.yaml", overrides)
    return table(opened), end_state(opened.files)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> tuple[object, ...]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert api.sweep(api.open_experiment(new_experiment(folder, **SMALL))).exit_code == 0
    return kept(folder)


@pytest.fixture
def place() -> Iterator[Network]:
    need_namespaces()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="hosts-") as folder, network(Path(folder)) as made:
        yield made


@pytest.mark.parametrize(
    ("stage", "lose"),
    [("task", Host.kill_all), ("merge", Host.kill_all), ("evaluation", Host.kill_all), ("task", Host.lose)],
    ids=["a task", "a merge", "an evaluation", "a task, by a power failure"],
)
def test_a_node_is_lost_inside(
    stage: str,
    lose: Callable[[Host], None],
    place: Network,
    new_experiment: Make,
    tmp_path: Path,
    undisturbed: Any,
) -> None:
    ray = RayHosts(place)
    nodes = {host.name: host for host in (ray.add(1), ray.add(1))}
    experiment = Experiment(new_experiment(tmp_path, **ON_RAY), stage)
    sweep = ray.sweep(ray.head, experiment)
    held = experiment.held()
    lost_at = time.time()
    lose(nodes[held.host])
    assert sweep.wait() == 0, sweep.said
    back = next(note for note in experiment.notes if note.time > lost_at and note[1:3] == held[1:3])
    print(f"{stage}, {lose.__name__}: work was there again {back.time - lost_at:.1f} s after its node was lost")
    assert back.host != held.host
    assert kept(tmp_path) == undisturbed


def test_a_node_joins(place: Network, new_experiment: Make, tmp_path: Path, undisturbed: Any) -> None:
    """What waited for room starts there."""
    ray = RayHosts(place)
    first = ray.add(1)
    experiment = Experiment(new_experiment(tmp_path, **ON_RAY), "merge")  # the first trial never ends by itself
    sweep = ray.sweep(ray.head, experiment)
    assert experiment.held().host == first.name
    second = ray.add(1)
    wait_until(lambda: any(note.host == second.name for note in experiment.notes))
    first.kill_all()
    assert sweep.wait() == 0, sweep.said
    assert kept(tmp_path) == undisturbed


@pytest.mark.parametrize("whole_host", [True, False], ids=["with its host", "alone"])
def test_the_driver_is_lost(
    whole_host: bool, place: Network, new_experiment: Make, tmp_path: Path, undisturbed: Any
) -> None:
    """With the coordinator of its sweep; the same command resumes, on another host, too."""
    ray = RayHosts(place)
    ray.add(2)
    driving = ray.add(0)
    experiment = Experiment(new_experiment(tmp_path, **ON_RAY), "merge")
    sweep = ray.sweep(driving, experiment)
    experiment.held()
    if whole_host:
        driving.lose()
        driving = ray.head
        refused = ray.sweep(driving, experiment)
        assert refused.wait() == 2
        assert "sweep 'tiny' is being run by process" in refused.said
        time.sleep(STALE_SECONDS)
    else:
        for process in driving.below(sweep.process.pid):
            process.kill()
    assert sweep.process.wait() != 0
    again = ray.sweep(driving, experiment)
    assert again.wait() == 0, again.said
    assert kept(tmp_path) == undisturbed


def test_the_head_is_lost_and_started_again(
    place: Network, new_experiment: Make, tmp_path: Path, undisturbed: Any
) -> None:
    """The driver, on another host, ends with a line within minutes; the same command resumes."""
    ray = RayHosts(place)
    node = ray.add(2)
    experiment = Experiment(new_experiment(tmp_path, **ON_RAY), "task")
    sweep = ray.sweep(node, experiment)
    experiment.held()
    ray.head.lose()
    began = time.monotonic()
    assert sweep.wait() in (1, 2)
    print(f"{time.monotonic() - began:.0f} s after the head was lost the sweep ended: {sweep.said}")
    node.lose()
    ray.start_head()
    ray.add(2)
    again = ray.sweep(ray.head, experiment)
    assert again.wait() == 0, again.said
    assert kept(tmp_path) == undisturbed


def test_a_node_is_cut_off_from_the_storage(
    place: Network, new_experiment: Make, tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server(place.ours[0])
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    Files(server.uri("bucket")).filesystem.create_dir("bucket")
    ray = RayHosts(place, **credentials)
    node = ray.add(2)
    experiment = Experiment(new_experiment(tmp_path, **ON_RAY), storage=(storage := server.uri("bucket/runs")))
    tracked = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    sweep = ray.sweep(ray.head, experiment, **tracked)
    wait_until(lambda: any(note.stage == "task" for note in experiment.notes))
    with node.cut_off_from(place.ours[0]):
        time.sleep(CUT_SECONDS)
    assert sweep.wait() == 0, sweep.said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked["MLFLOW_TRACKING_URI"])
    assert kept(tmp_path, f"storage={storage}") == undisturbed
    server.stop()


def test_the_driver_is_cut_off_from_mlflow(
    place: Network, new_experiment: Make, tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials go on meanwhile, and in the end MLflow has everything."""
    server = place.host()
    uri = f"http://{server.ip}:5000"
    path = new_experiment(tmp_path, **ON_RAY)
    database = shutil.copy(tmp_path / "runs/mlflow.db", tmp_path)
    words = [sys.executable, "-m", "mlflow", "server", "--host", "0.0.0.0", "--workers", "1"]  # noqa: S104 a host's own
    words += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "mlflow.log").open("wb") as log:
        served = server.start(words, log, log)
    wait_until(lambda: answers(f"{uri}/health"), 120)
    ray = RayHosts(place)
    ray.add(2)
    experiment = Experiment(path)
    sweep = ray.sweep(ray.head, experiment, MLFLOW_TRACKING_URI=uri)
    wait_until(lambda: any(note.stage == "task" for note in experiment.notes))
    with ray.head.cut_off_from(server.ip):
        time.sleep(CUT_SECONDS)
    assert sweep.wait() == 0, sweep.said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    opened = api.open_experiment(path)
    assert is_tracked(opened.study, opened.files)
    assert kept(tmp_path) == undisturbed
    server.kill_all()
    served.wait()


def answers(address: str) -> bool:
    with contextlib.suppress(OSError), urlopen(address, timeout=5):  # noqa: S310
        return True
    return False


def test_two_sweeps_at_once_on_one_storage(
    place: Network, new_experiment: Make, tmp_path: Path, undisturbed: Any
) -> None:
    """They share experts, and nobody waits for ever."""
    ray = RayHosts(place)
    for _ in range(2):
        ray.add(2)
    experiment = Experiment(new_experiment(tmp_path, **ON_RAY))
    sweeps = [ray.sweep(ray.head, experiment), ray.sweep(ray.head, experiment, "name=other")]
    for sweep in sweeps:
        assert sweep.wait() == 0, sweep.said
    assert kept(tmp_path) == undisturbed


def test_more_gpus_than_there_are(place: Network, new_experiment: Make, tmp_path: Path) -> None:
    ray = RayHosts(place)
    ray.add(1)
    experiment = Experiment(new_experiment(tmp_path, **ON_RAY))
    sweep = ray.sweep(ray.head, experiment, "run.gpus=1")
    wait_until(lambda: "starting Ray" in sweep.said)
    began = time.monotonic()
    assert sweep.wait() == 2
    assert time.monotonic() - began < 10
    assert "needs 1 CPU and 1 GPU, the cluster has " in sweep.said
    assert "lower run.workers, run.threads or run.gpus" in sweep.said


@pytest.mark.parametrize("stage", ["", "task"], ids=["left alone", "one of them is lost"])
def test_a_group_of_workers_spans_two_nodes(
    stage: str, place: Network, new_experiment: Make, tmp_path: Path, undisturbed: Any
) -> None:
    ray = RayHosts(place, dashboard=True)
    nodes = {host.name: host for host in (ray.add(1), ray.add(1))}
    experiment = Experiment(new_experiment(tmp_path, **SMALL, run={"workers": 2}), stage)
    sweep = ray.sweep(ray.head, experiment)
    if stage:
        nodes[experiment.held().host].kill_all()
        ray.add(1)
    assert sweep.wait() == 0, sweep.said
    assert {note.host for note in experiment.notes if note.stage == "task"} >= nodes.keys()
    assert_close(kept(tmp_path)[0], undisturbed[0])


def assert_close(ours: Any, theirs: Any) -> None:
    """Tables agree to an image or two."""
    for (ours_key, *_, our_rows), (their_key, *_, their_rows) in zip(ours, theirs, strict=True):
        assert ours_key == their_key
        for (_, _, our_accuracy), (_, _, their_accuracy) in zip(our_rows, their_rows, strict=True):
            assert dict(our_accuracy) == pytest.approx(dict(their_accuracy), abs=2.0)
