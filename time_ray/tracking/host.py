"""What the machine of a sweep's driver was at while it ran: MLflow's system metrics, on the sweep's run.

They are measured in the thread that copies results, now and then, and wait here until MLflow takes them.
"""

import logging
import time
from collections import deque
from typing import Any

EVERY_SECONDS = 10.0
_SAMPLES = 1000  # of a sweep, about: a long one is looked at less often
_MOST_WAITING = 500  # while MLflow does not answer

log = logging.getLogger(__name__)


class Host:
    """Samples of this machine: processors, memory, disk, network, and GPUs where MLflow can see them."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._due = self._started
        self._monitors: list[Any] | None = None
        self._waiting: deque[tuple[int, dict[str, float]]] = deque(maxlen=_MOST_WAITING)

    def sample(self) -> None:
        """One more sample waits, if it is time. What cannot be measured is left out."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + max(EVERY_SECONDS, (now - self._started) / _SAMPLES * 2)
        try:
            first = self._monitors is None  # of a time that has not begun: the processors' share of it means nothing
            found = self._measured()
            if not first:
                self._waiting.append((int(time.time() * 1000), found))
        except Exception as error:  # noqa: BLE001 no sweep may end for it
            log.debug("system metrics: %s", error)
            self._due = float("inf")

    def waiting(self, start: int) -> list[Any]:
        """The samples as points of a run that started then; its steps are seconds."""
        from mlflow.entities import Metric

        return [
            Metric(f"system/{name}", value, at, max(0, at - start) // 1000)
            for at, values in self._waiting
            for name, value in values.items()
        ]

    def taken(self) -> None:
        """Nothing waits."""
        self._waiting.clear()

    def _measured(self) -> dict[str, float]:
        self._monitors = _monitors() if self._monitors is None else self._monitors
        found: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            found |= {name: round(float(value), 1) for name, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return found


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        found.append(GPUMonitor())
    except Exception as error:  # noqa: BLE001 no GPU, or nothing that knows it
        log.debug("system metrics: %s", error)
    return found
