"""The process that speaks with Ray: `python -m time_ray.cluster.ray_driver`, started by a sweep (see ray_process.py).

Ray ends the process that drives it when a part of Ray is lost, and parts of Ray may hang. So that a sweep survives
that, Ray's driver is a process of its own: commands come as JSON lines on stdin, what happens goes as JSON lines to
stdout, and the end of stdin ends it, with all it has started.
"""

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import IO, TYPE_CHECKING, NoReturn, assert_never

from time_ray.cluster.incidents import WAITING_SECONDS, HeadWatch, Incidents
from time_ray.cluster.leaks import give_back_what_dead_jobs_left, leaks_given_back
from time_ray.cluster.messages import (
    COMMANDS,
    CONNECT,
    DRIVER_EVENTS,
    Command,
    Connect,
    Drain,
    DriverEvent,
    MoreTrials,
    NoneLeft,
    RayLost,
    Ready,
    Refused,
    RunTrials,
    RunTuning,
    StartUps,
    Trials,
    TrialsEnded,
    TuningEnded,
    from_line,
    to_line,
)
from time_ray.cluster.polling import POLL_SECONDS, polling
from time_ray.cluster.ray_cluster import Parts, can_grow, connected, head_address, node_names, nodes
from time_ray.cluster.ray_process import GRACE_SECONDS, end_session
from time_ray.cluster.room import Node
from time_ray.cluster.stages import Stages
from time_ray.cluster.trial import trial_number, tune_trial
from time_ray.cluster.trial_queue import TrialQueue
from time_ray.core.errors import UserError
from time_ray.core.tuning import Candidate
from time_ray.events import CellsRunning, ExpertTrained, Note

if TYPE_CHECKING:
    from time_ray.cluster.coordinator_actor import RemoteCoordinator  # Ray reads its settings when it is imported

NODES_SECONDS = 3.0  # between two looks at the nodes
HEAD_SECONDS = 5.0  # between two looks at the head of a cluster that others started


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
        self._rounds: list[RunTrials | RunTuning] = []
        self._more: list[Trials] = []
        self._news = threading.Condition()

    def first(self) -> Connect:
        """How to connect."""
        return from_line(self._source.readline(), CONNECT)

    def listen(self, folder: str) -> None:
        """Commands are read from now on; when the sweep is gone, so is everything that was started for it."""
        threading.Thread(target=self._listen, args=(folder,), daemon=True, name="commands").start()

    def next_round(self) -> RunTrials | RunTuning:
        """The next round, once it is asked for."""
        with self._news:
            self._news.wait_for(lambda: self._rounds)
            return self._rounds.pop(0)

    def more(self) -> Trials | None:
        """The answer to NoneLeft, once; None as long as there is none."""
        with self._news:
            return self._more.pop(0) if self._more else None

    def _listen(self, folder: str) -> None:
        for line in self._source:
            if not line.endswith(b"\n"):
                break  # the sweep was killed while it wrote
            self._take(from_line(line, COMMANDS))
        if "RAY_ADDRESS" in os.environ:  # others use this cluster, too: take leave
            # to the main thread, or it would not wake while it waits for a round
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(GRACE_SECONDS)
        end_session(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    def _take(self, command: Command) -> None:
        match command:
            case Drain():
                self.draining.set()
            case RunTrials() | RunTuning():
                with self._news:
                    self._rounds.append(command)
                    self._news.notify()
            case MoreTrials():
                with self._news:
                    self._more.append(command.trials)
            case _:
                assert_never(command)


def main() -> None:
    """Connect, say how many trials run at once, and run rounds until the sweep ends us."""
    events = EventWriter(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever libraries print
    commands = CommandReader(sys.stdin.buffer)
    first = commands.first()
    commands.listen(first.folder)
    if "RAY_ADDRESS" not in os.environ:
        _watch(_watch_over_ray, events)  # from its start on
    try:
        with connected(first.folder, threads=first.threads, groups=first.groups) as dashboard:
            if "RAY_ADDRESS" in os.environ:
                _watch(_watch_over_head, events)
            while True:
                events.write(Ready(nodes(), can_grow(), dashboard))
                match commands.next_round():
                    case RunTuning() as asked:
                        events.write(TuningEnded(_tuning(asked, commands, events)))
                    case asked:
                        events.write(TrialsEnded(tuple(_round(asked, commands, events))))
    except UserError as error:
        events.write(Refused(error.faults))
    except KeyboardInterrupt:
        return


def _watch_over_ray(events: EventWriter) -> None:
    """When a part of a private cluster is lost the sweep hears of it at once: Ray itself would wait a minute."""
    parts = Parts()
    while not (lost := parts.lost()):
        time.sleep(POLL_SECONDS)
    _lose(events, f"Ray's {lost} ended")


def _watch_over_head(events: EventWriter) -> None:
    """People hear when the head of a cluster that others started does not answer; it may come back within a minute."""
    head = HeadWatch(head_address(), lambda text: events.write(Note(text)))
    while True:
        time.sleep(HEAD_SECONDS)
        head.look()


def _watch(how: Callable[[EventWriter], None], events: EventWriter) -> None:
    threading.Thread(target=how, args=(events,), daemon=True, name="watch").start()


def _lose(events: EventWriter, reason: str) -> NoReturn:
    events.write(RayLost(reason))
    os._exit(1)


def _round(asked: RunTrials, commands: CommandReader, events: EventWriter) -> list[str]:
    """All trials ran and ended; why some of them did so early."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if "RAY_ADDRESS" in os.environ:
        give_back_what_dead_jobs_left(lambda text: events.write(Note(text)))

    from time_ray.cluster.coordinator_actor import CoordinatorActor, RemoteCoordinator

    # on our own node: no other one's loss takes it away
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = CoordinatorActor.options(name=asked.coordinator, scheduling_strategy=here).remote()
    queue = TrialQueue(asked.first.trials, asked.first.requests, asked.limit)
    stages = Stages(asked, queue, commands.more)
    groups = any(request.workers > 1 for request in asked.first.requests)
    incidents = Incidents(lambda text: events.write(Note(text)))
    try:
        with (
            polling(partial(_pass_on, RemoteCoordinator(actor), queue, stages, commands, events)),
            polling(partial(_look, incidents, queue), NODES_SECONDS),
            leaks_given_back() if groups else nullcontext(),
        ):
            return _tune(asked, queue, stages, commands, events)
    finally:
        events.write(StartUps(*queue.start_ups()))
        ray.kill(actor)


def _tune(
    asked: RunTrials, queue: TrialQueue, stages: Stages, commands: CommandReader, events: EventWriter
) -> list[str]:
    """All trials ran on Ray Tune; the last line of every error that ended one."""
    from ray import tune

    from time_ray.cluster.searcher import TrialSearcher
    from time_ray.cluster.trial_starts import TrialStarts

    trainable = tune.with_parameters(tune_trial, job=asked.job, scratch=asked.scratch, max_failures=asked.max_failures)
    tuner = tune.Tuner(
        tune.with_resources(trainable, lambda config: tune.PlacementGroupFactory([dict(config["placed"].held)])),
        tune_config=tune.TuneConfig(
            search_alg=TrialSearcher(queue, stages.placed, _Nodes(), commands.draining.is_set, stages.over),
            num_samples=-1 if asked.more else len(stages.placed),
            reuse_actors=True,  # a process that has run a trial takes the next one at once
            trial_name_creator=lambda trial: f"trial_{trial.config['trial']:05d}",
            trial_dirname_creator=lambda trial: f"trial_{trial.config['trial']:05d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            **asked.scratch.where(),
            verbose=0,
            callbacks=[TrialStarts(queue, lambda text: events.write(Note(text)))],
            failure_config=tune.FailureConfig(max_failures=asked.max_failures),
        ),
    )
    ended = tuner.fit()
    return [str(error).strip().splitlines()[-1] for error in ended.errors]


def _tuning(asked: RunTuning, commands: CommandReader, events: EventWriter) -> tuple[Candidate, ...]:
    """Every candidate of a search, in order."""
    import ray

    from time_ray.cluster.coordinator_actor import CoordinatorActor, RemoteCoordinator
    from time_ray.cluster.ray_tuning import tune_parameters

    actor = CoordinatorActor.options(name=asked.coordinator).remote()
    coordinator = RemoteCoordinator(actor)

    def pass_on() -> None:
        for event in coordinator.events():
            events.write(event)

    try:
        with polling(pass_on):
            return tune_parameters(asked, commands.draining.is_set)
    finally:
        ray.kill(actor)


class _Nodes:
    """What the nodes hold, looked up now and then: they come and go."""

    def __init__(self) -> None:
        self._found: tuple[Node, ...] = ()
        self._at = -math.inf

    def __call__(self) -> tuple[Node, ...]:
        if time.monotonic() - self._at > NODES_SECONDS:
            self._found, self._at = nodes(), time.monotonic()
        return self._found


def _look(incidents: Incidents, queue: TrialQueue) -> None:
    """People hear what is new on the cluster."""
    import ray

    incidents.look(node_names(), queue.unplaced(WAITING_SECONDS), ray.available_resources())


def _pass_on(
    coordinator: "RemoteCoordinator", queue: TrialQueue, stages: Stages, commands: CommandReader, events: EventWriter
) -> None:
    """The sweep hears what trials told the coordinator, and the coordinator that they shall stop.

    It is asked for more trials once it has heard all that the last ones told.
    """
    none_left = stages.none_left()
    if commands.draining.is_set():
        coordinator.drain()  # again and again: an actor that was started anew knows nothing
    for event in coordinator.events():
        if isinstance(event, ExpertTrained):
            queue.trained(event.expert)
        elif isinstance(event, CellsRunning):
            queue.began(trial_number(event.holder))
        events.write(event)
    if none_left:
        events.write(NoneLeft())
    stages.take_more()


if __name__ == "__main__":
    main()
