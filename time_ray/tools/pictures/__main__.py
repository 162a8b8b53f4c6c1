"""Makes the pictures of the documentation: `python -m time_ray.tools.pictures EXP [KEY=VALUE]... -o FOLDER`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from time_ray import api
from time_ray.core.errors import UserError
from time_ray.tools.pictures.loop_diagram import loop_diagram
from time_ray.tools.pictures.mlflow_page import photograph
from time_ray.tools.pictures.scores_plot import Point, scores_plot
from time_ray.tools.pictures.svg import write_svg

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
    points, bases = finished(opened)
    if "loop" in kinds:
        write_svg(loop_diagram(), folder / FILES["loop"])
    if "scores" in kinds:
        title = f"{Path(experiment).name}: {len(points)} different cells after {opened.num_tasks} tasks"
        write_svg(scores_plot(points, bases, title), folder / FILES["scores"])
    if "mlflow" in kinds:
        shows = f"{points[0].init}/{points[0].deploy}"
        photograph(experiment, overrides, shows, folder / FILES["mlflow"])


def finished(opened: api.Opened) -> tuple[list[Point], list[tuple[float, float]]]:
    """The finished cells, best first, and KA and ZS of the bases that they began with."""
    ranked = api.best(opened).rows
    scored = [(row, row.means["ka"], row.means["zs"], row.means["gm"]) for row in ranked]
    points = [
        Point(row.contender.axes["init"], row.contender.axes["deploy"], row.contender.axes["technique"], ka, zs, gm)
        for row, ka, zs, gm in scored
        if ka is not None and zs is not None and gm is not None
    ]
    if not points:
        raise UserError(f"{opened.path}: without held-out data there is no ZS to plot; add data.evaluation")
    untrained = [result.rows[0].scores for row in ranked for result in row.results]
    pairs = [(scores["ka"], scores["zs"]) for scores in untrained]
    return points, [(ka, zs) for ka, zs in pairs if ka is not None and zs is not None]


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
