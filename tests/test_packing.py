"""Cells into bundles: every cell once, trajectories together, work spread evenly."""

from hypothesis import given
from hypothesis import strategies as st
from toy_grid import full_grid, setting, technique

from time_ray.packing import OVERHEAD_SECONDS, WORTH, pack

CELLS = full_grid([technique(), technique("sum", weighted=False, alone=False)], setting(3), setting(3, seed=1))
TRAJECTORIES = sorted({cell.trajectory for cell in CELLS})
LONG = 2 * WORTH * OVERHEAD_SECONDS


@given(st.integers(1, 20), st.dictionaries(st.sampled_from(TRAJECTORIES), st.floats(0.1, LONG)))
def test_every_cell_is_in_one_bundle_with_its_trajectory(capacity: int, seconds: dict[str, float]) -> None:
    bundles = pack(CELLS, capacity, seconds)
    assert sorted(cell.key for bundle in bundles for cell in bundle) == sorted(cell.key for cell in CELLS)
    assert all(bundles)
    for name in TRAJECTORIES:
        assert sum(any(cell.trajectory == name for cell in bundle) for bundle in bundles) == 1
    long = [name for name in TRAJECTORIES if seconds.get(name, 0) > WORTH * OVERHEAD_SECONDS]
    assert len(bundles) == len(long) + min(capacity, len(TRAJECTORIES) - len(long))


def test_short_work_makes_as_many_bundles_as_run_at_once() -> None:
    assert [len(pack(CELLS, capacity, {})) for capacity in (1, 2, 5)] == [1, 2, 5]
    assert len(pack(CELLS, 100, {})) == len(TRAJECTORIES)


def test_bundles_are_even() -> None:
    loads = [len({cell.trajectory for cell in bundle}) for bundle in pack(CELLS, 3, dict.fromkeys(TRAJECTORIES, 1.0))]
    assert max(loads) - min(loads) <= 1


def test_one_cell_a_trial() -> None:
    assert pack(CELLS, 2, {}, one_each=True) == [[cell] for cell in CELLS]


def test_no_cells_are_no_bundles() -> None:
    assert pack([], 4, {}) == []
