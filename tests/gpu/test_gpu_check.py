"""The script for GPUs, with sizes cut, on the CPU: what it runs is there, and it writes what it promises."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Run = Callable[..., int | str | None]
STARTS_PROCESSES = "groups_of_workers_agree"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The script in this process, and how it ends."""
    monkeypatch.syspath_prepend(Path(__file__).parent)

    def call(*words: str | Path) -> int | str | None:
        import check

        monkeypatch.setattr(sys, "argv", ["check.py", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            check.main()
        return ended.value.code

    return call


def test_on_a_cpu_all_of_it_runs_in_one_process(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import check

    monkeypatch.setattr(check, "CHECKS", tuple(one for one in check.CHECKS if one.__name__ != STARTS_PROCESSES))
    output = tmp_path / "found" / "cpu.json"
    assert run("--device", "cpu", "-o", output) == 0
    found = json.loads(output.read_text(encoding="utf-8"))
    outcomes = {name: one["outcome"] for name, one in found["checks"].items()}
    assert len(outcomes) == 10
    assert set(outcomes.values()) == {"ok", "skipped"}
    only_on_gpus = {"a step waits for nothing", "goes on after it was out of memory", "compiled blocks agree"}
    assert {name for name, outcome in outcomes.items() if outcome == "skipped"} == only_on_gpus
    assert all(rows for rows in found["measures"].values())
    assert {row["precision"] for row in found["measures"]["training"]} == {"fp32", "bf16"}
    assert all(row["ours ms"] > 0 and row["open_clip ms"] > 0 for row in found["measures"]["training"])
    events = json.loads(output.with_suffix(".trace.json").read_text(encoding="utf-8"))["traceEvents"]
    assert any(event.get("name") == "aten::scaled_dot_product_attention" for event in events)


@pytest.mark.nightly
def test_on_a_cpu_groups_of_workers_run(run: Run, tmp_path: Path) -> None:
    name = STARTS_PROCESSES.replace("_", " ")
    assert run("--device", "cpu", "--checks", "--only", name, "-o", tmp_path / "cpu.json") == 0
    found = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))["checks"]
    assert {each: one["outcome"] for each, one in found.items()} == {name: "ok"}


def test_without_a_gpu_it_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = "torch sees no GPU here; --device cpu runs the same checks on the CPU"
    assert run("-o", tmp_path / "x.json") == said


def test_what_fails_is_named_and_the_rest_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import check

    def broken(_: object) -> dict[str, float]:
        raise AssertionError("two is not three")

    def whole(_: object) -> dict[str, float]:
        return {"found": 1.0}

    monkeypatch.setattr(check, "CHECKS", (broken, whole))
    monkeypatch.setattr(check, "MEASURES", {})
    assert run("--device", "cpu", "-o", tmp_path / "x.json") == 1
    assert "broken: AssertionError: two is not three" in capsys.readouterr().out
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["checks"]
    assert [one["outcome"] for one in found.values()] == ["FAILED", "ok"]
