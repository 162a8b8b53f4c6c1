"""Two sweeps that share cells, at once on one storage: a race costs time, and changes no byte."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from small import Small, at

from time_ray import api
from time_ray.api import Opened
from time_ray.store.files import Files


def called(opened: Opened, name: str) -> Opened:
    """The same cells as an experiment of another name."""
    experiment = opened.study.experiment.model_copy(update={"name": name})
    return replace(opened, study=replace(opened.study, experiment=experiment))


def test_both_end_in_the_bytes_of_one(small: Small, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    both = [at(small.opened, Files(str(storage))), at(called(small.opened, "other"), Files(str(storage)))]
    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(api.sweep, both))
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    assert small.same(storage)
