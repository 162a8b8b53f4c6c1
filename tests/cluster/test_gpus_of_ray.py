"""GPUs that Ray has and torch cannot use: trials are placed on them, and say at once what is wrong."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from time_ray import api
from time_ray.core.errors import UserError
from time_ray.events import CellFailed, Event, Note

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(180)]

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A private cluster of this machine counts two GPUs, which are not there."""
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2, "GPU": 2}')


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"workers": 1}, "1 GPU"),
        ({"workers": 1, "gpus": 0.5}, "0.5 GPU"),
        ({"workers": 2}, "2 GPUs"),
    ],
)
def test_without_cuda_in_torch_cells_fail_at_once(
    new_experiment: Make, tmp_path: Path, run: dict[str, Any], said: str
) -> None:
    opened = api.open_experiment(
        new_experiment(tmp_path, init="ft", deploy=["ft", "ema"], technique="average", run=run)
    )
    events: list[tuple[float, Event]] = []
    outcome = api.sweep(opened, lambda event: events.append((time.monotonic(), event)))
    assert outcome.exit_code == 1
    assert len(outcome.failures) == 2
    for failure in outcome.failures.values():
        assert "Ray gives a GPU, but torch" in failure.error
        assert failure.error.endswith("or set run.gpus=0")
    notes = [event.text for _, event in events if isinstance(event, Note)]
    assert f"mini-tiny: trained on {said}" in notes
    assert not [note for note in notes if "again" in note]
    failed = [at for at, event in events if isinstance(event, CellFailed)]
    told = next(at for at, event in events if isinstance(event, Note) and event.text.startswith("mini-tiny: trained"))
    assert max(failed) - told < 60
    print(f"{run}: told after {max(failed) - told:.1f} s, over after {events[-1][0] - told:.1f} s")


def test_more_gpus_than_there_are_are_refused_at_once(new_experiment: Make, tmp_path: Path) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, run={"workers": 4, "gpus": 1}))
    with pytest.raises(UserError) as refused:
        api.sweep(opened)
    (line,) = refused.value.faults
    assert line.startswith("run: a trial of mini-tiny needs 4 times 1 CPU and 1 GPU, the cluster has 2 CPU and 2 GPU; ")
