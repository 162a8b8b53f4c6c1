"""Room on a cluster is counted node by node."""

from collections.abc import Sequence
from typing import Any

import pytest

from time_ray.cluster.room import Node, Request, at_once, fit, requested, trained_on
from time_ray.core.errors import UserError
from time_ray.model_needs import Needs

ONE_CPU = {"CPU": 1.0}
EIGHT_GPUS = {"CPU": 32.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "request_", "count"),
    [
        ([ONE_CPU] * 3, Request.of(workers=1, CPU=1), 3),
        ([ONE_CPU] * 3, Request.of(workers=1, CPU=2), 0),  # three CPUs in all, but no node has two
        ([ONE_CPU] * 3, Request.of(workers=2, CPU=1), 1),  # a group may lie on several nodes
        ([EIGHT_GPUS, ONE_CPU], Request.of(workers=1, CPU=4, GPU=1), 8),
        ([EIGHT_GPUS], Request.of(workers=1, CPU=8, GPU=1), 4),
        ([{"CPU": 64, "GPU": 1.0}], Request.of(workers=1, CPU=1, GPU=0.1), 10),  # 1.0 // 0.1 is 9
        ([], Request.of(workers=1, CPU=1), 0),
    ],
)
def test_trials_at_once(nodes: list[dict[str, float]], request_: Request, count: int) -> None:
    assert at_once(nodes, {request_: 1000}) == count
    assert fit(nodes, {request_: count})
    assert not fit(nodes, {request_: count + 1})


def test_what_other_trials_hold_is_not_free() -> None:
    large, small = Request.of(workers=2, CPU=4, GPU=4), Request.of(workers=1, CPU=1, GPU=1)
    assert fit([EIGHT_GPUS], {small: 8})
    assert fit([EIGHT_GPUS, EIGHT_GPUS], {large: 1, small: 8})
    assert not fit([EIGHT_GPUS], {large: 1, small: 1})


def test_trials_of_several_kinds_at_once() -> None:
    large, small = Request.of(workers=2, CPU=4, GPU=1), Request.of(workers=1, CPU=1, GPU=1)
    assert at_once([EIGHT_GPUS], {large: 3, small: 10}) == 3 + 2
    assert at_once([EIGHT_GPUS], {large: 10, small: 10}) == 4
    assert at_once([EIGHT_GPUS], {large: 1, small: 1}) == 2


def needs(**changes: Any) -> Needs:
    one: dict[str, Any] = {"workers": 1, "gpus": None, "accelerator": None, "threads": 1, "loaders": 1}
    return Needs(**{**one, "accumulate": 1, "recompute": False, "compile": False, **changes})


def the_request(need: Needs, nodes: Sequence[Node]) -> Request:
    return requested({"toy": need}, nodes, can_grow=False)["toy"]


def test_a_gpu_is_taken_where_there_is_one() -> None:
    assert the_request(needs(threads=4), [ONE_CPU, EIGHT_GPUS]) == Request.of(workers=1, CPU=4, GPU=1)
    assert the_request(needs(threads=4), [{"CPU": 4.0}]) == Request.of(workers=1, CPU=4)
    assert the_request(needs(gpus=0), [EIGHT_GPUS]) == Request.of(workers=1, CPU=1)


def test_an_accelerator_is_found_on_the_nodes_that_have_it() -> None:
    l4, h100 = ({**EIGHT_GPUS, f"accelerator_type:{kind}": 1.0} for kind in ("L4", "H100"))
    request = the_request(needs(gpus=1, accelerator="H100"), [l4, h100])
    assert dict(request.worker) == {"CPU": 1, "GPU": 1, "accelerator_type:H100": 0.001}
    assert at_once([l4, h100, l4], {request: 100}) == 8
    with pytest.raises(UserError) as refused:
        the_request(needs(gpus=1, accelerator="A100", workers=2), [l4, h100])
    assert str(refused.value) == (
        "run: a trial of toy needs 2 times 1 CPU and 1 GPU (A100), the cluster has 32 CPU and 8 GPU (L4); 32 CPU and "
        "8 GPU (H100); lower run.workers, run.threads or run.gpus, or name another run.accelerator"
    )


def test_what_no_node_holds_is_refused_unless_the_cluster_grows() -> None:
    """Of all models at once."""
    by_model = {"a": needs(threads=2, workers=2), "b": needs(), "c": needs(threads=3), "d": needs(threads=3)}
    with pytest.raises(UserError) as refused:
        requested(by_model, [ONE_CPU] * 5, can_grow=False)
    there = "the cluster has 1 CPU and 0 GPU; 1 CPU and 0 GPU; 1 CPU and 0 GPU and 2 more nodes"
    what = "lower run.workers, run.threads or run.gpus, or name another run.accelerator"
    assert refused.value.faults == (
        f"run: a trial of a needs 2 times 2 CPU, {there}; {what}",
        f"run: a trial of c, d needs 3 CPU, {there}; {what}",
    )
    assert requested(by_model, [ONE_CPU] * 5, can_grow=True)["a"] == Request.of(workers=2, CPU=2)


@pytest.mark.parametrize(
    ("need", "nodes", "can_grow", "place"),
    [
        (needs(), [EIGHT_GPUS], False, "1 GPU"),
        (needs(workers=4), [EIGHT_GPUS], False, "4 GPUs"),
        (needs(gpus=0.5), [EIGHT_GPUS], False, "0.5 GPU"),
        (needs(gpus=1, accelerator="L4"), [ONE_CPU], True, "1 GPU of type L4"),
        (needs(gpus=0), [EIGHT_GPUS], False, "the CPU"),
        (needs(), [ONE_CPU], False, "the CPU, as no node has a GPU now"),
        (needs(), [ONE_CPU], True, "the CPU, as no node has a GPU now; run.gpus=1 waits for one that has"),
    ],
)
def test_on_what_a_model_is_trained_is_said(need: Needs, nodes: Sequence[Node], can_grow: bool, place: str) -> None:
    both = {"toy": need, "other": need}
    requests = requested(both, nodes, can_grow=can_grow)
    assert list(trained_on(both, requests, can_grow=can_grow)) == [f"toy, other: trained on {place}"]
