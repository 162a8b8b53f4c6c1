"""What cells cost: every model once, and what is a cell's own."""

from pathlib import Path

import pytest
from scored_store import experiment, record

from time_ray.analysis.costs import costs
from time_ray.results import CellResult, read_results
from time_ray.study import Study


def swept(folder: Path, cells: int | None = None, **changes: object) -> tuple[Study, list[CellResult]]:
    """Trainings cost a second each; deploying and scoring nothing."""
    opened = experiment(folder, **{"seed": 0, "technique": ["average"], **changes})
    record(opened.store, opened.study.cells[:cells], lambda *_: {"chess": 50, "textures": 50})
    return opened.study, read_results(opened.study.cells, opened.store)


def test_a_shared_expert_is_counted_once(tmp_path: Path) -> None:
    """Four inits on two tasks: the first expert is everybody's, and `ema` and `all` start the second alike."""
    study, results = swept(tmp_path)
    experts = {step.expert.key for cell in study.cells for step in cell.walk()}
    found = costs(results)
    assert found.total["train"] == len(experts) < 12 * 2
    assert found.unshared["train"] == 12 * 2
    assert found.saved == pytest.approx(24 - len(experts))


def test_what_others_need_too_is_shared(tmp_path: Path) -> None:
    """Two cells of other inits: the first task's expert is both's, the second one's own."""
    _, results = swept(tmp_path, init=["zs", "ft"], deploy=["ft"])
    for cost in costs(results).by_cell.values():
        assert (cost.own["train"], cost.shared["train"]) == (1.0, 1.0)


def test_a_cell_alone_owns_all_that_it_cost(tmp_path: Path) -> None:
    _, (result,) = swept(tmp_path, init=["ft"], deploy=["ema"])
    found = costs([result])
    (cost,) = found.by_cell.values()
    assert cost.own == found.total == found.unshared
    assert sum(cost.shared.values()) == found.saved == 0.0


def test_cells_that_are_not_done_cost_what_is_done_of_them(tmp_path: Path) -> None:
    _, results = swept(tmp_path, cells=1)
    assert any(not result.rows[1:] for result in results)
    assert costs(results).total["train"] >= 2.0
    assert costs([]).saved == 0.0
