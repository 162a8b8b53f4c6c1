"""`time-ray data import`: datasets of other forms become time_ray's own, by a command for each importer."""

import os
from collections.abc import Callable
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from time_ray.commands.options import talk
from time_ray.core.errors import UserError
from time_ray.data.importers.registry import IMPORTERS, Importer, Option, named_where_it_fails

Output = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)]
Strict = Annotated[bool, typer.Option("--strict", help="Leave nothing out: name every bad sample, and stop.")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes; default: one a CPU.", show_default=False)]


class _Importers(TyperGroup):
    """The commands of this file, and of what was registered after it was read."""

    def list_commands(self, _ctx: Any) -> list[str]:
        _load_plugins()
        return list(IMPORTERS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in IMPORTERS and cmd_name not in self.commands:
            self.add_command(_command(IMPORTERS[cmd_name]))
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=_Importers, help="Turn datasets of other forms into time_ray's own; again: resume.", no_args_is_help=True
)


def _load_plugins(plugins: list[Path] | None = None) -> None:
    from time_ray.plugins import load_plugins

    load_plugins([path.absolute() for path in plugins or ()])


@app.callback()
def _importers(
    _plugins: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="FILE.py",
            help="A file with an importer of your own.",
            is_eager=True,  # its commands are known before one is looked up
            callback=_load_plugins,
        ),
    ] = None,
) -> None:
    """Nothing to do: see the option."""


def fomo(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help=IMPORTERS["fomo"].source)],
    info: Annotated[Path, typer.Argument(metavar="INFO_DIR", help="The benchmark's metadata, data_lib/00_info.")],
    output: Output,
    dataset: Annotated[list[str], typer.Option("--dataset", help="Handle or folder name, or all; repeatable.")],
    strict: Strict = False,
    jobs: Jobs = None,
) -> None:
    """See the registry: of many datasets at a time, so that it has a command of its own."""
    from time_ray.data.importers.fomo import entries

    failed: list[str] = []
    for entry in entries(dataset):
        try:
            work = partial(IMPORTERS["fomo"].load, str(root), info=info, dataset=entry.handle)
            _imported(entry.handle, work, output / entry.handle, strict, jobs)
        except UserError as error:
            failed += error.faults
    UserError.unless_none(failed)


def emoji(
    output: Output,
    packages: Annotated[
        Path | None,
        typer.Option("--packages", metavar="FOLDER", help="Files of npm's packages; without it, npm fetches them."),
    ] = None,
    by: Annotated[Literal["style", "year"], typer.Option("--by", help="What makes a dataset.")] = "style",
    size: Annotated[int, typer.Option("--size", min=1, help="Pixels a side.")] = 64,
    strict: Strict = False,
    jobs: Jobs = None,
) -> None:
    """See the registry: of all datasets, and from npm, so that it has a command of its own."""
    from time_ray.data.importers.emoji import LICENCES, PACKAGES, check_drawable, read_emoji
    from time_ray.data.importers.npm_packages import package_files

    check_drawable(size)
    with package_files(PACKAGES, packages) as folder:
        found = read_emoji(folder)
        for name in found.names(by):
            work = partial(IMPORTERS["emoji"].load, folder, dataset=name, size=size)
            _imported(name, work, output / name, strict, jobs)
    (output / LICENCES).write_text(found.licences, encoding="utf-8")


def _one_dataset(importer: Importer) -> Callable[..., None]:
    """The function of an importer's command: its source, its own options, and those that all have."""
    word = importer.argument.lower()

    def run(**given: Any) -> None:
        source: Path = given.pop(word)
        output, strict, jobs = given.pop("output"), given.pop("strict"), given.pop("jobs")
        name = source.name if source.is_dir() else str(source)
        with named_where_it_fails(importer, str(source)):
            _imported(name, partial(importer.load, str(source), **given), output, strict, jobs)

    parameters = [
        _parameter(word, Annotated[Path, typer.Argument(metavar=importer.argument, help=importer.source)]),
        _parameter("output", Output),
        *(_own(option) for option in importer.options),
        _parameter("strict", Strict, False),
        _parameter("jobs", Jobs, None),
    ]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined] # where typer looks
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _own(option: Option) -> Parameter:
    default = Parameter.empty if option.default is None else option.default
    return _parameter(option.name, Annotated[str, typer.Option(help=option.help)], default)


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _command(importer: Importer) -> Any:
    alone = typer.Typer(add_completion=False)
    alone.command(importer.name, help=importer.about)(_one_dataset(importer))
    return typer.main.get_command(alone)


_OF_MANY: dict[str, Callable[..., None]] = {"fomo": fomo, "emoji": emoji}  # these make many datasets

for _importer in IMPORTERS.values():
    app.command(_importer.name, help=_importer.about)(_OF_MANY.get(_importer.name) or _one_dataset(_importer))


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
