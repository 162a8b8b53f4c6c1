import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.main import get_command

from time_ray import config
from time_ray.cli import app
from time_ray.core.budget import Budget
from time_ray.core.experiment import Experiment, TechniqueSpec
from time_ray.core.strategies import STRATEGIES, Strategy
from time_ray.ranking import columns

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MAP = (ROOT / "time_ray/README.md").read_text()
AS_TEXT = (Budget, TechniqueSpec)  # written as `30 steps`, and as a name with parameters


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation) if get_origin(annotation) is not types.NoneType else ():
        yield from models_in(inner)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that an experiment file may have, with its default."""
    for name, field in model.model_fields.items():
        inner = [found for found in models_in(field.annotation) if found not in AS_TEXT]
        if not isinstance(field.default, BaseModel):
            yield prefix + name, field.default
        for section in inner if name != "deploy" else ():  # as init
            if section is Strategy:
                yield f"{prefix}{name}.name", PydanticUndefined
            for kind in STRATEGIES.values() if section is Strategy else (section,):
                yield from keys(kind, f"{prefix}{name}.")


def shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, tuple):
        return f"`{default[0] if default else []}`"
    return {None: "`null`", "": "`''`"}.get(default, f"`{default}`")


def test_readme_names_every_key_of_an_experiment_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| (required|`[^|]*`) \|", README, re.MULTILINE))
    assert rows == {key: shown(default) for key, default in keys(Experiment)}


@pytest.mark.parametrize(
    "command", ["pip install -e . && time-ray sweep experiments/quickstart.yaml", "pip install -e '.[test]' && pytest"]
)
def test_readme_and_ci_run_the_same_two_command_lines(command: str) -> None:
    assert f"```sh\n{command}\n```" in README
    assert f'typed "{command}"' in (ROOT / ".ci/run").read_text()


def test_readme_names_every_command_and_no_other() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"time-ray (?:--\w+ )?([a-z]+)\b", README))
    assert named == commands


def test_readme_names_every_column_of_best() -> None:
    (line,) = re.findall(r"^- `best`: .*(?:\n  .*)*", README, re.MULTILINE)
    assert set(columns()) <= set(re.findall(r"`(\w+)`", line))


def test_the_experiment_in_the_readme_loads(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "my_question.yaml"
    path.write_text(text)
    experiment, _ = config.load(path)
    assert experiment.init[2].weight == 0.3
    assert len(experiment.seed) == 3


def test_the_merging_example_in_the_readme_runs() -> None:
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "merging" in block]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the README's own words
    assert names["merged"]["w"].tolist() == [2.0, 2.0, 0.0, 0.5]
    assert names["served"]["w"][0].item() == pytest.approx(0.7 * 0.3 + 0.3 * 3)


def test_links_in_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / ".github/CONTRIBUTING.md", *(ROOT / "experiments").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"


def test_the_map_names_every_file_and_no_other() -> None:
    named = set()
    for folder, files in re.findall(r"^## `([\w/]+)/`\n(.*?)(?=^## |\Z)", MAP, re.MULTILINE | re.DOTALL):
        inside = "" if folder == "time_ray" else f"{folder}/"
        named |= {f"{inside}{name}" for name in re.findall(r"^- `(\w+\.py)` \S", files, re.MULTILINE)}
    package = ROOT / "time_ray"
    assert named == {p.relative_to(package).as_posix() for p in package.rglob("*.py") if p.name != "__init__.py"}
