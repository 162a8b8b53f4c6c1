"""A sweep that is killed at any boundary of any file operation, and resumed, ends as if nothing had happened."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from faulty import Crash, Faulty, Point
from small import Small, at

from time_ray import api
from time_ray.store.files import Files

GRIDS: dict[str, dict[str, Any]] = {
    "all strategies, TIES": {
        "init": ["zs", "ft", "ema", "all"],
        "deploy": ["ft", "ema", "all"],
        "technique": [{"name": "ties", "scaling": 0.5}],
    },
    "two techniques": {"deploy": ["ema", "all"], "technique": ["task_arithmetic", "slerp"]},
    "two seeds with replay": {
        "mixture": {"update": 0.5, "buffer": 0.5},
        "seed": [0, 1],
        "deploy": ["ft", "ema", "all"],
    },
}

pytestmark = pytest.mark.usefixtures("as_if_dead")


def killed(small: Small, root: Path, point: Point) -> bool:
    """Whether a sweep on this storage, perhaps of what another left there, gets to the point; there it is killed."""
    doomed = Faulty(point)
    try:
        api.sweep(at(small.opened, doomed.files(root)))
    except Crash:
        return True
    return False


def ends_as_undisturbed(small: Small, root: Path) -> bool:
    """Whether the same command again does."""
    outcome = api.sweep(at(small.opened, Files(str(root))))
    return outcome.exit_code == 0 and small.same(root)


def sample(points: Sequence[Point], count: int) -> list[Point]:
    return [points[i * len(points) // count] for i in range(count)]


@pytest.mark.nightly
def test_a_kill_at_any_of_thirty_boundaries_changes_nothing(small: Small, tmp_path: Path) -> None:
    for number, point in enumerate(sample(small.points, 30)):
        assert killed(small, tmp_path / str(number), point)
        assert ends_as_undisturbed(small, tmp_path / str(number)), point


def test_the_dead_write_nothing_more(small: Small, tmp_path: Path) -> None:
    """Of a sweep killed before its very first write nothing is found, whatever its cleaning up tried."""
    assert killed(small, tmp_path / "runs", small.points[0])
    assert not (tmp_path / "runs").exists()


def test_being_killed_again_and_again_changes_nothing(small: Small, tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(4):
        killed(small, tmp_path / "runs", draw.choice(small.points))
    assert ends_as_undisturbed(small, tmp_path / "runs")


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_kill_at_every_boundary_changes_nothing(make_small: Callable[..., Small], grid: str, tmp_path: Path) -> None:
    """Together more than a thousand points, each on a storage of its own."""
    small = make_small(**GRIDS[grid])
    assert len(small.points) > 320
    for number, point in enumerate(small.points):
        assert killed(small, tmp_path / str(number), point)
        assert ends_as_undisturbed(small, tmp_path / str(number)), point


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(100))
def test_many_kills_one_after_another_change_nothing(small: Small, seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    for _ in range(draw.randint(2, 12)):
        killed(small, tmp_path / "runs", draw.choice(small.points))
    assert ends_as_undisturbed(small, tmp_path / "runs")


INSIDE = {"init": "ft", "budget": "4 steps"}


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A checkpoint after every step; the steps at which a training went on."""
    from time_ray.cluster.checkpoints import StepCheckpoints

    monkeypatch.setattr(StepCheckpoints, "due", lambda *_: True)
    load, went_on = StepCheckpoints.load, []

    def watched(self: StepCheckpoints) -> Any:
        found = load(self)
        went_on.extend([] if found is None else [found[0]])
        return found

    monkeypatch.setattr(StepCheckpoints, "load", watched)
    return went_on


def test_a_kill_inside_a_task_changes_nothing(
    make_small: Callable[..., Small], at_every_step: list[int], tmp_path: Path
) -> None:
    small = make_small(**INSIDE)
    for number, point in enumerate(sample(small.points, 7)):
        assert killed(small, tmp_path / str(number), point)
        assert ends_as_undisturbed(small, tmp_path / str(number)), point
    assert at_every_step


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_a_kill_at_every_boundary_inside_tasks_changes_nothing(
    make_small: Callable[..., Small], at_every_step: list[int], tmp_path: Path
) -> None:
    small = make_small(**INSIDE)
    for number, point in enumerate(small.points):
        assert killed(small, tmp_path / str(number), point)
        assert ends_as_undisturbed(small, tmp_path / str(number)), point
    assert set(at_every_step) >= {1, 2, 3}
