"""The description of a sweep's run, in Markdown: what was found, where to look, how to compare, how to repeat it."""

from collections.abc import Iterator, Sequence

from time_ray.analysis.ranking import Ranked, Ranking
from time_ray.analysis.tuning_verdict import tuning_lines
from time_ray.core.foreign import shown
from time_ray.core.metrics import METRICS, OF_THE_PAPER
from time_ray.results import spared_text
from time_ray.tracking.history import Started
from time_ray.tracking.pictures import FOLDER
from time_ray.tracking.runs import Run
from time_ray.tracking.verdict import Verdict
from time_ray.tracking.views import ALL, ANSWER, CELLS, address

_MOST_ROWS = 10
_MOST_REMOVED = 20
_SHOWN_ALWAYS = ("init", "deploy", "technique")


def description(sweep: Started, found: Verdict, experiment_id: str, run: Run) -> str:
    """The text.

    Args:
        sweep: as it was started.
        found: by its cells, as far as they are done.
        experiment_id: MLflow's.
        run: the sweep's.

    """
    done = sum(result.done for result in found.results)
    count = f"{done} of {len(found.results)} cells are done{spared_text(found.results)}."
    parts = [
        sweep.about,
        _verdict(found.ranked) if found.ranked else "",
        "" if done == len(found.results) else count,
        "\n".join(f"- {_plain(line)}" for line in (*found.search, *tuning_lines(found.gains))),
        _removed(found.ranked) if found.ranked else "",
        "\n".join(_table(found.ranked)) if found.ranked else "",
        _links(experiment_id, run),
        _again(sweep),
    ]
    return "\n\n".join(part for part in parts if part)


def _verdict(ranked: Ranking) -> str:
    leader = ranked.leader
    scores = ", ".join(_score(leader, name) for name in OF_THE_PAPER if leader.means[name] is not None)
    length = "" if leader.length == 1 else f", at length {leader.length:g}"
    first = f"**{_plain(leader.name)}** leads{length}: {scores}."
    if len(ranked.seeds) == 1:
        return f"{first} One seed supports no ranking: add seeds."
    others = len(ranked.tied) - 1
    rest = (
        "All others are told from it"
        if others < 1
        else f"{others} of {len(ranked.rows) - 1} others cannot be told from it"
    )
    return f"{first} {rest}, by {len(ranked.seeds)} seeds."


def _removed(ranked: Ranking) -> str:
    """What a search has removed; cells that serve the same models are one."""
    if not ranked.removed:
        return ""
    shown = ranked.removed[:_MOST_REMOVED]
    lines = [f"- {_plain(row.name)}: {_plain(row.removed.text)}" for row in shown if row.removed]
    more = [f"- {len(ranked.removed) - len(lines)} more"] if len(ranked.removed) > len(lines) else []
    return "\n".join([f"The search removed {len(ranked.removed)} cells:", "", *lines, *more])


def _score(row: Ranked, name: str) -> str:
    """Over all test images; with the sample deviation over seeds."""
    value, sd = row.means[name], row.sds[name]
    spread = "" if sd is None else f" ± {sd:.2f}"
    return f"{METRICS[name].title} {value:.2f}{spread}"


def _table(ranked: Ranking) -> Iterator[str]:
    rows = ranked.rows[:_MOST_ROWS]
    differ = [
        axis
        for axis in ranked.leader.contender.axes
        if axis in _SHOWN_ALWAYS or len({row.contender.axes[axis] for row in ranked.rows}) > 1
    ]
    names = [name for name in OF_THE_PAPER if ranked.leader.means[name] is not None]
    yield _row(["", *differ, *(METRICS[name].title for name in names), "may be best", "P(best)"])
    yield _row(["--:", *["---"] * len(differ), *["--:"] * len(names), "---", "--:"])
    for place, row in enumerate(rows, start=1):
        may = "?" if row.tied is None else "yes" if row.tied else "no"
        chance = "" if row.p_best is None else f"{row.p_best:.2f}"
        scores = [f"{row.means[name] or 0.0:.2f}" for name in names]
        yield _row([str(place), *(_plain(row.contender.axes[axis]) for axis in differ), *scores, may, chance])
    if len(ranked.rows) > len(rows):
        yield f"\n{len(ranked.rows) - len(rows)} more are not shown."


def _links(experiment_id: str, run: Run) -> str:
    views = ((ANSWER, "charts"), (CELLS, "table"), (ALL, "all runs"))
    links = [f"[{word}]({address(experiment_id, view)})" for view, word in views]
    links.append(
        f"[figures](#/experiments/{experiment_id}/runs/{run.id}/artifacts/{FOLDER}?workflowType=machine_learning)"
    )
    return (
        f"Look: {' · '.join(links)}\n\n"
        "Compare: tick runs in the table, then *Compare*. With intervals, paired by seed and image: "
        "`time-ray compare experiment.yaml A B`"
    )


def _again(sweep: Started) -> str:
    commit = sweep.versions.get("git_commit")
    made = f"time_ray {sweep.versions.get('time_ray', '?')}{f', commit {commit}' if commit else ''}"
    return (
        f"Make it again: `experiment.yaml` is among this run's artifacts ({made})\n\n    time-ray sweep experiment.yaml"
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Words that people chose, which mean nothing in Markdown."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!~" else letter for letter in shown(" ".join(text.split())))
