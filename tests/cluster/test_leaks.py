"""What jobs that have ended still hold on a cluster is found and given back."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

JOB = """
import sys, ray
from ray.autoscaler.sdk import request_resources
from ray.util import placement_group

ray.init(address=sys.argv[1], namespace="left", logging_level="ERROR")

@ray.remote(num_cpus=0)
class Maker:
    def make(self, lifetime):
        self.group = placement_group([{"CPU": 1}], lifetime=lifetime, name=str(lifetime))
        ray.get(self.group.ready(), timeout=60)

maker = Maker.options(name="maker", lifetime="detached").remote()
ray.get(maker.make.remote(None))
ray.get(maker.make.remote("detached"))
request_resources(bundles=[{"CPU": 6}])
"""


@pytest.mark.nightly
def test_the_doctor_gives_back_what_a_dead_job_left(
    time_ray: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that was detached on purpose stays."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("TIME_RAY_STORAGE", str(tmp_path / "runs"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": True})
    try:
        subprocess.run([sys.executable, "-c", JOB, str(cluster.address)], check=True)
        found = [resources(time_ray, str(cluster.address)) for _ in range(2)]
    finally:
        cluster.shutdown()
    assert [line.split(" of job ")[0].split(" ")[0] for line in found[0]] == ["placement", "the"], found
    assert found[0][1] == "the autoscaler held ready what jobs that have ended asked for (6 CPU); given back"
    assert found[1] == []


def resources(time_ray: Callable[..., Any], address: str) -> list[str]:
    rows = json.loads(time_ray("doctor", "--address", address, "-f", "json").out)
    return [row["fault"] for row in rows if row["check"] == "resources"]
