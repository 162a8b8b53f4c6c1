"""What the page says, gathered from results: nothing here is HTML, but for figures, which are SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from time_ray.analysis.axis_importance import AxisImportance
from time_ray.analysis.claim_rules import Verdict
from time_ray.analysis.costs import costs
from time_ray.analysis.ranking import Ranking
from time_ray.analysis.search_verdict import search_lines
from time_ray.analysis.tuning_gain import gains
from time_ray.core.metrics import METRICS
from time_ray.figures.chosen import chosen
from time_ray.figures.cost import cost_by_stage
from time_ray.figures.curves import sweep_over_lengths, sweep_over_tasks
from time_ray.figures.heat_map import heat_map
from time_ray.figures.numbers import over_numbers
from time_ray.figures.plane import plane
from time_ray.figures.shares import shares
from time_ray.opened import Opened
from time_ray.report.page.accuracies import Accuracies, accuracies
from time_ray.report.page.headline import Headline, headline
from time_ray.report.page.inline import Picture, inline
from time_ray.report.page.origin import Origin, origin
from time_ray.report.page.score_table import ScoreTable, score_table
from time_ray.report.page.tuned import Tuned, tuned
from time_ray.results import CellResult

MOST_UNFINISHED = 200


@dataclass(frozen=True, kw_only=True)
class Content:
    """Sections in the order of the page; what is None, or empty, is not there."""

    name: str
    about: str
    headline: Headline
    maps: dict[str, Picture]  # by title of the metric
    plane: Picture | None
    tasks: Picture | None
    lengths: Picture | None
    importance: Picture | None
    importance_says: Sequence[str]
    datasets: Sequence[Accuracies]
    tuned: Tuned | None
    numbers: Picture | None
    cost: Picture | None
    unfinished: "Unfinished"
    findings: Sequence[Verdict]
    table: ScoreTable
    origin: Origin


@dataclass(frozen=True)
class Unfinished:
    """Cells that are not done: how far each is, the first of them by name."""

    count: int
    shown: Sequence[tuple[str, str]]
    resume: str


def content(
    opened: Opened,
    results: Sequence[CellResult],
    ranked: Ranking,
    importance: AxisImportance | None,
    importance_says: Sequence[str],
    findings: Sequence[Verdict],
    command: str,
) -> Content:
    """The content of the page.

    Args:
        opened: The experiment.
        results: Of all its cells, finished or not.
        ranked: Their ranking, which may have no rows.
        importance: Of its axes; None where the grid is not finished, or has one cell.
        importance_says: What follows from it, in sentences.
        findings: Those of the paper, judged; none if their sweeps have not been run.
        command: What makes the page again.

    """
    experiment = opened.study.experiment
    spent = costs(results)
    metrics = dict.fromkeys((ranked.metric.name, "gm", "ka", "zs"))
    maps = {METRICS[name].title: inline(f"map-{name}", partial(heat_map, results, ranked, name)) for name in metrics}
    return Content(
        name=experiment.name,
        about=experiment.about,
        headline=headline(ranked, spent, search_lines(opened.study, opened.store)),
        maps={title: picture for title, picture in maps.items() if picture},
        plane=inline("plane", partial(plane, ranked)),
        tasks=inline("tasks", partial(sweep_over_tasks, ranked)),
        lengths=inline("lengths", partial(sweep_over_lengths, ranked)),
        importance=None if importance is None else inline("importance", partial(shares, importance)),
        importance_says=importance_says,
        datasets=[accuracies(one) for one in chosen(ranked) if len(one.results[0].rows) > 1],
        tuned=tuned(gains(opened.study, opened.store)),
        numbers=inline("numbers", partial(over_numbers, results, ranked, ranked.metric.name)),
        cost=inline("cost", partial(cost_by_stage, spent, ranked)),
        unfinished=_unfinished(results, opened),
        findings=findings,
        table=score_table(ranked, spent),
        origin=origin(opened, ranked, command),
    )


def _unfinished(results: Sequence[CellResult], opened: Opened) -> Unfinished:
    cells = [result for result in results if result.due]
    shown = [(result.cell.name, _how_far(result)) for result in cells[:MOST_UNFINISHED]]
    return Unfinished(len(cells), shown, f"time-ray sweep {opened.words}")


def _how_far(result: CellResult) -> str:
    tasks = len(result.cell.setting.trainings)
    done = max(0, len(result.rows) - 1)
    return f"{done} of {tasks} tasks" if done < tasks else "all tasks; its final weights or lengths are not there"
