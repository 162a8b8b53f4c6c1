"""`time-ray check-technique`: what the conformance suite finds of a technique."""

from rich.console import Console

from time_ray.core.errors import UserError, unknown
from time_ray.merging import Technique
from time_ray.merging.conformance import run
from time_ray.merging.techniques import technique_named
from time_ray.plugins import load_installed, load_plugins, offered_by
from time_ray.report import tables
from time_ray.report.tables import Format


def print_checks(named: str, form: Format, talk: Console) -> int:
    """A row for every check is on stdout; 1 if the technique fails one, else 0.

    Raises:
        UserError: the plugin file cannot be loaded, or has no technique of that name.
        MergeError: there is no such technique.

    """
    technique = technique_from(named)
    with talk.status(f"checking {technique.name}"):
        results = list(run(technique))
    rows: list[dict[str, object]] = [
        {
            "check": result.check,
            "parameters": ", ".join(f"{name}={value}" for name, value in result.parameters.items()),
            "passed": result.passed,
            "reason": result.reason,
            "about": result.about,
        }
        for result in results
    ]
    if form == "table":
        tables.print_rows([_for_people(row) for row in rows], form, columns=("check", "parameters", "result"))
    else:
        tables.print_rows(rows, form)
    failed = sum(not result.passed for result in results)
    ended = f"{failed} of {len(results)} checks failed" if failed else f"all {len(results)} checks passed"
    talk.print(f"{technique.name}: {ended}")
    return 1 if failed else 0


def technique_from(named: str) -> Technique:
    """The technique that is written as its name, or as `my_rules.py:NAME`."""
    file, colon, name = named.rpartition(":")
    if not colon:
        load_installed()
        return technique_named(named)
    load_plugins([file])
    offered = offered_by(file, "technique")
    if name not in offered:
        raise UserError(f"{file}: {unknown('technique', name, offered)}")
    return technique_named(name)


def _for_people(row: dict[str, object]) -> dict[str, object]:
    result = "passed" if row["passed"] else f"FAILED: {str(row['about']).rstrip('.')}: {row['reason']}"
    return {**row, "result": result, "style": "" if row["passed"] else "red"}
