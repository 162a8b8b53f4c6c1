"""An experiment for another machine: it and what it names by a file, no more, and nothing that is only here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from time_ray import api
from time_ray.cluster.shipped import shipped
from time_ray.core.errors import UserError
from time_ray.data.mini.world import WORLD
from time_ray.plugins import forget

Make = Callable[..., Path]
RULE = """
from time_ray.merging import technique

@technique
def middle(base, experts):
    return base + sum(expert - base for expert in experts) / len(experts)
"""


def unpacked(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_the_same_cells_are_found_where_it_arrives(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a plugin, a stream file and overrides; the storage comes by the environment, and is in no file."""
    (tmp_path / "rule.py").write_text(RULE, encoding="utf-8")
    classes = list(reversed(WORLD["chess"].classes))
    (tmp_path / "order.json").write_text(json.dumps([f"chess+++{name}" for name in classes]), encoding="utf-8")
    path = new_experiment(tmp_path, plugins="rule.py", technique=["average", "middle"])
    overrides = (f"stream.file={tmp_path / 'order.json'}", "stream.tasks=2", "seed=[0,1]")
    here = api.open_experiment(path, overrides)
    found = shipped(path, overrides)
    assert sorted(found.files) == ["plugins/0/rule.py", "stream.json", "tiny.yaml"]
    assert found.command == "python -m time_ray sweep tiny.yaml"
    assert found.storage == str(tmp_path / "runs")
    assert not [name for name, text in found.files.items() if str(tmp_path) in text]
    there = tmp_path / "there"
    unpacked(found.files, there)
    monkeypatch.chdir(there)
    monkeypatch.setenv("TIME_RAY_STORAGE", found.storage)
    forget(str(tmp_path / "rule.py"))  # a technique has one file
    arrived = api.open_experiment("tiny.yaml")
    assert [cell.key for cell in arrived.study.cells] == [cell.key for cell in here.study.cells]
    forget(str(Path("plugins/0/rule.py").absolute()))


@pytest.mark.parametrize("storage", [None, "runs", "./runs", "~/runs"])
def test_a_storage_that_would_go_with_the_job_is_refused(new_experiment: Make, tmp_path: Path, storage: Any) -> None:
    path = new_experiment(tmp_path, storage=storage)
    with pytest.raises(UserError) as refused:
        shipped(path)
    (line,) = refused.value.faults
    assert line.startswith(f"storage: '{storage or 'runs'}' would lie in a Ray job's own folder")


def test_a_sweep_in_a_ray_job_refuses_such_a_storage_itself(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = api.open_experiment(new_experiment(tmp_path, storage="runs"))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "raysubmit_1"}}')
    with pytest.raises(UserError, match="would lie in a Ray job's own folder"):
        api.sweep(opened)
    assert not [file for file in (tmp_path / "runs").rglob("*") if "leases" in str(file)]


def test_all_that_stays_here_is_told_at_once(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.safetensors").touch()
    data = {"adaptation": ["mini:chess", "pictures"], "evaluation": ["/shared/cars"]}
    models = [{"name": "ViT-B-33"}, {"name": "ViT-B-32", "weights": "w.safetensors"}]
    with pytest.raises(UserError) as refused:
        shipped(new_experiment(tmp_path, data=data, model=models, experts="tuned", storage=None))
    unknown, data_line, experts, weights, storage = refused.value.faults
    assert "did you mean 'ViT-B-32'?" in unknown
    assert "data.adaptation: 'pictures' is a path from this folder, and stays on this machine" in data_line
    assert "experts: 'tuned' is a path from this folder" in experts
    assert "model.1.weights: 'w.safetensors' is a path from this folder" in weights
    assert storage.startswith("storage: 'runs'")
