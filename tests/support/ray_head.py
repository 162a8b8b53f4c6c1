"""A Ray cluster of one node, as `ray start --head` makes it: on loopback only, on ports and in a folder of its own."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from time_ray.cluster.ray_process import end_session

START_SECONDS = 120
PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "ray-client-server-port",
)


@contextmanager
def ray_head(**variables: str) -> Iterator[str]:
    """The address of the dashboard while the block runs; no process of the cluster is left after it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rh-", ignore_cleanup_errors=True) as folder:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
        command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", *(f"--{name}={port}" for name, port in ports.items())]
        with Path(folder, "head.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **_environment(), **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            address = f"http://127.0.0.1:{ports['dashboard-port']}"
            wait_for(address, process)
            yield address
        finally:
            end_session(process.pid)
            process.wait()


def _environment() -> dict[str, str]:
    """Jobs find this Python first, with this package on its path; and nothing is told to anybody."""
    package = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        "PATH": path,
        "PYTHONPATH": package,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, "ray start has ended"
        assert time.monotonic() < until, "the dashboard does not answer"
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).close()  # noqa: S310
        except urllib.error.HTTPError as refused:  # who asks for a token is there
            refused.close()
        except OSError:
            time.sleep(0.5)
            continue
        return
