"""The table of metrics: KA, ZS, GM, forgetting, and those of somebody else."""

import math
import statistics as reference
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from time_ray.core.errors import UserError
from time_ray.core.metrics import METRICS, AccuracyHistory, Metric, metric_named, metrics_version, register, scores

PERCENT = st.floats(0, 100)


def now(accuracy: Mapping[str, float], adaptation: Sequence[str], evaluation: Sequence[str]) -> dict[str, float | None]:
    """The scores of the base, without those of tasks: there was none."""
    found = scores(AccuracyHistory([accuracy], adaptation, evaluation))
    assert [found[name] for name in ("acc", "bwt", "fwt")] == [None] * 3
    return {name: value for name, value in found.items() if name not in ("acc", "bwt", "fwt")}


def test_geometric_mean_of_the_two_sides() -> None:
    found = now({"a": 10.0, "b": 30.0, "c": 45.0, "unused": 99.0}, ["a", "b"], ["c"])
    assert found == {"ka": 20.0, "zs": 45.0, "gm": 30.0, "forgetting": None}


def test_the_benchmark_anchor() -> None:
    """Zero-shot ViT-B/32: KA 38.47, ZS 67.93, GM 51.12."""
    gm = now({"a": 38.47, "z": 67.93}, ["a"], ["z"])["gm"]
    assert gm == pytest.approx(51.12, abs=0.005)


@given(st.lists(PERCENT, min_size=41, max_size=41), st.lists(PERCENT, min_size=22, max_size=22))
def test_the_benchmarks_weights_are_those_of_a_plain_mean(adaptation: list[float], held_out: list[float]) -> None:
    """It weighs mean accuracies and R@5 by how many datasets they stand for: (40 a + 1 r) / 41, (20 a + 2 r) / 22."""
    ka = (40 * reference.fmean(adaptation[:40]) + 1 * adaptation[40]) / 41
    zs = (20 * reference.fmean(held_out[:20]) + 2 * reference.fmean(held_out[20:])) / 22
    learned = {f"a{i}": value for i, value in enumerate(adaptation)}
    kept = {f"z{i}": value for i, value in enumerate(held_out)}
    further = {"a40/r1": 0.0, "z21/r1": 0.0}
    found = now(learned | kept | further, list(learned), list(kept))
    assert [found["ka"], found["zs"], found["gm"]] == pytest.approx([ka, zs, math.sqrt(ka * zs)])


def test_a_side_without_datasets_has_no_score() -> None:
    assert now({"a": 50.0}, ["a"], []) == {"ka": 50.0, "zs": None, "gm": None, "forgetting": None}


def test_gm_is_zero_where_a_side_is() -> None:
    assert now({"a": 0.0, "z": 80.0}, ["a"], ["z"])["gm"] == 0
    assert now({"a": 0.0, "z": 0.0}, ["a"], ["z"])["gm"] == 0


@pytest.mark.parametrize(("task", "expected"), [(0, None), (1, -15.0), (2, 15.0), (3, 20.0)])
def test_forgetting_is_the_best_so_far_less_what_is_left(task: int, expected: float | None) -> None:
    """Of what the base knew, too; held-out data does not count; another best counts for each dataset."""
    a, b = [20.0, 50.0, 40.0, 50.0], [40.0, 40.0, 20.0, 0.0]
    accuracies = [{"a": a[t], "b": b[t], "z": 100.0 - 30 * t} for t in range(4)]
    history = AccuracyHistory(accuracies, ["a", "b"], ["z"])
    assert scores(history.until(task))["forgetting"] == expected


@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=2, max_size=6))
def test_nothing_is_forgotten_exactly_where_every_dataset_is_at_its_best(course: list[tuple[float, float]]) -> None:
    history = AccuracyHistory([{"a": a, "b": b} for a, b in course], ["a", "b"], [])
    worse = [max(values[:-1]) - values[-1] for values in zip(*course, strict=True)]
    found = scores(history)["forgetting"]
    assert found == pytest.approx(sum(worse) / 2)
    assert METRICS["forgetting"].loss(found) < METRICS["forgetting"].loss((found or 0) + 1)


def test_what_is_not_defined_is_worse_than_anything() -> None:
    for metric in METRICS.values():
        assert metric.loss(None) > max(metric.loss(-1000.0), metric.loss(1000.0))


def spread(history: AccuracyHistory) -> float:
    """Between the best and the worst dataset."""
    values = [history.accuracies[-1][name] for name in history.adaptation]
    return max(values) - min(values)


SPREAD = Metric(name="spread", title="spread", unit="points", higher_is_better=False, compute=spread)


def test_a_registered_metric_is_computed_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "spread", SPREAD)  # put back when this test ends
    del METRICS["spread"]
    before = metrics_version()
    register(SPREAD)
    assert now({"a": 10.0, "b": 30.0}, ["a", "b"], [])["spread"] == 20.0
    assert metric_named("spread") is SPREAD
    added = metrics_version()
    METRICS["spread"] = replace(SPREAD, version=2)
    assert len({before, added, metrics_version()}) == 3


@pytest.mark.parametrize("taken", [{"name": "ka"}, {"title": "KA"}])
def test_a_name_is_registered_once(taken: dict[str, str]) -> None:
    with pytest.raises(UserError, match="the name or title is taken; give it another"):
        register(replace(SPREAD, **taken))
    assert "spread" not in METRICS


def test_a_metric_that_is_none() -> None:
    with pytest.raises(UserError, match=r"no such metric 'forgeting'; did you mean 'forgetting'\?"):
        metric_named("forgeting")
    with pytest.raises(UserError, match="no such metric 'x'; known: ka, zs, gm, forgetting"):
        metric_named("x")


# After task 0, 1, 2, 3: accuracy on the classes of each of three tasks
BY_TASK = [[10.0, 20.0, 30.0], [70.0, 24.0, 33.0], [60.0, 80.0, 36.0], [40.0, 90.0, 50.0]]


def on_tasks(after: int) -> Mapping[str, float | None]:
    history = AccuracyHistory([{"a": 0.0}] * 4, ["a"], [], BY_TASK)
    return scores(history.until(after))


@pytest.mark.parametrize(
    ("after", "acc", "bwt", "fwt"),
    [
        (0, None, None, None),
        (1, 70.0, None, None),
        (2, 70.0, -10.0, 4.0),
        (3, 60.0, (-30 + 10) / 2, (4 + 6) / 2),
    ],
)
def test_transfer_is_between_tasks(after: int, acc: float | None, bwt: float | None, fwt: float | None) -> None:
    """Backward: what later tasks did to a task; forward: what earlier tasks did for it."""
    found = on_tasks(after)
    assert [found["acc"], found["bwt"], found["fwt"]] == [acc, bwt, fwt]


def test_a_task_without_test_images_does_not_count() -> None:
    by_task = [[10.0, math.nan], [70.0, math.nan], [50.0, math.nan]]
    found = scores(AccuracyHistory([{"a": 0.0}] * 3, ["a"], [], by_task))
    assert (found["acc"], found["bwt"], found["fwt"]) == (50.0, -20.0, None)


def test_what_is_not_known_of_tasks_is_none() -> None:
    found = scores(AccuracyHistory([{"a": 0.0}] * 3, ["a"], [], [None, [1.0, 2.0], None]))
    assert (found["acc"], found["bwt"], found["fwt"]) == (None, None, None)
