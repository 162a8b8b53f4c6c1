"""Measured throughput: a plan says how long a sweep takes once one like it ran on the storage."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_grid import full_grid, setting, technique

from time_ray.core.grid import Cell
from time_ray.core.metrics import AccuracyHistory
from time_ray.core.plan import plan
from time_ray.core.scoring import Scoring
from time_ray.rates import Rate, measured, read_rates, trial_costs, work_seconds, write_rates, write_timed
from time_ray.results import CellResult, TaskResult
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.trials import Costs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Files(str(tmp_path)))


def cells(**how: Any) -> tuple[Cell, ...]:
    return full_grid([technique()], setting(3, **how))


def result(cell: Cell) -> CellResult:
    """A task of ten steps in 20 s, evaluated in 3 s after a merge of 1 s; what the base took does not count."""
    spent = {"train": 20.0, "eval": 3.0, "deploy": 1.0}
    history = AccuracyHistory([{}, {}], (), ())
    rows = (TaskResult(0, history, {"eval": 99.0}), TaskResult(1, history, spent))
    return CellResult(cell, rows, "", None)


def test_rates_are_means_over_rows() -> None:
    assert measured([result(cell) for cell in cells()]) == {"toy": Rate(step=2.0, evaluation=4.0)}


def test_a_plan_takes_as_long_as_its_steps_and_evaluations(store: Store) -> None:
    grid = cells()
    work = plan(grid).work
    assert work_seconds(work, read_rates(store, grid)) is None
    write_rates(store, [result(grid[0])])
    rates = read_rates(store, grid)
    seconds = 2.0 * work["toy"].steps + 4.0 * work["toy"].evaluations
    assert work_seconds(work, rates) == seconds
    assert trial_costs(grid, rates, 32) == {"toy": Costs(2.0, 4.0)}


def test_the_first_measurement_stays(store: Store) -> None:
    grid = cells()
    write_rates(store, [result(grid[0])])
    slower = replace(result(grid[0]).rows[1], seconds={"train": 99.0})
    write_rates(store, [replace(result(grid[0]), rows=(slower, slower))])
    assert read_rates(store, grid) == {"toy": Rate(2.0, 4.0)}


@pytest.mark.parametrize("how", [{"batch_size": 64}, {"scoring": Scoring(subset=0.5)}])
def test_a_rate_says_nothing_of_other_batches_or_other_images(store: Store, how: dict[str, Any]) -> None:
    write_rates(store, [result(cells()[0])])
    assert read_rates(store, cells(**how)) == {}
    assert set(read_rates(store, cells(seed=5))) == {"toy"}


def test_rates_of_somebody_else_are_no_rates(store: Store) -> None:
    grid = cells()
    write_timed(store, grid, {"toy": Rate(1.0, 2.0)}, "cpu")
    assert read_rates(store, grid) == {"toy": Rate(1.0, 2.0)}
    for key in store.keys("rates"):
        store.replace("rates", key, {"step": "fast", "first": None})
    assert read_rates(Store(store.files), grid) == {}
