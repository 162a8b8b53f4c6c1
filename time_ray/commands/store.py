"""`time-ray store`: what lies on a storage, whether it is whole, and what of it is not needed."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from time_ray.commands.options import Form, talk
from time_ray.core.errors import UserError
from time_ray.core.quantities import size as quantity
from time_ray.report import tables

if TYPE_CHECKING:
    from time_ray.opened import Opened

app = typer.Typer(help="Look after a storage: a root, or that of an experiment.", no_args_is_help=True)

LINE_SECONDS = 2.0
Where = Annotated[str, typer.Argument(metavar="EXP_OR_ROOT", help="Experiment file (YAML), or a storage root.")]


@app.command()
def ls(where: Where, form: Form = "table") -> None:
    """Count what lies there, by kind: keys, files, bytes, and what nothing needs."""
    from time_ray import api

    tables.print_rows(api.store_list(where), form)


@app.command()
def show(
    where: Where,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The beginning of a key.")],
    form: Form = "table",
) -> None:
    """Print all that is known of a key: how it was made, from what, its weights, scores and step checkpoints."""
    from time_ray import api

    found = api.store_show(where, key)
    if form == "table":
        from time_ray.config import dumped

        print(dumped(found), end="")
    else:
        tables.print_mapping(found, form)


@app.command()
def verify(where: Where, form: Form = "table") -> None:
    """Read everything and compare it with its digests. What is damaged is set aside; the next sweep makes it again."""
    from time_ray import api

    started = said = time.monotonic()
    kinds: dict[str, dict[str, object]] = {}
    files, size, damaged = 0, 0, 0
    for checked in api.store_verify(where):
        row = kinds.setdefault(checked.kind, {"kind": checked.kind, "files": 0, "bytes": 0, "damaged": 0})
        for name, amount in (("files", 1), ("bytes", checked.size), ("damaged", int(checked.fault is not None))):
            row[name] = int(str(row[name])) + amount
        files, size, damaged = files + 1, size + checked.size, damaged + (checked.fault is not None)
        if checked.fault:
            talk.print(f"{checked.path}: {checked.fault}; set aside")
        if time.monotonic() - said > LINE_SECONDS:
            said = time.monotonic()
            talk.print(f"{files} files, {quantity(size)}, {quantity(size / (said - started))}/s")
    tables.print_rows(list(kinds.values()), form)
    seconds = time.monotonic() - started
    talk.print(f"{files} files, {quantity(size)} in {seconds:.1f} s: {quantity(size / seconds)}/s")
    if api.store_unchecked(where):
        talk.print("the storage is signed; signatures are not checked without TIME_RAY_STORE_KEY")
    if damaged:
        talk.print(f"{damaged} damaged: set aside; the next sweep makes again what it needs of them")
        raise typer.Exit(1)


@app.command()
def sign(where: Where) -> None:
    """Sign all entries with TIME_RAY_STORE_KEY, once: from then on, who has the key trusts only what it has signed."""
    from time_ray import api

    signed, left = 0, 0
    for entry in api.store_sign(where):
        if entry.fault is None:
            signed += 1
        else:
            left += 1
            talk.print(f"{entry.kind} {entry.key}: {entry.fault}; not signed")
    talk.print(f"{signed} entries signed; the storage is signed" if signed else "the storage is signed")
    if left:
        raise typer.Exit(1)


@app.command()
def why(
    where: Where,
    one: Annotated[str, typer.Argument(metavar="A", help="The beginning of a key.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The beginning of another key.")],
    form: Form = "table",
) -> None:
    """Say why two models are not the same: the first field in which their recipes differ, or those of their experts."""
    from time_ray import api

    found = api.store_why(where, one, other)
    if found is None:
        talk.print("the same recipe")
    else:
        tables.print_rows([{"field": found.field, one: found.one, other: found.other}], form)


@app.command()
def gc(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="EXP_OR_ROOT [KEY=VALUE]...",
            help="Experiment files with their overrides: what they can reach is kept. Or one root: only garbage goes.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    young: Annotated[
        bool, typer.Option("--all", help="Also files of the last hour, which a writer may still be at.")
    ] = False,
    form: Form = "table",
) -> None:
    """Remove what nothing needs: what no listed experiment can reach, half-written files, payloads without an entry."""
    from time_ray import api

    reasons: dict[tuple[str, str], dict[str, object]] = {}
    size = 0
    for item in api.store_gc(_where(words), young=young, dry=dry_run):
        kind = item.path.partition("/")[0]
        row = reasons.setdefault((kind, item.why), {"kind": kind, "why": item.why, "files": 0, "bytes": 0})
        row["files"], row["bytes"] = int(str(row["files"])) + 1, int(str(row["bytes"])) + item.size
        size += item.size
    if reasons or form != "table":
        tables.print_rows(list(reasons.values()), form)
    talk.print(f"{size} bytes {'would be freed' if dry_run else 'freed'}")


def _where(words: Sequence[str]) -> "str | list[Opened]":
    """A storage root, or the experiments that the words name, each followed by its overrides."""
    from time_ray import api

    experiments = _with_overrides(words)
    if [path for path, _ in experiments if not path.endswith((".yaml", ".yml"))]:
        if len(experiments) > 1:
            raise UserError("gc: name experiment files (YAML) of one storage, or one storage root alone")
        return words[0]
    return [api.open_experiment(path, overrides) for path, overrides in experiments]


def _with_overrides(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" in word and found and not Path(word).exists() and "://" not in word:
            found[-1][1].append(word)
        else:
            found.append((word, []))
    return found
