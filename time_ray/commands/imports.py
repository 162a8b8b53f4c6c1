"""`time-ray data import`: datasets of other forms become time_ray's own."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from time_ray.commands.options import talk
from time_ray.core.errors import UserError

app = typer.Typer(help="Turn datasets of other forms into time_ray's own; again: resume.", no_args_is_help=True)

Output = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)]
Strict = Annotated[bool, typer.Option("--strict", help="Leave nothing out: name every bad sample, and stop.")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes; default: one a CPU.", show_default=False)]


@app.command()
def fomo(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder with data/NAME/... or data/NAME.tar.")],
    info: Annotated[Path, typer.Argument(metavar="INFO_DIR", help="The benchmark's metadata, data_lib/00_info.")],
    output: Output,
    dataset: Annotated[list[str], typer.Option("--dataset", help="Handle or folder name, or all; repeatable.")],
    strict: Strict = False,
    jobs: Jobs = None,
) -> None:
    """Import datasets of FoMo-in-Flux, each into a folder named by its handle."""
    from time_ray.data.importers.fomo import entries, import_fomo

    failed: list[str] = []
    for entry in entries(dataset):
        try:
            work = partial(import_fomo, root, info=info, dataset=entry.handle)
            _imported(entry.handle, work, output / entry.handle, strict, jobs)
        except UserError as error:
            failed += error.faults
    UserError.unless_none(failed)


@app.command()
def imagefolder(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="ROOT/{train,test}/CLASS/IMAGE or ROOT/CLASS/IMAGE.")],
    output: Output,
    strict: Strict = False,
    jobs: Jobs = None,
) -> None:
    """Import a folder of images with one folder for each class."""
    from time_ray.data.importers.imagefolder import import_imagefolder

    _imported(root.name, partial(import_imagefolder, root), output, strict, jobs)


@app.command()
def webdataset(
    shards: Annotated[
        str, typer.Argument(metavar="SHARDS", help="Folder of tars, or as in 'pool/{00000..00010}.tar'.")
    ],
    output: Output,
    strict: Strict = False,
    jobs: Jobs = None,
) -> None:
    """Import webdataset shards (images with .txt or .json captions) as a pretraining pool."""
    from time_ray.data.importers.webdataset import import_webdataset

    _imported(shards, partial(import_webdataset, shards), output, strict, jobs)


@app.command()
def parquet(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", help="Folder of Parquet files with image, label, caption(s).")
    ],
    output: Output,
    strict: Strict = False,
    jobs: Jobs = None,
) -> None:
    """Import Parquet files, as saved from the Hugging Face hub."""
    from time_ray.data.importers.parquet import import_parquet

    _imported(root.name, partial(import_parquet, root), output, strict, jobs)


def _imported(name: str, work: Callable[..., object], output: Path, strict: bool, jobs: int | None) -> None:
    """The dataset is in the output folder, whose path is on stdout; stderr says what it is and what was left out."""
    from time_ray.data.dataset import Dataset
    from time_ray.data.importers.sample_faults import REPORT, read_report
    from time_ray.report.import_progress import summary, watched

    with watched(name, talk) as progress:
        work(output, strict=strict, jobs=jobs or len(os.sched_getaffinity(0)), progress=progress)
    card = Dataset.open(output).card
    held = ", ".join(f"{info.rows:,} {split}" for split, info in card.splits.items())
    talk.print(f"{card.name}: {held}; {len(card.classes)} classes; {card.kind}")
    faults = read_report(output)
    for line in summary(faults):
        talk.print(f"  {line}")
    if faults:
        talk.print(f"  {output / REPORT} names each")
    print(output)
