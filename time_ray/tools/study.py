"""Makes the page of the study: `python -m time_ray.tools.study EXP [KEY=VALUE]... [EXP ...] -o PAGE.md`.

The paper's findings on several worlds beside each other: what was swept, which claims hold, and what does not show.
Overrides belong to the experiment before them. Those after `--plan` are only planned, with all their variants.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from time_ray import api
from time_ray.analysis.claim_rules import Verdict
from time_ray.core.errors import UserError
from time_ray.figures.plane import plane
from time_ray.figures.style import drawn
from time_ray.opened import Opened
from time_ray.whole_files import replacing

PICTURES = "pictures"  # folder beside the page
NUM_BEST = 5
ELSEWHERE = ("storage=", "data.root=", "run.")  # overrides that no result depends on


class World(NamedTuple):
    """An experiment that was swept, its verdicts, and the best of its cells."""

    title: str
    opened: Opened
    verdicts: list[api.Verdict]
    ranked: api.Ranking


def make(swept: Sequence[Opened], planned: Sequence[Opened], page: Path) -> None:
    """The page is there, with a plot for each world beside it.

    Args:
        swept: Experiments with results; for all claims, of the variants too (`time-ray findings EXP --run`).
        planned: Experiments of which it is only said what they would take.
        page: A Markdown file; it is replaced.

    Raises:
        UserError: An experiment has no finished cell, or holds nothing out.

    """
    worlds = [World(_title(one), one, api.findings(one), api.best(one)) for one in swept]
    (page.parent / PICTURES).mkdir(parents=True, exist_ok=True)
    sections = [_head(worlds), _does_not_show(worlds)]
    for number, world in enumerate(worlds, 1):
        picture = f"{PICTURES}/study-{number}.svg"
        svg = drawn(partial(plane, world.ranked, world.title), outlines=True)
        if svg is not None:
            (page.parent / picture).write_bytes(svg)
        sections.append(_section(world, picture if svg is not None else None))
    if planned:
        sections.append(_plans(planned))
    with replacing(page) as draft:
        draft.write_text("\n\n".join("\n".join(lines) for lines in sections) + "\n", encoding="utf-8")


def _title(opened: Opened) -> str:
    """The file and its overrides, without those that say where things lie and how they are run."""
    return " ".join([Path(opened.path).name, *(one for one in opened.overrides if not one.startswith(ELSEWHERE))])


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(str(value).replace('|', '/') for value in row)} |"


def _head(worlds: Sequence[World]) -> list[str]:
    claims = list(zip(*(world.verdicts for world in worlds), strict=True))
    return [
        "# The study: the paper's findings on several worlds",
        "",
        "Made by `python -m time_ray.tools.study` from finished sweeps; [how claims are judged](findings.md).",
        "",
        *_table(
            ("", "finding", *(f"`{world.title}`" for world in worlds)),
            ((row[0].claim, row[0].says, *(one.verdict for one in row)) for row in claims),
        ),
    ]


def _does_not_show(worlds: Sequence[World]) -> list[str]:
    rows = [
        f"- {one.claim}, {one.verdict} in `{world.title}`: {one.says}."
        f" {_number(one) if one.verdict == 'not held' else _remedy(one, world.opened)}"
        for world in worlds
        for one in world.verdicts
        if one.verdict != "held"
    ]
    return ["## What does not show", "", *(rows or ["All claims hold."])]


def _number(one: Verdict) -> str:
    return one.detail if one.effect is None else f"{one.effect:+.2f} ({_interval(one)}): {one.of}"


def _remedy(one: Verdict, opened: Opened) -> str:
    return f"It would be decided by: {one.decide}".replace(opened.path, Path(opened.path).name)


def _interval(one: Verdict) -> str:
    if one.low is None:
        return "–"
    return f"{one.low:+.2f} … {'∞' if one.high is None else f'{one.high:+.2f}'}"


def _section(world: World, picture: str | None) -> list[str]:
    experiment = world.opened.study.experiment
    models = ", ".join(model.label for model in experiment.model)
    budgets = ", ".join(budget.label for budget in experiment.budget)
    title = f"{len(experiment.seed)} seeds, {world.opened.num_tasks} tasks, {budgets} a task, {models}"
    return [
        f"## `{world.title}`",
        "",
        f"{experiment.about} {title}.",
        *(
            ["", f"![Knowledge accumulation against zero-shot retention of {world.title}]({picture})"]
            if picture
            else []
        ),
        "",
        *_table(
            ("claim", "verdict", "effect", "interval", "what it is"),
            (
                (one.claim, one.verdict, "–" if one.effect is None else f"{one.effect:+.2f}", _interval(one), one.of)
                for one in world.verdicts
            ),
        ),
        "",
        f"The {NUM_BEST} cells that lead by GM at their best lengths and the baselines; scores are as served:",
        "",
        *_table(("cell", "KA", "ZS", "GM", "may be the best"), _best(world.ranked)),
    ]


def _best(ranked: api.Ranking) -> Iterator[tuple[object, ...]]:
    for place, row in enumerate(ranked.rows):
        if place < NUM_BEST or row.baseline:
            means = (f"{row.means[name]:.2f}" for name in ("ka", "zs", "gm"))
            yield row.name, *means, {True: "yes", False: "no", None: "–"}[row.tied]


def _plans(planned: Sequence[Opened]) -> list[str]:
    head = ("experiment", "variant", "cells", "trainings", "evaluations", "GPU hours to train and to evaluate")
    rows = [(f"`{_title(one)}`", *row) for one in planned for row in _planned(one)]
    said = "No result is claimed of these. Every variant is counted by itself; they share experts."
    return ["## Planned only", "", said, "", *_table(head, rows)]


def _planned(opened: Opened) -> Iterator[tuple[object, ...]]:
    for name, variant in api.findings_need(opened).items():
        plan = api.plan(variant)
        hours = plan.gpu_hours
        shown = f"{hours.training:.1f}, {hours.evaluation:.1f} at {hours.tflops:g} TFLOP/s" if hours else "–"
        yield name, plan.cells, plan.trainings.distinct, plan.evaluations.distinct, shown


def opened_all(words: Sequence[str]) -> list[Opened]:
    """Experiment files, each with the overrides that follow it. Raises UserError for all that is wrong with one."""
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" not in word:
            found.append((word, []))
        elif found:
            found[-1][1].append(word)
        else:
            raise UserError(f"'{word}': is before any experiment; write it after the file that it changes")
    return [api.open_experiment(path, overrides) for path, overrides in found]


def main() -> None:
    """Make the page; what is wrong is one line each, and exit status 2."""
    parser = argparse.ArgumentParser(description="Make the page of the study from finished sweeps.")
    parser.add_argument("swept", nargs="+", metavar="EXP [KEY=VALUE]...", help="experiments with results")
    parser.add_argument("--plan", nargs="+", default=(), metavar="EXP", help="experiments that are only planned")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PAGE.md")
    given = parser.parse_args()
    try:
        make(opened_all(given.swept), opened_all(given.plan), given.output)
    except UserError as error:
        parser.exit(2, "".join(f"error: {fault}\n" for fault in error.faults))


if __name__ == "__main__":
    main()
