"""The page on extending works as it stands: its files are written, and its commands are typed."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pictures import picture
from safetensors.torch import save_file

from time_ray import plugins

PAGE = (Path(__file__).parent.parent / "time_ray/docs/extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page, in the current folder."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for path in list(plugins._LOADED):
        plugins.forget(path)


def test_the_page_has_an_example_of_each_kind() -> None:
    assert set(FILES) == {"my_rules.py", "drop_some.py", "burst.py", "worst.py", "small_clip.py", "pairs.py"}
    assert all(len([line for line in text.splitlines() if line]) <= 20 for text in FILES.values())
    assert len([line for line in FILES["my_rules.py"].splitlines() if line]) <= 12


@pytest.mark.parametrize("technique", ["my_rules.py:halfway", "drop_some.py:drop_some"])
def test_the_techniques_pass_the_suite(folder: Path, time_ray: Callable[..., Any], technique: str) -> None:
    done = time_ray("check-technique", technique, "-f", "json")
    assert [row for row in json.loads(done.out) if not row["passed"]] == []
    assert done.status == 0


def test_the_command_lines_of_the_technique_run(folder: Path, time_ray: Callable[..., Any]) -> None:
    for number, name in enumerate(("b", "e1", "e2")):
        save_file({"w": torch.full((3,), float(number))}, f"{name}.safetensors")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    for line in lines[:2]:
        assert time_ray(*shlex.split(line)[1:]).status == 0
    from safetensors.torch import load_file

    assert load_file("merged.safetensors")["w"].tolist() == [0.75] * 3


def test_the_experiment_and_the_metric_run(
    folder: Path, time_ray: Callable[..., Any], new_experiment: Callable[..., Path]
) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    tiny = yaml.safe_load(new_experiment(folder).read_text())
    whole = {**tiny, **yaml.safe_load(text), "data": tiny["data"], "budget": tiny["budget"]}
    whole["plugins"] = ["my_rules.py", "burst.py"]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(whole))
    assert time_ray("sweep", "experiment.yaml").status == 0
    overrides = "plugins=[my_rules.py, burst.py, worst.py]"
    rows = json.loads(time_ray("best", "experiment.yaml", overrides, "--by", "worst", "-f", "json").out)
    assert len(rows) == 8
    assert all(row["worst"] is not None for row in rows)


def test_the_model_is_planned_and_built(
    folder: Path, time_ray: Callable[..., Any], new_experiment: Callable[..., Path]
) -> None:
    from time_ray.clip.models import base_weights, create
    from time_ray.core.model import ModelSpec

    plugins.load_plugins([folder / "small_clip.py"])
    module = create(ModelSpec(name="small-clip")).module
    save_file(module.state_dict(), "small.safetensors")
    spec = ModelSpec(name="small-clip", weights="small.safetensors")
    assert base_weights(spec).keys() == module.state_dict().keys()
    path = new_experiment(folder)
    words = ["plugins=[small_clip.py]", "model={name: small-clip, weights: small.safetensors}"]
    assert json.loads(time_ray("plan", path, *words, "-f", "json").out)["cells"] > 0


def test_the_importer_runs_by_command_and_in_an_experiment(
    folder: Path, time_ray: Callable[..., Any], new_experiment: Callable[..., Path]
) -> None:
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(number))
    (folder / "photos.csv").write_text("".join(f"{number}.png,photo {number}\n" for number in range(3)))
    (line,) = re.findall(r"^`time-ray (data import .*?)`", PAGE, re.MULTILINE)
    done = time_ray(*shlex.split(line))
    assert (done.status, done.out) == (0, "photos\n")
    assert "photos: 3 train" in done.err
    path = new_experiment(folder, plugins="pairs.py", mixture={"pretraining": 0.5, "update": 0.5, "buffer": 0})
    words = ["data.pretraining=photos.csv", "-f", "json"]
    planned = time_ray("plan", path, *words)
    assert planned.status == 0, planned.err
    (folder / "0.png").unlink()
    again = time_ray("plan", path, *words)
    assert (again.status, again.err.count("0.png: no plain file")) == (2, 1)
