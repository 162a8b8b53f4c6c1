"""`time-ray doctor` on a real Ray cluster of two nodes: what is planted on one of them is found there alone."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from time_ray.cluster import doctor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

LATE = "import time\nreal = time.time\ntime.time = lambda: real() + 600\n"


class Cluster:
    """A head in order; a node whose clock is ten minutes ahead, with an old package, and without time_ray's commit."""

    def __init__(self, site: Path) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        info = site / "safetensors-0.6.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: safetensors\nVersion: 0.6.0\n", encoding="utf-8")
        (site / "sitecustomize.py").write_text(LATE, encoding="utf-8")
        self._cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.address = str(self._cluster.address)
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(site), before])
        try:
            self._node = self._cluster.add_node(num_cpus=0)
        finally:
            os.environ["PYTHONPATH"] = before
        self._cluster.wait_for_nodes()

    def stop_node(self) -> None:
        """The second node runs nothing any more, and its end is not noticed at once."""
        (raylet,) = self._node.all_processes["raylet"]
        for process in [psutil.Process(raylet.process.pid), *psutil.Process(raylet.process.pid).children()]:
            process.send_signal(signal.SIGSTOP)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "site")
    yield made
    made.shutdown()


@pytest.mark.nightly
def test_what_is_planted_on_one_node_is_found_there(
    cluster: Cluster, time_ray: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIME_RAY_STORAGE", str(tmp_path / "runs"))
    done = time_ray("doctor", "--address", cluster.address, "-f", "json")
    assert done.status == 1
    rows = [row for row in json.loads(done.out) if row["check"] in ("clock", "packages", "nodes", "storage", "Ray")]
    assert {row["check"] for row in rows} == {"clock", "packages"}, rows
    assert all(row["where"].startswith("node ") for row in rows)
    faults = " ".join(row["fault"] for row in rows)
    assert "its clock is 600 s ahead of the driver's" in faults
    assert "safetensors 0.6.0, but the driver has " in faults
    assert not (tmp_path / "runs").exists()

    monkeypatch.setattr(doctor, "NODE_SECONDS", 5.0)
    cluster.stop_node()
    rows = json.loads(time_ray("doctor", "--address", cluster.address, "-f", "json").out)
    assert [row["fault"] for row in rows if row["check"] == "nodes"] == ["no answer within 5 s"]
