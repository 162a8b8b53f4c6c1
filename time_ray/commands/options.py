"""Arguments and options that commands share, and where they talk: stderr."""

from pathlib import Path
from typing import Annotated

import typer

from time_ray.core.criterion import Lengths, Over
from time_ray.report.console import SafeConsole
from time_ray.report.tables import Format


def metric_names() -> list[str]:
    """For shell completion."""
    from time_ray.core.metrics import METRICS

    return list(METRICS)


def technique_names() -> list[str]:
    """For shell completion."""
    from time_ray.merging import TECHNIQUES

    return list(TECHNIQUES)


Exp = Annotated[Path, typer.Argument(metavar="EXP", help="Experiment file (YAML).", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the file, as in seed=[0,1,2] or training.lr=1e-4."),
]
Sweep = Annotated[
    str,
    typer.Argument(metavar="SWEEP", help="Experiment file (YAML), or a sweep's name on TIME_RAY_STORAGE."),
]
ADDRESS_HELP = "Of the dashboard of a Ray cluster, as in http://HEAD:8265."
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"  # Ray's own
Address = Annotated[str | None, typer.Option("--address", metavar="URL", help=ADDRESS_HELP)]
Form = Annotated[Format, typer.Option("-f", "--format", help="How stdout is written.")]
Rank = Annotated[
    str,
    typer.Option(
        "--by", metavar="METRIC", help="Metric that ranks; see: time-ray list metrics.", autocompletion=metric_names
    ),
]
SELECTION_HELP = "Cells, by some of their axes: init=ema,deploy=ema,technique=ties."
OverTasks = Annotated[
    Over, typer.Option("--over", help="After the last task, mean over tasks, or area under the curve.")
]
Floor = Annotated[
    str | None, typer.Option("--floor", metavar="BOUND", help="What a cell must keep: 'zs>=40', 'zs>=0.95*base'.")
]
Epsilon = Annotated[
    float, typer.Option("--epsilon", min=0, help="Differences that do not matter, in the metric's unit.")
]
AtLengths = Annotated[
    Lengths, typer.Option("--lengths", help="Each cell at its best length where lengths were measured, or at 1.")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE.py", help="A file with techniques, strategies or metrics of your own."),
]

talk = SafeConsole(stderr=True, soft_wrap=True)
