"""cluster.yaml on three hosts, by Ray's own launcher over ssh: a sweep runs on it, and `ray down` leaves nothing."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_yaml import FILE, REPOSITORY, laid_over, overlay
from hosts import USER, Host, Network, need_namespaces, network
from kept import end_state, table
from s3_server import SECRET, S3Server

from time_ray import api
from time_ray.store.files import Files

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(1800)]

WORKERS_COME_SECONDS = 300
SSH_SECONDS = 30  # Ray's own connections stay for ten
SMALL = {
    "name": "small",
    "init": ["ft", "ema"],
    "deploy": ["ema", "all"],
    "technique": ["average", "ties"],
    "model": "mini-tiny",
    "budget": "5 steps",
    "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
    "stream": {"tasks": 3},
    "training": {"batch_size": 8, "augment": "none"},
}
SSHD = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PrintMotd no
"""
# machines without the internet: the packages are there already, and so is an environment that sees them
PIP = "[global]\nno-index = true\nno-build-isolation = false\n"


@pytest.fixture
def place() -> Iterator[Network]:
    need_namespaces("/usr/sbin/sshd", "ssh", "ssh-keygen", "rsync", "curl")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="up-") as folder, network(Path(folder)) as made:
        keys = [
            ["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", f"{folder}/{name}"] for name in ("key", "host_key")
        ]
        for words in keys:
            subprocess.run(words, check=True)
        Path(folder, "sshd_config").write_text(SSHD.format(folder=folder))
        yield made


def machine(place: Network, variables: dict[str, str]) -> Host:
    """A host that answers to ssh."""
    host = place.host(own_packages=True)
    (host.home / ".config/pip").mkdir(parents=True)
    (host.home / ".config/pip/pip.conf").write_text(PIP)
    (host.home / ".bashrc").write_text("".join(f"export {n}={shlex.quote(v)}\n" for n, v in variables.items()))
    (host.home / "venv").symlink_to(sys.prefix)
    host.run(["/usr/sbin/sshd", "-f", str(place.folder / "sshd_config")])
    return host


class Launcher:
    """`ray` as it is typed beside cluster.yaml, on a machine of its own folders."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._path = folder / "cluster.yaml"
        self._path.write_text(yaml.safe_dump(config, sort_keys=False))
        self._env = {
            "HOME": str(folder),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "RAY_TMPDIR": str(folder),
            "RAY_UP_enable_autoscaler_v2": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __call__(self, verb: str, *words: str) -> str:
        done = subprocess.run(
            ["ray", verb, str(self._path), *words],
            env=self._env,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout)
        assert done.returncode == 0, done.stdout
        return done.stdout


def with_bucket(text: str, server: S3Server) -> str:
    """What is marked CHANGE in cluster.yaml, changed."""
    changes = {
        "s3://CHANGE/time-ray?region=us-west-2": server.uri("bucket/time-ray"),
        "s3://CHANGE/mlflow": "s3://bucket/mlflow",
    }
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return text


def commands(config: dict[str, Any], *kinds: str) -> list[str]:
    """As Ray shows them."""
    return [line for kind in kinds for line in config[kind]]


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.5)


def test_a_cluster_comes_up_runs_a_sweep_and_goes(
    place: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server(place.ours[0])
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    endpoint = server.uri("").partition("endpoint_override=")[2]
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    Files(server.uri("bucket")).filesystem.create_dir("bucket")
    variables = {**credentials, "MLFLOW_S3_ENDPOINT_URL": f"http://{endpoint}"}
    head, *workers = [machine(place, variables) for _ in range(3)]
    before = [host.processes for host in (head, *workers)]
    over = overlay()
    over["provider"] |= {"head_ip": head.ip, "worker_ips": [host.ip for host in workers]}
    over["auth"]["ssh_private_key"] = str(place.folder / "key")
    config = laid_over(yaml.safe_load(with_bucket(FILE.read_text(), server)), over)
    ray = Launcher(place.folder, config)

    shown = ray("up", "--yes", "--no-config-cache")
    for line in commands(config, "setup_commands", "head_setup_commands", "head_start_ray_commands"):
        assert line in shown, line
    wait_until(lambda: all(has_joined(host) for host in workers), WORKERS_COME_SECONDS)
    shown = head.run(["bash", "-c", "cat /tmp/ray/session_latest/logs/monitor.*"])
    for line in commands(config, "setup_commands", "worker_start_ray_commands"):
        assert line in shown, line

    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    ray("rsync-up", str(tmp_path / "small.yaml"), "small.yaml")
    ray("exec", "cd time_ray && RAY_ADDRESS=auto time-ray sweep ~/small.yaml init=ft technique=average")
    submit = "cd time_ray && time-ray submit ~/small.yaml --address http://127.0.0.1:8265"
    shown = ray("exec", submit)
    assert "8 of 8 cells in " in shown
    assert "doctor: MLflow" not in shown
    assert "results are in the store" not in shown  # as where MLflow did not take them

    alone = api.open_experiment(tmp_path / "small.yaml", [f"storage={tmp_path / 'runs'}", "run.workers=0"])
    assert api.sweep(alone).exit_code == 0
    there = api.open_experiment(tmp_path / "small.yaml", [f"storage={server.uri('bucket/time-ray')}"])
    assert (table(there), end_state(there.files)) == (table(alone), end_state(alone.files))
    assert Files(server.uri("bucket/mlflow")).list(recursive=True)

    ray("exec", "pkill -f '[m]lflow server'")
    ray("down", "--yes")
    for host in workers:
        key = ["-i", str(place.folder / "key"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        subprocess.run(["ssh", *key, f"{USER}@{host.ip}", "venv/bin/ray stop"], check=True)
    wait_until(lambda: [host.processes for host in (head, *workers)] == before, SSH_SECONDS)
    server.stop()


def has_joined(host: Host) -> bool:
    """Ray runs there."""
    return any("raylet/raylet" in line for line in host.processes)
