from typing import Any

import cluster_yaml
import pytest
from cluster_yaml import FILE, laid_over, overlay


@pytest.fixture
def cluster() -> dict[str, Any]:
    return cluster_yaml.cluster()


def test_ray_accepts_the_file(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))


def test_machines_of_ones_own_replace_keys_of_the_file_and_add_none(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    assert overlay().keys() <= cluster.keys()
    merged = laid_over(cluster, overlay())
    assert {key: merged[key] for key in merged if "commands" in key} == {
        k: cluster[k] for k in cluster if "commands" in k
    }
    prepared = prepare_config(merged)
    validate_config(prepared)
    assert prepared["max_workers"] == len(merged["provider"]["worker_ips"])


def test_ray_would_refuse_a_misspelt_key(cluster: dict[str, Any]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError):
        validate_config(prepare_config({**cluster, "max_worker": 1}))


def test_the_head_scales_gpu_workers_from_none(cluster: dict[str, Any]) -> None:
    workers = {name: t for name, t in cluster["available_node_types"].items() if name != cluster["head_node_type"]}
    assert [t["min_workers"] for t in workers.values()] == [0]
    assert all(0 < t["max_workers"] <= cluster["max_workers"] for t in workers.values())


def test_every_node_installs_the_mounted_tree_with_exact_versions(cluster: dict[str, Any]) -> None:
    (mounted,) = (remote for remote, local in cluster["file_mounts"].items() if local == ".")
    (install,) = (line for line in cluster["setup_commands"] if "-e ." in line)
    assert install.startswith(f"cd {mounted} && ")
    assert (FILE.parent / ".ci/constraints.txt").exists()
    assert "-c .ci/constraints.txt" in install
