"""The page, written: results are read from the store, judged and drawn, and the file is whole or not there."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from time_ray.analysis.axis_importance import AxisImportance, axis_importance
from time_ray.analysis.claim_rules import Verdict
from time_ray.analysis.claims import judge
from time_ray.analysis.evidence import Evidence
from time_ray.analysis.halves import Halves
from time_ray.analysis.ranking import Ranking, ranking
from time_ray.analysis.searching import results_of
from time_ray.core.criterion import Criterion
from time_ray.core.errors import UserError
from time_ray.opened import Opened
from time_ray.report.importance import verdict
from time_ray.report.page.content import content
from time_ray.report.page.render import render
from time_ray.results import CellResult, unfinished
from time_ray.whole_files import replacing


def write_page(opened: Opened, criterion: Criterion, output: Path, command: str) -> None:
    """The page of all that the store has of an experiment is in the file. Nothing is trained, nor scored.

    Args:
        opened: The experiment.
        criterion: What ranks.
        output: The file.
        command: What makes the page again, for its readers.

    Raises:
        UserError: no cell has results, or keeps the floor; or the file cannot be written.

    """
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file, as in -o {output / 'report.html'}")
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"{output}: {output.parent} is no folder that can be written to; give another file with -o")
    results = results_of(opened.study, opened.store)
    if not any(result.rows for result in results):
        raise UserError(f"{opened.path}: no cell is finished; run: time-ray sweep {opened.words}")
    html = page(opened, results, criterion, command)
    try:
        with replacing(output) as draft:
            draft.write_bytes(html.encode("utf-8", errors="replace"))
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}); give another file with -o") from error


def page(opened: Opened, results: Sequence[CellResult], criterion: Criterion, command: str) -> str:
    """The page as HTML, from the results of all cells of the experiment."""
    halves = Halves(opened.store)
    ranked = ranking(results, halves, criterion)
    importance = _importance(opened, results, halves, ranked)
    says = [] if importance is None else verdict(importance)
    return render(content(opened, results, ranked, importance, says, _findings(opened, results, ranked), command))


def _importance(
    opened: Opened, results: Sequence[CellResult], halves: Halves, ranked: Ranking
) -> AxisImportance | None:
    """None where the grid is not finished, or no axis has several values."""
    with contextlib.suppress(UserError):
        return axis_importance(results, halves, ranked.criterion, to_finish=f"time-ray sweep {opened.words}")
    return None


def _findings(opened: Opened, results: Sequence[CellResult], ranked: Ranking) -> list[Verdict]:
    """Those of the paper, if all that they compare can be, and has been, swept."""
    if not ranked.rows or ranked.leader.mean_of("gm") is None or any(not result.done for result in results):
        return []
    evidence = Evidence(opened)
    with contextlib.suppress(UserError):
        if all(_is_swept(evidence.open(name)) for name in evidence.variants):
            return judge(evidence, ranked.criterion.epsilon)
    return []


def _is_swept(opened: Opened) -> bool:
    return not unfinished(opened.study.everything, opened.store)
