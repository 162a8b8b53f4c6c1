"""What a training achieves on its device: samples a second, the share of its peak, and memory."""

import time
from collections.abc import Callable, Iterator

from time_ray.cluster.clock import Clock
from time_ray.cluster.device_capacity import peak_bytes, peak_from_now_on, peak_tflops
from time_ray.core.training import Training
from time_ray.data.batch import Batch
from time_ray.data.prefetch import closed


class TrainingPerformance:
    """Of one training, from now on.

    Args:
        clock: Hears of the time that passes until batches are there.
        device: Where the training runs.

    """

    def __init__(self, clock: Clock, device: str) -> None:
        self._clock = clock
        self._device = device
        self._steps = 0
        self._started = time.perf_counter()
        peak_from_now_on(device)

    def seen(self, batches: Iterator[Batch], on_batch: Callable[[], None] = lambda: None) -> Iterator[Batch]:
        """The same batches, counted and timed; `on_batch` is called before each."""
        with closed(batches):
            while True:
                with self._clock.at("data"):
                    batch = next(batches, None)
                if batch is None:
                    return
                self._steps += 1
                on_batch()
                yield batch

    def found(self, config: Training, gflops: float | None, workers: int) -> dict[str, float]:
        """What was achieved until now, by name; what the device does not tell is left out.

        Args:
            config: Of the training.
            gflops: Operations of a step; None: unknown.
            workers: That share each step.

        """
        seconds = time.perf_counter() - self._started
        achieved = {"samples_per_second": config.batch_size * self._steps / seconds}
        peak = peak_tflops(self._device, config.precision)
        if gflops is not None and peak is not None:
            achieved["mfu"] = gflops * self._steps / seconds / (1e3 * peak * workers)
        return achieved | peak_memory("train", self._device)


def peak_memory(stage: str, device: str) -> dict[str, float]:
    """The most memory of the device that a stage took, in GB; nothing on a CPU."""
    taken = peak_bytes(device)
    return {} if taken is None else {f"{stage}_gpu_gb": taken / 1e9}
