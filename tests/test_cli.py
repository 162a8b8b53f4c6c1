"""The command line: verbs, help, formats; stdout is data and stderr is talk."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from time_ray import __version__
from time_ray.cli import app
from time_ray.clip.cost import Operations
from time_ray.core.strategies import STRATEGIES
from time_ray.merging import TECHNIQUES

GOLDEN = Path(__file__).parent / "golden" / "command_line.json"


def commands(command: Any, name: str = "time-ray") -> dict[str, Any]:
    """Every command with its options, defaults and help, however a version of the library draws them."""
    found: dict[str, Any] = {name: {"help": command.help, "params": [option(p) for p in command.params]}}
    for inner in getattr(command, "commands", {}).values():
        found |= commands(inner, f"{name} {inner.name}")
    return found


def option(parameter: Any) -> dict[str, Any]:
    return {
        "names": [*parameter.opts, *parameter.secondary_opts],
        "required": parameter.required,
        "default": None if parameter.default is None else str(parameter.default),
        "help": parameter.help,
    }


def test_the_command_line_is_what_it_was() -> None:
    """Names and defaults are a promise: a change here is a change for everybody's scripts."""
    found = commands(typer.main.get_command(app))
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    moved = sorted(name for name in {*stored, *found} if stored.get(name) != found.get(name))
    assert not moved, f"{moved} changed; if that is meant, remove {GOLDEN}, run this again, and read the diff"


@pytest.mark.parametrize("command", list(commands(typer.main.get_command(app))))
def test_every_command_has_help(time_ray: Callable[..., Any], command: str) -> None:
    done = time_ray(*command.split()[1:], "--help")
    assert (done.status, done.err) == (0, "")
    assert "Usage: " in done.out
    assert command in done.out


def test_the_version(time_ray: Callable[..., Any]) -> None:
    assert time_ray("--version") == (0, f"time-ray {__version__}\n", "")


@pytest.mark.parametrize("name", ["strategies", "techniques", "models", "datasets"])
def test_lists_speak_every_format(time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # counting those of large models takes seconds
    monkeypatch.setattr("time_ray.clip.cost.operations", lambda *_: Operations(1.0, 1.0, 6.0))
    table, as_json, as_csv = (time_ray("list", name, "-f", form) for form in ("table", "json", "csv"))
    assert table.status == as_json.status == as_csv.status == 0
    assert table.err == as_json.err == as_csv.err == ""
    rows = json.loads(as_json.out)
    assert len(list(csv.DictReader(io.StringIO(as_csv.out)))) == len(rows) > 2
    assert all(str(next(iter(row.values()))) in table.out for row in rows)


@pytest.mark.parametrize(("name", "table"), [("technique", TECHNIQUES), ("strategy", STRATEGIES)])
def test_every_row_of_a_table_is_listed(time_ray: Callable[..., Any], name: str, table: dict[str, Any]) -> None:
    plural = f"{name.removesuffix('y')}ies" if name.endswith("y") else f"{name}s"
    rows = json.loads(time_ray("list", plural, "-f", "json").out)
    assert [row[name] for row in rows] == list(table)


def test_an_error_nobody_foresaw_is_one_line_and_a_traceback_on_request(
    time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from time_ray import api

    def broken(*_: object) -> None:
        raise RuntimeError("out of\ncheese")

    monkeypatch.setattr(api, "show", broken)
    done = time_ray("show", "exp.yaml")
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: RuntimeError: out of cheese (time-ray --debug shows where; please report it)\n"
    monkeypatch.setenv("TIME_RAY_DEBUG", "")  # set again by --debug, and put back when this test ends
    debugged = time_ray("--debug", "show", "exp.yaml")
    assert debugged.status == 1
    assert debugged.err.startswith("Traceback")
    assert debugged.err.endswith(f"RuntimeError: out of\ncheese\n{done.err}")


def test_no_command_is_help(time_ray: Callable[..., Any]) -> None:
    done = time_ray()
    assert "sweep" in done.out + done.err
