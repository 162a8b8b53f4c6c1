"""`time-ray findings`: the paper's findings, each with its verdict, and what would decide an open one."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from rich.console import Console

from time_ray.analysis.claim_rules import Verdict
from time_ray.report import tables
from time_ray.report.tables import Format

COLUMNS = ("claim", "says", *(field.name for field in fields(Verdict) if field.name not in ("claim", "says")))
_STYLES = {"held": "green", "not held": "red", "undecided": ""}


def print_verdicts(found: Sequence[Verdict], form: Format, talk: Console) -> None:
    """Verdicts are on stdout; what the numbers are, and what would decide, is on stderr for people."""
    if form in ("json", "csv"):
        rows = [asdict(one) | {"seeds": list(one.seeds)} for one in found]
        if form == "csv":
            rows = [row | {"seeds": " ".join(map(str, one.seeds))} for row, one in zip(rows, found, strict=True)]
        tables.print_rows(rows, form, columns=COLUMNS)
        return
    rows = [_shown(one) for one in found]
    tables.print_rows(rows, form, columns=[name for name in rows[0] if name != "style"])
    for one in found:
        for line in _lines(one):
            talk.print(line)


def _shown(one: Verdict) -> dict[str, object]:
    high = "∞" if one.high is None else f"{one.high:+.2f}"
    return {
        "": one.claim,
        "finding": one.says,
        "verdict": one.verdict,
        "effect": None if one.effect is None else f"{one.effect:+.2f}",
        "interval": None if one.low is None else f"{one.low:+.2f} … {high} ({100 * one.level:.4g} %)",
        "seeds": len(one.seeds),
        "style": _STYLES[one.verdict],
    }


def _lines(one: Verdict) -> list[str]:
    lines = []
    if one.of:
        lines.append(f"{one.claim}: {one.of}{f' ({one.detail})' if one.detail else ''}")
    elif one.detail:
        lines.append(f"{one.claim}: {one.detail}")
    if one.decide:
        lines.append(f"{one.claim} would be decided by: {one.decide}")
    return lines
