"""`time-ray doctor`: what it found, a line a fault, with its remedy."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console

from time_ray.core.finding import Finding
from time_ray.core.foreign import shown_line
from time_ray.report import tables
from time_ray.report.tables import Format


def print_findings(found: Sequence[Finding], form: Format, talk: Console) -> int:
    """Each fault is on stdout, as a line or a row; 1 if there is one, else 0."""
    if form == "table":
        for finding in found:
            print(shown_line(str(finding)))
    else:
        columns = ("check", "where", "fault", "remedy")
        tables.print_rows([asdict(finding) for finding in found], form, columns=columns)
    talk.print(f"{len(found)} found" if found else "nothing is wrong")
    return 1 if found else 0
