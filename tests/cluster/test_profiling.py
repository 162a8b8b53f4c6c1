"""A profiled sweep: traces of a few batches that a browser opens, and the same results."""

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from time_ray import api
from time_ray.cluster.profiling import TRACED, WARM_UP, Profiler
from time_ray.store.files import Files


def names(path: Path) -> list[str]:
    """Of all events of a trace."""
    found = json.loads(gzip.decompress(path.read_bytes()))
    return [str(event.get("name")) for event in found["traceEvents"]]


def batch(number: int) -> None:
    with torch.profiler.record_function(f"batch {number}"):
        torch.ones(3).sum()


@pytest.mark.parametrize(("batches", "seen"), [(2, range(2)), (20, range(WARM_UP, WARM_UP + TRACED)), (0, ())])
def test_batches_after_the_warm_up_are_traced(tmp_path: Path, batches: int, seen: range) -> None:
    said: list[str] = []
    profiler = Profiler(Files(str(tmp_path)), "profiles/one", "trial 7", said.append)
    for _ in range(2):  # only the first time
        with profiler.traced("training", "ViT-B/16") as next_batch:
            for number in range(batches):
                next_batch()
                batch(number)
    found = list(tmp_path.rglob("*.json.gz"))
    assert len(found) == min(batches, 1)
    for path in found:
        assert path.name.startswith("training-ViT-B-16-trial-7-")
        assert [name for name in names(path) if name.startswith("batch ")] == [f"batch {number}" for number in seen]


def test_what_fails_leaves_no_trace_and_no_profile_going(tmp_path: Path) -> None:
    said: list[str] = []
    profiler = Profiler(Files(str(tmp_path)), "profiles/one", "trial 7", said.append)
    with suppress(KeyError), profiler.traced("training", "m") as next_batch:
        next_batch()
        raise KeyError
    with profiler.traced("evaluation", "m") as next_batch:
        next_batch()
        batch(1)
    assert [path.name.partition("-")[0] for path in tmp_path.rglob("*.json.gz")] == ["evaluation"]


def test_a_trace_that_cannot_be_kept_stops_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "profiles").write_text("a file is in the way")
    with Profiler(Files(str(tmp_path)), "profiles/one", "trial 7", said.append).traced("training", "m") as next_batch:
        next_batch()
    assert len(said) == 1
    assert "profiles/one/training-m-trial-7-" in said[0]


def test_a_profiled_sweep_says_where_its_traces_are(
    new_experiment: Callable[..., Path], tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    path = new_experiment(tmp_path, init="ft", deploy="ft", technique="average", stream={"tasks": 2})
    done = time_ray("sweep", path, "--profile")
    assert done.status == 0
    traces = sorted((tmp_path / "runs" / "profiles" / "tiny").glob("*/*.json.gz"))
    assert [trace.name.partition("-")[0] for trace in traces] == ["evaluation", "training"]
    assert f"profile: 2 traces in {traces[0].parent}; open one in https://ui.perfetto.dev" in done.err
    for trace in traces:
        assert any(name.startswith("aten::") for name in names(trace))
    assert "profiles" in {row["kind"] for row in api.store_list(path)}
    assert "profile: no trial trained" in time_ray("sweep", path, "--profile").err
