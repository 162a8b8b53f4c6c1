"""The same rows for people, programs and spreadsheets."""

import csv
import io
import json

import pytest
from rich.console import Console
from rich.text import Text

from time_ray.report import tables
from time_ray.report.axes import with_short_techniques

ROWS = [{"init": "ema", "gm": 12.345, "done": True, "sd": None}, {"init": "a,b", "gm": 1.0, "done": False, "sd": 2.0}]


def test_json_keeps_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_rows(ROWS, "json")
    assert json.loads(capsys.readouterr().out) == ROWS


def test_csv_quotes_what_it_must(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_rows(ROWS, "csv", columns=["init", "sd"])
    out = capsys.readouterr().out
    assert list(csv.DictReader(io.StringIO(out))) == [{"init": "ema", "sd": ""}, {"init": "a,b", "sd": "2.0"}]


def test_a_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_rows(ROWS, "table")
    out = capsys.readouterr().out
    assert "12.35" in out or "12.34" in out
    assert "–" in out
    assert "yes" in out


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_no_rows_are_no_error(capsys: pytest.CaptureFixture[str], form: tables.Format) -> None:
    tables.print_rows([], form)
    assert capsys.readouterr().err == ""


def test_nested_values_have_dotted_names() -> None:
    assert tables.flat({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == [("a.b", 1), ("a.c.d", 2), ("e", 3)]


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        tables.print_rows([{"gm": float("nan")}], "json")


@pytest.mark.parametrize(
    ("width", "head", "left_out"),
    [
        (60, ["init", "technique", "KA", "GM", "forgetting"], []),
        (42, ["init", "technique", "KA", "GM", "forgetting"], []),
        (36, ["init", "technique", "KA", "GM"], ["forgetting"]),
        (26, ["init", "technique", "KA"], ["GM", "forgetting"]),
    ],
)
def test_a_narrow_terminal_has_the_same_rows_in_fewer_letters_and_columns(
    width: int, head: list[str], left_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr(tables, "_console", lambda: console)
    row = {"init": "zs", "technique": "ties(keep=0.5)", "KA": 1.0, "GM": 2.0, "forgetting": 3.0}
    found = tables.print_rows([row], "table", short=with_short_techniques([row]), optional=["GM", "forgetting"])
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert list(found) == left_out
    assert Text.from_ansi(lines[1]).plain.split() == head
    assert ("ties(keep=0.5)" in lines[3]) == (width == 60)
    assert len(lines) == 5


def test_a_technique_is_its_name_where_that_tells_it_apart() -> None:
    labels = ["ties(keep=0.5)", "ties(keep=0.2)", "dare(drop=0.7)", "average", "dare(drop=0.7)"]
    short = [row["technique"] for row in with_short_techniques([{"technique": label} for label in labels])]
    assert short == ["ties(keep=0.5)", "ties(keep=0.2)", "dare", "average", "dare"]


def test_bytes_are_in_units_of_people_in_a_table_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"kind": "weights", "bytes": 12_345_678}]
    tables.print_rows(rows, "table")
    assert "12.3 MB" in capsys.readouterr().out
    tables.print_rows(rows, "json")
    assert json.loads(capsys.readouterr().out) == rows
