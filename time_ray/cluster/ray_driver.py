"""The process that speaks with Ray: `python -m time_ray.cluster.ray_driver`, started by a sweep (see ray_process.py).

Ray ends the process that drives it when a part of Ray is lost, and parts of Ray may hang. So that a sweep survives
that, Ray's driver is a process of its own: orders come as JSON lines on stdin, what happens goes as JSON lines to
stdout, and the end of stdin ends it, with all it has started.
"""

import base64
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from time_ray.cluster.coordinator import Event
from time_ray.cluster.leaks import watch_for_leaks
from time_ray.cluster.ray_cluster import Room, connected, lost_part, room
from time_ray.cluster.ray_process import GRACE_SECONDS, end_session
from time_ray.cluster.trial import Scratch, tune_trial
from time_ray.core.errors import UserError
from time_ray.core.experiment import Run

POLL_SECONDS = 0.25


class Voice:
    """What the sweep hears: JSON lines, whole, from any thread."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        """The sweep can read the event."""
        with self._lock:
            self._out.write(json.dumps(event) + "\n")
            self._out.flush()


class Orders:
    """What the sweep wants: rounds one after the other, and to stop at any time."""

    def __init__(self, source: TextIO) -> None:
        self.draining = threading.Event()
        self._source = source
        self._rounds: list[dict[str, Any]] = []
        self._news = threading.Condition()

    def first(self) -> dict[str, Any]:
        """The first order: how to connect."""
        return dict(json.loads(self._source.readline()))

    def listen(self, folder: str) -> None:
        """Orders are taken from now on; when the sweep is gone, so is everything that was started for it."""
        threading.Thread(target=self._listen, args=(folder,), daemon=True, name="orders").start()

    def next_round(self) -> dict[str, Any]:
        """The next round, once it is ordered."""
        with self._news:
            self._news.wait_for(lambda: self._rounds)
            return self._rounds.pop(0)

    def _listen(self, folder: str) -> None:
        for line in self._source:
            order = json.loads(line)
            if "drain" in order:
                self.draining.set()
                continue
            with self._news:
                self._rounds.append(order)
                self._news.notify()
        if "RAY_ADDRESS" in os.environ:  # others use this cluster, too: take leave
            signal.raise_signal(signal.SIGINT)
            time.sleep(GRACE_SECONDS)
        end_session(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def main() -> None:
    """Connect, say what room there is, and run rounds until the sweep ends us."""
    voice = Voice(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # whatever libraries print
    orders = Orders(sys.stdin)
    first = orders.first()
    orders.listen(first["folder"])
    settings = Run(**first["run"])
    try:
        with connected(settings, first["folder"]):
            _watch_over_ray(voice)
            while True:
                space = room(settings)
                voice.tell({"kind": "room", "slots": space.slots})
                errors = _round(orders.next_round(), space, orders, voice)
                voice.tell({"kind": "ended", "errors": errors})
    except UserError as error:
        voice.tell({"kind": "refused", "faults": list(error.faults)})
    except KeyboardInterrupt:
        return


def _watch_over_ray(voice: Voice) -> None:
    """When a part of a private cluster is lost the sweep hears of it at once: Ray itself would wait a minute."""

    def watch() -> None:
        while not (lost := lost_part()):
            time.sleep(POLL_SECONDS)
        _lose(voice, f"Ray's {lost} ended")

    threading.Thread(target=watch, daemon=True, name="watch").start()


def _lose(voice: Voice, why: str) -> NoReturn:
    voice.tell({"kind": "lost", "why": why})
    os._exit(1)


def _round(order: Mapping[str, Any], space: Room, orders: Orders, voice: Voice) -> list[str]:
    """Every bundle was given to a trial, and all trials ended; why some of them did so early."""
    import ray

    from time_ray.cluster.coordinator_actor import CoordinatorActor, RemoteCoordinator

    actor = CoordinatorActor.options(name=order["coordinator"]).remote()
    try:
        with _following(RemoteCoordinator(actor), orders, voice):
            return _tune(order, space)
    finally:
        ray.kill(actor)


def _tune(order: Mapping[str, Any], space: Room) -> list[str]:
    """All bundles ran as Tune trials; the last line of every error that ended one."""
    from ray import tune

    scratch = Scratch(**order["scratch"])

    trial = tune.with_parameters(
        tune_trial,
        job=base64.b64decode(order["job"]),
        bundles=order["bundles"],
        shape=space.shape,
        scratch=scratch,
    )
    # a trial itself only waits for its workers; on the head it outlives any worker node
    trial = tune.with_resources(trial, {"node:__internal_head__": 0.001})
    tuner = tune.Tuner(
        trial,
        param_space={"bundle": tune.grid_search(list(range(len(order["bundles"]))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=space.slots),
        run_config=tune.RunConfig(
            name="tune",
            **scratch.where(),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=space.shape.max_failures),
        ),
    )
    ended = tuner.fit()
    return [str(error).strip().splitlines()[-1] for error in ended.errors]


@contextmanager
def _following(coordinator: Any, orders: Orders, voice: Voice) -> Iterator[None]:
    """Events are passed on while the block runs, and what killed processes have reserved is given back."""
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(coordinator, over, orders, voice), daemon=True)
    follower.start()
    threading.Thread(target=watch_for_leaks, args=(over,), daemon=True, name="leaks").start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def _follow(coordinator: Any, over: threading.Event, orders: Orders, voice: Voice) -> None:
    told = False
    while True:
        last = over.wait(POLL_SECONDS)
        if orders.draining.is_set() and not told:
            coordinator.drain()
            told = True
        for event in coordinator.events():
            voice.tell(event)
        if last:
            return


if __name__ == "__main__":
    main()
