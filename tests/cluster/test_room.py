"""Room on a cluster is counted node by node."""

import pytest

from time_ray.cluster.room import Request, at_once, fit, requested
from time_ray.core.errors import UserError
from time_ray.core.experiment import Run

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
    assert at_once(nodes, request_) == count
    assert fit(nodes, {request_: count})
    assert not fit(nodes, {request_: count + 1})


def test_what_other_trials_hold_is_not_free() -> None:
    large, small = Request.of(workers=2, CPU=4, GPU=4), Request.of(workers=1, CPU=1, GPU=1)
    assert fit([EIGHT_GPUS], {small: 8})
    assert fit([EIGHT_GPUS, EIGHT_GPUS], {large: 1, small: 8})
    assert not fit([EIGHT_GPUS], {large: 1, small: 1})


def test_a_gpu_is_taken_where_there_is_one() -> None:
    run = Run(threads=4)
    assert requested(run, [ONE_CPU, EIGHT_GPUS], can_grow=False) == Request.of(workers=1, CPU=4, GPU=1)
    assert requested(run, [{"CPU": 4.0}], can_grow=False) == Request.of(workers=1, CPU=4)
    assert requested(Run(gpus=0), [EIGHT_GPUS], can_grow=False) == Request.of(workers=1, CPU=1)


def test_what_no_node_holds_is_refused_unless_the_cluster_grows() -> None:
    run = Run(threads=2, workers=2)
    with pytest.raises(UserError) as refused:
        requested(run, [ONE_CPU] * 5, can_grow=False)
    assert str(refused.value) == (
        "run: a trial needs 2 times 2 CPU, the cluster has 1 CPU and 0 GPU; 1 CPU and 0 GPU; 1 CPU and 0 GPU and "
        "2 more nodes; lower run.workers, run.threads or run.gpus"
    )
    assert requested(run, [ONE_CPU] * 5, can_grow=True) == Request.of(workers=2, CPU=2)
