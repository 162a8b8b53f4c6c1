"""What people hear of a cluster while trials run on it: lost nodes, a silent head, resources that are waited for."""

import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from time_ray.cluster.room import Request

WAITING_SECONDS = 30.0  # for a place, before anybody hears of it
ANSWER_SECONDS = 5.0  # for a head to take a connection


class HeadWatch:
    """Tells when the head of a cluster does not answer, and when it does again: Ray itself says nothing for a minute.

    Args:
        address: HOST:PORT of it.
        say: Hears a line for each.

    """

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        self._address = address
        self._say = say
        self._answers = True

    def look(self) -> None:
        """What is new is told."""
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except OSError as error:
            if self._answers:
                self._say(f"Ray's head at {self._address} does not answer ({error}); it is waited for, a minute or so")
            self._answers = False
        else:
            if not self._answers:
                self._say(f"Ray's head at {self._address} answers again")
            self._answers = True


class Incidents:
    """Compares each look at the cluster with the one before.

    Args:
        say: Hears a line for each thing that people should know.
        clock: Seconds.

    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._nodes: dict[str, str] = {}
        self._pause = WAITING_SECONDS
        self._again = -math.inf  # when it may be said again that trials wait

    def look(self, nodes: Mapping[str, str], waiting: Sequence[Request], free: Mapping[str, float]) -> None:
        """What is new is told.

        Args:
            nodes: Names of nodes that are there, by id.
            waiting: What trials ask for that have had no place for WAITING_SECONDS.
            free: What nobody holds, by Ray's names.

        """
        for node in self._nodes.keys() - nodes.keys():
            self._say(f"node {self._nodes[node]} was lost; what ran there is started again where there is room")
        self._nodes = dict(nodes)
        self._wait(waiting, free)

    def _wait(self, waiting: Sequence[Request], free: Mapping[str, float]) -> None:
        if not waiting:
            self._pause, self._again = WAITING_SECONDS, -math.inf
        elif self._clock() >= self._again:
            self._pause *= 2
            self._again = self._clock() + self._pause
            there = f"{free.get('CPU', 0.0):g} CPU and {free.get('GPU', 0.0):g} GPU"
            many = f"{len(waiting)} trials wait" if len(waiting) > 1 else "a trial waits"
            self._say(f"{many} for {waiting[0].words}; free on the whole cluster: {there}")
