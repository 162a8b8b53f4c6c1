"""Tables: the same rows for people (rich), for programs (JSON) and for spreadsheets (CSV)."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Literal

from rich import box
from rich.measure import Measurement
from rich.table import Table

from time_ray.core.foreign import shown_line
from time_ray.core.quantities import size
from time_ray.report.console import SafeConsole

Format = Literal["table", "json", "csv", "markdown"]
Row = Mapping[str, object]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARKDOWN = "|<>&[]`*\\!"
_UNBOUND = 10_000  # columns: wider than any table


def text(value: object) -> str:
    """A value as a cell of a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def print_rows(
    rows: Sequence[Row],
    form: Format,
    *,
    title: str = "",
    columns: Sequence[str] | None = None,
    short: Sequence[Row] = (),
    optional: Sequence[str] = (),
) -> Sequence[str]:
    """The rows are on stdout; nothing else is.

    Args:
        rows: by column.
        form: a table for people, or a form for programs.
        title: over a table.
        columns: those that are shown, in order; None: all.
        short: the same rows in fewer letters, for a terminal that is too narrow for them.
        optional: columns that it leaves out if that is not enough, the last ones first.

    Returns:
        What was left out.

    """
    left_out: Sequence[str] = ()
    if form == "json":
        print(json.dumps([dict(row) for row in rows], indent=2, allow_nan=False))
    elif form == "csv":
        print(as_csv(rows, columns), end="")
    elif form == "markdown":
        print(as_markdown(rows, columns), end="")
    else:
        console = _console()
        names = columns or (list(rows[0]) if rows else [])
        tighter = [(rows, 0), *((short or rows, count) for count in range(len(optional) + 1))]
        for number, (some, count) in enumerate([(rows, 0), *tighter]):
            left_out = optional[len(optional) - count :]
            kept = [name for name in names if name not in left_out]
            made = table(some, title=title, columns=kept, tight=number > 0)
            if Measurement.get(console, console.options.update_width(_UNBOUND), made).maximum <= console.width:
                break
        console.print(made)
    return left_out


def print_mapping(values: Row, form: Format, *, title: str = "") -> None:
    """One mapping is on stdout: nested for JSON, one dotted name a line otherwise."""
    if form == "json":
        print(json.dumps(values, indent=2, allow_nan=False))
    else:
        rows = [{"name": name, "value": value} for name, value in flat(values)]
        print_rows(rows, form, title=title, columns=("name", "value"))


def flat(values: Row, prefix: str = "") -> list[tuple[str, object]]:
    """Nested mappings as dotted names."""
    found: list[tuple[str, object]] = []
    for name, value in values.items():
        found += flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found


def as_csv(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV with a header; an empty cell is a missing value."""
    names = columns or (list(rows[0]) if rows else [])
    out = io.StringIO()
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _in_csv(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _in_csv(value: object) -> object:
    """Spreadsheets would compute words that begin as formulas do: such words begin with an apostrophe."""
    if not isinstance(value, str):
        return "" if value is None else value
    return f"'{shown_line(value)}" if value.startswith(_FORMULA) else shown_line(value)


def as_markdown(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """Rows as a table in Markdown, as on GitHub."""
    names = columns or (list(rows[0]) if rows else [])
    lines = [list(names), ["---"] * len(names), *([text(row.get(name)) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(map(_in_markdown, line))} |\n" for line in lines)


def _in_markdown(value: str) -> str:
    """Words that are neither Markdown nor HTML."""
    return "".join(f"&#{ord(letter)};" if letter in _MARKDOWN else letter for letter in shown_line(value))


def table(rows: Sequence[Row], *, title: str = "", columns: Sequence[str] | None = None, tight: bool = False) -> Table:
    """Rows as a table, numbers to the right."""
    padding = (0, 1, 0, 0) if tight else (0, 1)
    names = columns or (list(rows[0]) if rows else [])
    result = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=padding)
    for name in names:
        numeric = any(isinstance(row.get(name), (int, float)) and not isinstance(row.get(name), bool) for row in rows)
        result.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        result.add_row(*(_cell(name, row.get(name)) for name in names), style=str(row.get("style") or ""))
    return result


def _cell(name: str, value: object) -> str:
    """A value as people read it in a column of that name."""
    return size(value) if name.endswith("bytes") and isinstance(value, int) else text(value)


def _console() -> SafeConsole:
    console = SafeConsole()
    # piped output has no width of its own: nothing is folded there
    return console if console.is_terminal else SafeConsole(width=200)
