"""Words of strangers are words in every output: they move no cursor, are no markup, no HTML, and no formula."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem
from rich.console import Console

from time_ray.core.foreign import shown, shown_line
from time_ray.data.dataset import CARD, Card, write_card
from time_ray.report import tables
from time_ray.report.console import SafeConsole
from time_ray.tracking import description

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\r\u202e\u2066"
MARKS = "[bold red]:warning:[/] <img src=x onerror=alert(1)> **b** [a](http://e) `c` | =1+1"
HOSTILE = ESCAPES + MARKS
SECRETS = {"AWS_SECRET_ACCESS_KEY": "hunter2-aws", "RAY_AUTH_TOKEN": "hunter2-ray", "HF_TOKEN": "hunter2-hub"}
IN_ADDRESS = "41.0625"  # SQLite takes it as a timeout
NAME = HOSTILE.replace("/", "")  # a dataset's
COMMAND = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Command = Callable[..., Any]


@pytest.mark.parametrize("text", ["héron cendré", "猫", "نمی‌دانم", "👩‍👩‍👧", "a\u00a0b", "two\nlines"])
def test_letters_are_shown_as_they_are(text: str) -> None:
    assert shown(text) == text


def test_what_is_no_letter_is_shown_as_its_escape() -> None:
    assert shown("a\x1b[2J\udc80") == "a\\x1b[2J\\udc80"
    assert shown_line("a\nb\tc") == "a\\nb\\tc"
    assert COMMAND.search(shown(HOSTILE)) is None


@pytest.mark.parametrize("terminal", [False, True])
def test_the_console_takes_no_word_for_a_command(terminal: bool) -> None:
    out = io.StringIO()
    console = SafeConsole(file=out, force_terminal=terminal, width=1000, color_system=None)
    console.print(HOSTILE)
    console.print(tables.table([{HOSTILE: HOSTILE}], title=HOSTILE))
    assert COMMAND.search(out.getvalue().replace("\x1b[3m", "").replace("\x1b[0m", "")) is None
    assert out.getvalue().count(MARKS) == 4


def test_a_plain_console_would() -> None:
    out = io.StringIO()
    Console(file=out, force_terminal=True).print(HOSTILE)
    assert COMMAND.search(out.getvalue())


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_spreadsheets_compute_no_name(start: str) -> None:
    text = tables.as_csv([{"name": f"{start}cmd|' /C calc'!A0", "gm": -1.5}])
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["name"].startswith("'")
    assert row["gm"] == "-1.5"


def test_names_are_no_markdown_and_no_html() -> None:
    text = tables.as_markdown([{"name": HOSTILE}])
    cell = text.splitlines()[2]
    assert not set(cell[2:-2]) & set("|<>[]`*\\!")
    assert len(text.splitlines()) == 3


@pytest.fixture
def hostile(new_experiment: Callable[..., Path], tmp_path: Path) -> Path:
    """An experiment on a dataset that a stranger has named, with classes, prompts and a note of theirs."""
    path = new_experiment(
        tmp_path,
        init=["zs"],
        deploy=["ft"],
        technique=["average"],
        stream={"tasks": 1},
        data={"adaptation": str(tmp_path / "strange"), "evaluation": "mini:textures"},
    )
    source = next(folder for folder in (tmp_path / "runs" / "data").rglob("chess") if (folder / CARD).is_file())
    (tmp_path / "strange").mkdir()
    for file in source.iterdir():
        (tmp_path / "strange" / file.name).symlink_to(file)
    card = Card.model_validate_json((source / CARD).read_text(encoding="utf-8"))
    changed = card.model_copy(
        update={"name": NAME, "classes": tuple(f"{NAME}{number}" for number, _ in enumerate(card.classes))}
    )
    (tmp_path / "strange" / CARD).unlink()
    write_card(str(tmp_path / "strange"), LocalFileSystem(), changed)
    return path


def test_every_output_of_a_hostile_experiment(
    hostile: Path, time_ray: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does any output, or any file that a sweep leaves, hold a secret of its environment."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db?timeout={IN_ADDRESS}")
    done = time_ray("sweep", hostile)
    assert done.status == 0, done.err
    said = [done.out, done.err]
    for words in (
        ("data", "inspect", tmp_path / "strange"),
        ("data", "inspect", tmp_path / "strange", "-f", "csv"),
        ("data", "inspect", tmp_path / "strange", "-f", "markdown"),
        ("data", "list", tmp_path),
        ("show", hostile),
        ("plan", hostile),
        ("status", hostile),
        ("best", hostile),
        ("best", hostile, "-f", "csv"),
        ("best", hostile, "-f", "markdown"),
        ("best", hostile, "-f", "json"),
        ("report", hostile, "-o", tmp_path / "page.html"),
        ("sync", hostile),
        ("store", "verify", hostile),
    ):
        done = time_ray(*words)
        assert done.status == 0, (words, done.err)
        said += [done.out, done.err]
    assert [text for text in said if COMMAND.search(text)] == []
    secrets = [secret.encode() for secret in (*SECRETS.values(), IN_ADDRESS)]
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in left} >= {"mlflow.db", "page.html", "experiment.yaml"}
    written = {str(path): path.read_bytes() for path in left} | {text: text.encode() for text in said}
    assert [where for where, data in written.items() if any(secret in data for secret in secrets)] == []
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert json.loads(time_ray("data", "inspect", tmp_path / "strange", "-f", "json").out)["name"] == NAME


def test_the_description_in_mlflow_has_no_markup_of_others() -> None:
    plain = description._plain(HOSTILE)
    assert COMMAND.search(plain) is None
    assert not re.search(r"(?<!\\)[`*_\[\]<>|!~]", plain)
