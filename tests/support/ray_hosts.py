"""A Ray cluster on hosts of namespaces, and sweeps that run on it: what each stage was at, and where, is noted."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml
from hosts import Address, Host, Network

PORT = 6379
REPOSITORY = Path(__file__).parent.parent.parent
START_ATTEMPTS = 3  # Ray gives a node half a minute to start, which a busy machine may not have
LONGEST_SECONDS = 600  # of one command
# a plugin that notes where work goes on; the first to come to the stage that is named here stays there for ever
_PLUGIN = '''
import os
import socket
import time
from pathlib import Path

from time_ray.cluster.backend import SweepBackend
from time_ray.extend import technique

NOTES = Path({folder!r})
STAGE = {stage!r}


@technique
def unused(base, experts):
    """θ = θ_0"""
    return base


def come_to(stage, key):
    note = f"{{time.time()}} {{stage}} {{key}} {{socket.gethostname()}}\\n"
    with (NOTES / "notes").open("a") as notes:
        notes.write(note)
    if stage == STAGE:
        try:
            with (NOTES / "held").open("x") as held:
                held.write(note)
        except FileExistsError:
            return
        time.sleep(3600)


def train(self, expert, start, train=SweepBackend.train):
    self.now = expert.key
    return train(self, expert, start)


def batches(self, *asked, batches=SweepBackend._batches):
    found = batches(self, *asked)

    def some(first):
        for number, batch in enumerate(found(first)):
            if number == 3:
                come_to("task", self.now)
            yield batch

    return some


def merge(self, merged, merge=SweepBackend.merge):
    come_to("merge", merged.key)
    return merge(self, merged)


def evaluate(self, setting, models, evaluate=SweepBackend.evaluate):
    come_to("evaluation", "")
    return evaluate(self, setting, models)


if SweepBackend.train.__name__ == "train" and not hasattr(SweepBackend, "now"):
    SweepBackend.now = ""
    SweepBackend.train, SweepBackend._batches, SweepBackend.merge = train, batches, merge
    SweepBackend.evaluate = evaluate
'''


class Note(NamedTuple):
    """Somebody came to a stage."""

    time: float
    stage: str
    key: str
    host: str


def _read(path: Path) -> list[Note]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [Note(float(at), *rest) for at, *rest in (line.split(" ") for line in lines)]


@dataclass
class Sweep:
    """A sweep that runs on a host."""

    process: psutil.Popen
    out: Path
    err: Path
    started: float

    def wait(self) -> int:
        """Its exit status."""
        try:
            return int(self.process.wait(LONGEST_SECONDS))
        except psutil.TimeoutExpired:
            raise AssertionError(self.said) from None

    @property
    def said(self) -> str:
        return self.err.read_text()


class Experiment:
    """An experiment as it is written, but that its work is noted."""

    def __init__(self, path: Path, stage: str = "", **changes: object) -> None:
        self._folder = path.parent
        self.path = self._folder / "noted.yaml"
        plugin = self._folder / "notes.py"
        plugin.write_text(_PLUGIN.format(folder=str(self._folder), stage=stage))
        written = {**yaml.safe_load(path.read_text()), "plugins": [str(plugin)], **changes}
        self.path.write_text(yaml.safe_dump(written, sort_keys=False))
        self._sweeps = 0

    @property
    def notes(self) -> list[Note]:
        return _read(self._folder / "notes")

    def held(self) -> Note:
        """Where the work stays, once it does."""
        wait_until(lambda: _read(self._folder / "held"))
        return _read(self._folder / "held")[0]

    def files(self) -> tuple[Path, Path]:
        """For what a sweep says."""
        self._sweeps += 1
        return self._folder / f"out-{self._sweeps}", self._folder / f"err-{self._sweeps}"


class RayHosts:
    """A Ray cluster: a head without CPUs, and the nodes that are added."""

    def __init__(self, network: Network, *, dashboard: bool = False, **variables: str) -> None:
        self._variables = {**_VARIABLES, **variables}
        self._network = network
        self._dashboard = dashboard
        self._head_address = network.address()
        self.start_head()

    @property
    def address(self) -> str:
        return f"{self._head_address.ip}:{PORT}"

    def start_head(self) -> None:
        """The head runs, on a host that has just been switched on."""
        self.head = self._network.host(self._head_address)
        dashboard = f"--include-dashboard={str(self._dashboard).lower()}"
        self._start(self.head, 0, "--head", f"--port={PORT}", "--dashboard-host=127.0.0.1", dashboard)

    def add(self, cpus: int, address: Address | None = None) -> Host:
        """A node has joined, on a host that has just been switched on."""
        host = self._network.host(address)
        self._start(host, cpus, f"--address={self.address}")
        return host

    def sweep(self, host: Host, experiment: Experiment, *overrides: str, **variables: str) -> Sweep:
        """A sweep runs on the host."""
        out, err = experiment.files()
        command = [sys.executable, "-c", "from time_ray.cli import main; main()", "sweep", str(experiment.path)]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = host.start(
                [*command, *overrides], stdout, stderr, **self._variables, RAY_ADDRESS=self.address, **variables
            )
        return Sweep(process, out, err, time.monotonic())

    def _start(self, host: Host, cpus: int, *words: str) -> None:
        ray = [str(Path(sys.executable).parent / "ray"), "start", f"--node-ip-address={host.ip}", f"--num-cpus={cpus}"]
        ray += ["--object-store-memory=100000000", "--disable-usage-stats", *words]
        for _ in range(START_ATTEMPTS - 1):
            with contextlib.suppress(AssertionError):
                host.run(ray, **self._variables)
                return
            host.kill_all()
        host.run(ray, **self._variables)


_VARIABLES = {
    "PYTHONPATH": str(REPOSITORY),
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "LANG": "C.UTF-8",
} | {name: os.environ[name] for name in ("TIME_RAY_DEBUG",) if name in os.environ}


def wait_until(true: Callable[[], object], seconds: float = LONGEST_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)
