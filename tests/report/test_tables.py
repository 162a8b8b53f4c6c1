"""The same rows for people, programs and spreadsheets."""

import csv
import io
import json

import pytest

from time_ray.report import tables

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
