"""The process that speaks with Ray: `python -m time_ray.cluster.ray_driver`, started by a sweep (see ray_process.py).

Ray ends the process that drives it when a part of Ray is lost, and parts of Ray may hang. So that a sweep survives
that, Ray's driver is a process of its own: commands come as JSON lines on stdin, what happens goes as JSON lines to
stdout, and the end of stdin ends it, with all it has started.
"""

import os
import shutil
import signal
import sys
import threading
import time
from functools import partial
from typing import IO, TYPE_CHECKING, NoReturn, assert_never

from time_ray.cluster.leaks import leaks_given_back
from time_ray.cluster.messages import (
    COMMANDS,
    CONNECT,
    DRIVER_EVENTS,
    Command,
    Connect,
    Drain,
    DriverEvent,
    RayLost,
    Ready,
    Refused,
    RunTrials,
    TrialsEnded,
    from_line,
    to_line,
)
from time_ray.cluster.polling import POLL_SECONDS, polling
from time_ray.cluster.ray_cluster import Capacity, capacity, connected, lost_part
from time_ray.cluster.ray_process import GRACE_SECONDS, end_session
from time_ray.cluster.trial import tune_trial
from time_ray.core.errors import UserError

if TYPE_CHECKING:
    from time_ray.cluster.coordinator_actor import RemoteCoordinator  # Ray reads its settings when it is imported


class EventWriter:
    """What the sweep hears: JSON lines, whole, from any thread."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._lock = threading.Lock()

    def write(self, event: DriverEvent) -> None:
        """The sweep can read the event."""
        with self._lock:
            self._out.write(to_line(event, DRIVER_EVENTS))
            self._out.flush()


class CommandReader:
    """What the sweep wants: rounds one after the other, and to stop at any time."""

    def __init__(self, source: IO[bytes]) -> None:
        self.draining = threading.Event()
        self._source = source
        self._rounds: list[RunTrials] = []
        self._news = threading.Condition()

    def first(self) -> Connect:
        """How to connect."""
        return from_line(self._source.readline(), CONNECT)

    def listen(self, folder: str) -> None:
        """Commands are read from now on; when the sweep is gone, so is everything that was started for it."""
        threading.Thread(target=self._listen, args=(folder,), daemon=True, name="commands").start()

    def next_round(self) -> RunTrials:
        """The next round, once it is asked for."""
        with self._news:
            self._news.wait_for(lambda: self._rounds)
            return self._rounds.pop(0)

    def _listen(self, folder: str) -> None:
        for line in self._source:
            if not line.endswith(b"\n"):
                break  # the sweep was killed while it wrote
            self._take(from_line(line, COMMANDS))
        if "RAY_ADDRESS" in os.environ:  # others use this cluster, too: take leave
            signal.raise_signal(signal.SIGINT)
            time.sleep(GRACE_SECONDS)
        end_session(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    def _take(self, command: Command) -> None:
        match command:
            case Drain():
                self.draining.set()
            case RunTrials():
                with self._news:
                    self._rounds.append(command)
                    self._news.notify()
            case _:
                assert_never(command)


def main() -> None:
    """Connect, say how many trials run at once, and run rounds until the sweep ends us."""
    events = EventWriter(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever libraries print
    commands = CommandReader(sys.stdin.buffer)
    first = commands.first()
    commands.listen(first.folder)
    try:
        with connected(first.run, first.folder):
            _watch_over_ray(events)
            while True:
                found = capacity(first.run)
                events.write(Ready(found.trials))
                errors = _round(commands.next_round(), found, commands, events)
                events.write(TrialsEnded(tuple(errors)))
    except UserError as error:
        events.write(Refused(error.faults))
    except KeyboardInterrupt:
        return


def _watch_over_ray(events: EventWriter) -> None:
    """When a part of a private cluster is lost the sweep hears of it at once: Ray itself would wait a minute."""

    def watch() -> None:
        while not (lost := lost_part()):
            time.sleep(POLL_SECONDS)
        _lose(events, f"Ray's {lost} ended")

    threading.Thread(target=watch, daemon=True, name="watch").start()


def _lose(events: EventWriter, reason: str) -> NoReturn:
    events.write(RayLost(reason))
    os._exit(1)


def _round(asked: RunTrials, found: Capacity, commands: CommandReader, events: EventWriter) -> list[str]:
    """Every bundle was given to a trial, and all trials ended; why some of them did so early."""
    import ray

    from time_ray.cluster.coordinator_actor import CoordinatorActor, RemoteCoordinator

    actor = CoordinatorActor.options(name=asked.coordinator).remote()
    try:
        with polling(partial(_pass_on, RemoteCoordinator(actor), commands, events)), leaks_given_back():
            return _tune(asked, found)
    finally:
        ray.kill(actor)


def _tune(asked: RunTrials, found: Capacity) -> list[str]:
    """All bundles ran as Tune trials; the last line of every error that ended one."""
    from ray import tune

    trial = tune.with_parameters(
        tune_trial,
        job=asked.job,
        bundles=asked.bundles,
        settings=found.trial,
        scratch=asked.scratch,
    )
    # a trial itself only waits for its workers; on the head it outlives any worker node
    trial = tune.with_resources(trial, {"node:__internal_head__": 0.001})
    tuner = tune.Tuner(
        trial,
        param_space={"bundle": tune.grid_search(list(range(len(asked.bundles))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=found.trials),
        run_config=tune.RunConfig(
            name="tune",
            **asked.scratch.where(),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=found.trial.max_failures),
        ),
    )
    ended = tuner.fit()
    return [str(error).strip().splitlines()[-1] for error in ended.errors]


def _pass_on(coordinator: "RemoteCoordinator", commands: CommandReader, events: EventWriter) -> None:
    """The sweep hears what trials told the coordinator, and the coordinator that they shall stop."""
    if commands.draining.is_set():
        coordinator.drain()  # again and again: an actor that was started anew knows nothing
    for event in coordinator.events():
        events.write(event)


if __name__ == "__main__":
    main()
