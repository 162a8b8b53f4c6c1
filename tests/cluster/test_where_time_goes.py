"""Where time goes: every second counts once, for the innermost part, and speeds follow from what was done."""

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from time_ray.cluster.clock import Clock
from time_ray.cluster.device_capacity import named_peak, peak_tflops
from time_ray.cluster.performance import TrainingPerformance
from time_ray.core.training import Training


class Time:
    """A clock's hand, moved by tests."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_a_second_within_another_part_counts_for_the_inner_one() -> None:
    time = Time()
    clock = Clock(time)
    time.passes(50)  # nobody's
    with clock.at("step"):
        time.passes(1)
        with clock.at("data"):
            time.passes(2)
        time.passes(4)
        with suppress(KeyError), clock.at("store"):
            time.passes(8)
            raise KeyError
        assert clock.taken() == {"step": 5, "data": 2, "store": 8}
        time.passes(16)
    assert clock.taken() == {"step": 16}
    assert clock.taken() == {}


def test_other_threads_take_no_time_of_it() -> None:
    time = Time()
    clock = Clock(time)

    def beside() -> None:
        with clock.at("data"):
            time.passes(1)

    with clock.at("step"):
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
    assert clock.taken() == {"step": 1}


def test_waiting_for_batches_is_data_and_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    clock = Clock(time)
    ended = []

    def batches() -> Iterator[int]:
        try:
            for number in range(5):
                time.passes(3)
                yield number
        finally:
            ended.append(True)

    monkeypatch.setattr("time_ray.cluster.performance.time.perf_counter", time)
    performance = TrainingPerformance(clock, "cpu")
    with clock.at("step"):
        seen = performance.seen(batches())
        for number in seen:
            time.passes(1)
            if number == 3:
                break
        seen.close()
    assert clock.taken() == {"data": 12, "step": 4}
    assert ended == [True]
    found = performance.found(Training(batch_size=8), 100.0, 2)
    assert found == {"samples_per_second": 8 * 4 / 16}
    monkeypatch.setattr("time_ray.cluster.performance.peak_tflops", lambda *_: 0.5)
    assert performance.found(Training(batch_size=8), 100.0, 2)["mfu"] == pytest.approx(100 * 4 / 16 / (500 * 2))
    assert "mfu" not in performance.found(Training(batch_size=8), None, 2)


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 67),
        ("NVIDIA H100 PCIe", 756, 51),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA L40S", 362, 91.6),
        ("NVIDIA A10G", 70, 31.2),
        ("NVIDIA L40", None, None),
        ("NVIDIA GeForce RTX 4090", None, None),
    ],
)
def test_peaks_go_by_the_name_of_the_gpu(name: str, bf16: float | None, fp32: float | None) -> None:
    assert (named_peak(name, "bf16"), named_peak(name, "fp32")) == (bf16, fp32)
    assert peak_tflops("cpu", "bf16") is None
