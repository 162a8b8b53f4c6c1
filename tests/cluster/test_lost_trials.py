"""What a sweep says of trials that end without their cells."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from time_ray import api
from time_ray.cluster import ray_cluster, sweep
from time_ray.core.grid import Cell


def test_cells_that_no_trial_could_run_fail_with_the_reason(
    new_experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[int] = []

    def no_worker_starts(_: object, todo: Sequence[Cell]) -> list[str]:
        rounds.append(len(todo))
        return ["no worker started", "no worker started"]

    monkeypatch.setattr(ray_cluster, "connected", lambda _: nullcontext())
    monkeypatch.setattr(sweep._Sweep, "_round", no_worker_starts)
    opened = api.open_experiment(new_experiment(tmp_path), ["run.workers=1", "init=ft", "technique=average"])
    outcome = api.sweep(opened)
    assert outcome.exit_code == 1
    assert rounds == [3] * sweep.MAX_ROUNDS
    assert {event["error"] for event in outcome.failures.values()} == {"no trial could run it (no worker started)"}
    assert outcome.failures.keys() == {cell.key for cell in opened.study.cells}
