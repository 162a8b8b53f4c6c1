"""`time-ray data`: commands on datasets."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from time_ray.commands import imports
from time_ray.commands.imports import Jobs
from time_ray.commands.options import Form, talk
from time_ray.core.errors import UserError
from time_ray.report import tables

app = typer.Typer(help="Import data, and look at it.", no_args_is_help=True)
app.add_typer(imports.app, name="import")

Reference = Annotated[
    str, typer.Argument(metavar="DATASET", help="Dataset folder, or one of the mini world: mini:flags.")
]


@app.command("list")
def list_(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Folder of dataset folders; none: the mini world.")
    ] = None,
    form: Form = "table",
) -> None:
    """List the datasets in a folder."""
    if folder is None:
        from time_ray.report.catalogue import dataset_rows

        tables.print_rows(dataset_rows(), form)
    else:
        from time_ray.report.datasets import rows_of_folder

        tables.print_rows(rows_of_folder(folder), form)


PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@app.command()
def inspect(dataset: Reference, form: Form = "table") -> None:
    """Print what a dataset is: kind, classes, prompts, splits, and what its import left out."""
    from time_ray.report.datasets import properties

    with _folder(dataset) as folder:
        tables.print_mapping(properties(folder), form)


@app.command()
def verify(dataset: Reference, jobs: Jobs = None, form: Form = "table") -> None:
    """Read a dataset again: every image is decoded, and the digest is made anew."""
    from time_ray.data.verify_dataset import verify as read_again
    from time_ray.report.import_progress import watched

    with _folder(dataset) as folder, watched(dataset, talk) as progress:
        start = time.perf_counter()
        found = read_again(folder, jobs=jobs or len(os.sched_getaffinity(0)), progress=progress)
        seconds = time.perf_counter() - start
    for fault in found.faults:
        talk.print(f"error: {fault}")
    read = {"images": found.images, "bytes": found.num_bytes}
    rates = {"images/s": round(found.images / seconds), "GB/s": round(found.num_bytes / seconds / 1e9, 3)}
    tables.print_mapping(read | rates | {"faults": len(found.faults)}, form)
    if found.faults:
        raise typer.Exit(1)


@app.command()
def sheet(
    dataset: Reference,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file to write.")] = Path("sheet.png"),
    rows: Annotated[int, typer.Option(min=1, help="Rows of images.")] = 6,
    split: Annotated[
        str | None, typer.Option(help="Split to show; default: the first one.", show_default=False)
    ] = None,
) -> None:
    """Write a contact sheet of a dataset: a PNG with captions."""
    if output.suffix.lower() not in PICTURES:
        raise UserError(f"--output {output}: no picture is named so; give a name that ends in .png")
    from time_ray.data.contact_sheet import contact_sheet
    from time_ray.data.dataset import Dataset

    with _folder(dataset) as folder:
        opened = Dataset.open(folder)
        contact_sheet(opened, split or next(iter(opened.card.splits)), rows, output)
    print(output)


@contextmanager
def _folder(reference: str) -> Iterator[Path]:
    """The folder of a dataset; one of the mini world is drawn for the occasion."""
    from time_ray.data import mini
    from time_ray.data.mini.world import WORLD

    start, _, name = reference.partition(":")
    if start != "mini" or not name:
        yield Path(reference)
        return
    known = (*WORLD, *mini.POOLS)
    if name not in known:
        raise UserError(
            f"'{reference}' is no dataset of the mini world; known: {', '.join(f'mini:{n}' for n in known)}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        mini.write(scratch, [name])
        yield Path(scratch, name)
