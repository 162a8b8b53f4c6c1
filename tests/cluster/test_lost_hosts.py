"""Sweeps on several hosts of which one is lost, joins or is cut off: the same bytes as on one that is left alone."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Network, need_namespaces, network
from kept import end_state, table
from ray_hosts import Experiment, RayHosts

from time_ray import api

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]

Make = Callable[..., Path]
SMALL = {"init": ["ft", "ema"], "deploy": ["ema", "all"], "technique": ["average"], "budget": "20 steps"}
ON_RAY = {**SMALL, "run": {"workers": 1}}


def kept(path: Path) -> tuple[object, ...]:
    opened = api.open_experiment(path)
    return table(opened), end_state(opened.files)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> tuple[object, ...]:
    path = new_experiment(tmp_path_factory.mktemp("undisturbed"), **SMALL)
    assert api.sweep(api.open_experiment(path)).exit_code == 0
    return kept(path)


@pytest.fixture
def place() -> Iterator[Network]:
    need_namespaces()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="hosts-") as folder, network(Path(folder)) as made:
        yield made


@pytest.mark.parametrize("power", [True, False], ids=["without a word", "with its connections closed"])
@pytest.mark.parametrize("stage", ["task", "merge", "evaluation"])
def test_a_node_is_lost_inside_a(
    stage: str, *, power: bool, place: Network, new_experiment: Make, tmp_path: Path, undisturbed: Any
) -> None:
    ray = RayHosts(place)
    nodes = {host.name: host for host in (ray.add(1), ray.add(1))}
    experiment = Experiment(new_experiment(tmp_path, **ON_RAY), stage)
    sweep = ray.sweep(ray.head, experiment)
    lost = experiment.held()
    nodes[lost.host].lose(power=power)
    assert sweep.wait() == 0, sweep.said
    back = next(n for n in experiment.notes if n.time > lost.time and (n.stage, n.key) == (lost.stage, lost.key))
    print(f"{stage}, {power=}: {back.time - lost.time:.1f} s after it was lost the work was there again")
    assert back.host != lost.host
    assert kept(experiment.path) == undisturbed
