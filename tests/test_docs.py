import json
import re
import shlex
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.main import get_command

from time_ray import config
from time_ray.analysis.ranking import columns
from time_ray.cli import app
from time_ray.core.budget import Budget
from time_ray.core.experiment import Experiment, TechniqueSpec
from time_ray.core.strategies import STRATEGIES, Strategy
from time_ray.report.best import GAIN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MAP = (ROOT / "time_ray/README.md").read_text()
DOCS = ROOT / "time_ray/docs"
DOCUMENTS = sorted(
    path for pattern in ("*.md", ".github/*.md", "experiments/*.md", "time_ray/**/*.md") for path in ROOT.glob(pattern)
)
AS_TEXT = (Budget, TechniqueSpec)  # written as `30 steps`, and as a name with parameters


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a document in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


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
        for section in inner if name not in ("deploy", "by_model") else ():  # as init, as run
            if section is Strategy:
                yield f"{prefix}{name}.name", PydanticUndefined
            for kind in STRATEGIES.values() if section is Strategy else (section,):
                yield from keys(kind, f"{prefix}{name}.")


def shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, tuple):
        return f"`{default[0] if default else []}`"
    return f"`{default}`" if isinstance(default, dict) else {None: "`null`", "": "`''`"}.get(default, f"`{default}`")


def test_docs_name_every_key_of_an_experiment_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| (required|`[^|]*`) \|", page("experiment-file"), re.MULTILINE))
    assert rows == {key: shown(default) for key, default in keys(Experiment)}


@pytest.mark.parametrize(
    "command", ["pip install -e . && time-ray sweep experiments/quickstart.yaml", "pip install -e '.[test]' && pytest"]
)
def test_readme_and_ci_run_the_same_two_command_lines(command: str) -> None:
    assert f"```sh\n{command}\n```" in README
    assert f'typed "{command}"' in (ROOT / ".ci/run").read_text()


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 170


def test_docs_name_every_command_and_no_other() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"`time-ray (?:--\w+ )?([a-z][a-z-]*)\b", page("command-line")))
    assert named - {"--debug"} == commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_commands_in_documents_can_be_typed(document: Path) -> None:
    """Every `time-ray ...` line of a shell block has a command, and options, that exist."""
    for block in blocks(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if (place := line.partition("#")[0].find("time-ray ")) >= 0:
                check_typed(shlex.split(line[place:], comments=True)[1:])


def check_typed(words: list[str]) -> None:
    command: Any = get_command(app)
    while words and getattr(command, "commands", {}).get(words[0]):
        command, words = command.commands[words[0]], words[1:]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert not getattr(command, "commands", {}) or set(words) <= known, f"no such command: {words}"
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= {*known, "-h", "--help"}, f"{command.name}: {given - known}"


def test_the_plan_in_the_readme_is_the_plan(time_ray: Callable[..., Any], tmp_path: Path) -> None:
    (shown,) = re.findall(r"^\$ time-ray plan experiments/paper_grid.yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    done = time_ray("plan", ROOT / "experiments/paper_grid.yaml", f"storage={tmp_path}")

    def rows(text: str) -> list[list[str]]:
        return [line.split() for line in text.splitlines() if line.strip()]

    assert rows(shown) == rows(done.out)


@pytest.mark.parametrize("command", ["plan", "status", "budget"])
def test_docs_name_the_keys_that_programs_get(
    command: str, time_ray: Callable[..., Any], new_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    found = json.loads(time_ray(command, new_experiment(tmp_path), "-f", "json").out)
    (entry,) = re.findall(rf"^- `{command}`: .*(?:\n  .*)*", page("command-line"), re.MULTILINE)
    first = found[0] if isinstance(found, list) else found
    assert set(first) <= set(re.findall(r"`(\w+)`", entry))


def test_docs_name_every_column_of_best() -> None:
    (line,) = re.findall(r"^- `best`: .*(?:\n  .*)*", page("command-line"), re.MULTILINE)
    assert {*columns(), *GAIN} <= set(re.findall(r"`(\w+)`", line))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_experiments_in_documents_load(document: Path, tmp_path: Path) -> None:
    for text in blocks(document, "yaml"):
        if text.startswith("name:") and "plugins:" not in text:
            path = tmp_path / "experiment.yaml"
            path.write_text(text, encoding="utf-8")
            assert config.load(path)[0].init


def test_the_merging_example_runs() -> None:
    (code,) = [block for block in blocks(DOCS / "python.md", "python") if "merging.merge" in block]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the page's own words
    assert names["merged"]["w"].tolist() == [2.0, 2.0, 0.0, 0.5]
    assert names["served"]["w"][0].item() == pytest.approx(0.7 * 0.3 + 0.3 * 3)


@pytest.mark.parametrize("document", [ROOT / "README.md", DOCS / "python.md"], ids=str)
def test_the_sweep_from_python_runs(
    document: Path, new_experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example as it stands, but for the file that it opens."""
    path = new_experiment(tmp_path, init="ft", deploy=["ft", "all"])
    code = "\n".join(block for block in blocks(document, "python") if "api.sweep" in block)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("experiments/quickstart.yaml", str(path)), {})  # noqa: S102 - the page's own words


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        file = document.parent / target if target else document
        assert file.exists(), f"{document}: {target}"
        assert not anchor or anchor in anchors(file), f"{document}: {target}#{anchor}"


def anchors(document: Path) -> set[str]:
    """The headings of a document as links name them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_map_names_every_file_and_no_other() -> None:
    named = set()
    for folder, files in re.findall(r"^## `([\w/]+)/`\n(.*?)(?=^## |\Z)", MAP, re.MULTILINE | re.DOTALL):
        inside = "" if folder == "time_ray" else f"{folder}/"
        named |= {f"{inside}{name}" for name in re.findall(r"^- `(\w+\.py)` \S", files, re.MULTILINE)}
    package = ROOT / "time_ray"
    assert named == {p.relative_to(package).as_posix() for p in package.rglob("*.py") if p.name != "__init__.py"}
