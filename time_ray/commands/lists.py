"""`time-ray list`: what an experiment or a command may name."""

from typing import Annotated

import typer

from time_ray.commands.options import Form, Plugins, technique_names
from time_ray.report import tables

app = typer.Typer(help="List what an experiment may name.", no_args_is_help=True)


@app.command()
def strategies(form: Form = "table", plugins: Plugins = None) -> None:
    """Strategies of the init and deploy axes: what they make of the experts so far, parameters."""
    from time_ray.plugins import load_plugins
    from time_ray.report.catalogue import strategy_rows

    load_plugins(plugins or ())
    tables.print_rows(strategy_rows(), form)


@app.command()
def techniques(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="One technique: all of it.", autocompletion=technique_names),
    ] = None,
    form: Form = "table",
    plugins: Plugins = None,
) -> None:
    """Merge techniques: rule and parameters; of one, or in other formats, also its state and its paper."""
    from time_ray.plugins import load_plugins
    from time_ray.report.catalogue import technique_row, technique_rows, technique_table

    load_plugins(plugins or ())
    if name is not None:
        tables.print_mapping(technique_row(name), form)
    else:
        tables.print_rows(technique_table() if form == "table" else technique_rows(), form)


@app.command()
def metrics(form: Form = "table", plugins: Plugins = None) -> None:
    """Metrics that cells are scored and ranked by."""
    from time_ray.plugins import load_plugins
    from time_ray.report.catalogue import metric_rows

    load_plugins(plugins or ())
    tables.print_rows(metric_rows(), form)


@app.command()
def models(form: Form = "table") -> None:
    """Models: sizes on the grid's size axis."""
    from time_ray.report.catalogue import model_rows

    tables.print_rows(model_rows(), form)


@app.command()
def datasets(form: Form = "table") -> None:
    """Datasets of the embedded mini world."""
    from time_ray.report.catalogue import dataset_rows

    tables.print_rows(dataset_rows(), form)
