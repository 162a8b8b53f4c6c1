"""Makes the pictures of the documentation: `python -m time_ray.tools.pictures EXP [KEY=VALUE]... -o FOLDER`."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from time_ray import api
from time_ray.core.errors import UserError
from time_ray.figures.plane import plane
from time_ray.figures.style import drawn
from time_ray.tools.pictures.loop_diagram import loop_diagram
from time_ray.tools.pictures.mlflow_page import photograph

FILES = {"loop": "loop.svg", "scores": "scores.svg", "mlflow": "mlflow.png"}


def make(experiment: str, overrides: Sequence[str], folder: Path, kinds: Sequence[str] = tuple(FILES)) -> None:
    """The pictures of these kinds are in the folder.

    Args:
        experiment: The file of an experiment that has been swept.
        overrides: Changes to the file, such as `storage=ROOT`.
        folder: Where they go.
        kinds: `loop` (the diagram), `scores` (ZS over KA), `mlflow` (the page that `time-ray ui` opens).

    Raises:
        UserError: No cell is finished, cells have no ZS, or the page could not be photographed.

    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = api.open_experiment(experiment, overrides)
    ranked = api.best(opened)
    title = f"{Path(experiment).name}: {len(ranked.rows)} different cells after {opened.num_tasks} tasks"
    scores = drawn(partial(plane, ranked, title), outlines=True)
    if scores is None:
        raise UserError(f"{opened.path}: without held-out data there is no ZS to plot; add data.evaluation")
    if "loop" in kinds:
        (folder / FILES["loop"]).write_bytes(drawn(loop_diagram, outlines=True))
    if "scores" in kinds:
        (folder / FILES["scores"]).write_bytes(scores)
    if "mlflow" in kinds:
        axes = ranked.leader.contender.axes
        photograph(experiment, overrides, f"{axes['init']}/{axes['deploy']}", folder / FILES["mlflow"])


def main() -> None:
    """Make the pictures that are asked for; what is wrong is one line each, and exit status 2."""
    parser = argparse.ArgumentParser(description="Make the pictures of the documentation from a finished sweep.")
    parser.add_argument("experiment", nargs="?", default="experiments/quickstart.yaml", help="experiment file (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to it, as in storage=ROOT")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the pictures go")
    parser.add_argument("--only", nargs="+", choices=tuple(FILES), default=tuple(FILES), help="make no others")
    given = parser.parse_args()
    try:
        make(given.experiment, given.overrides, given.output, given.only)
    except UserError as error:
        parser.exit(2, "".join(f"error: {fault}\n" for fault in error.faults))


if __name__ == "__main__":
    main()
