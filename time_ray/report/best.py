"""`time-ray best`, and the end of a sweep: the leader, what is not told from it, and how sure that is."""

from collections.abc import Sequence

from rich.console import Console

from time_ray.analysis.ranking import Ranked, Ranking, columns
from time_ray.analysis.tuning_gain import Gain
from time_ray.analysis.tuning_verdict import tuning_lines
from time_ray.core.metrics import METRICS, OF_THE_PAPER
from time_ray.core.statistics import deviation
from time_ray.report import tables
from time_ray.report.axes import shown_axes, with_short_techniques
from time_ray.report.tables import Format

MOST_ROWS = 12
MOST_REMOVED = 8
SURE = 95  # percent
GAIN = ("gain", "gain_low", "gain_high", "gain_by", "gain_over")


def print_ranking(
    ranked: Ranking,
    form: Format,
    talk: Console,
    *,
    words: str,
    everything: bool = False,
    gains: Sequence[Gain] = (),
) -> None:
    """The ranking is on stdout: for people the first rows, for programs all of them. What it says is on stderr.

    Args:
        ranked: The ranking.
        form: Of what is on stdout.
        talk: Where stderr is.
        words: The experiment and its overrides, as a command has them.
        everything: Whether people see all rows, too.
        gains: What searches for parameters have found.

    """
    if form in ("json", "csv"):
        rows = [row.as_row() | gain_of(row, gains) for row in (*ranked.rows, *ranked.removed, *ranked.baselines)]
        tables.print_rows(rows, form, columns=(*columns(), *GAIN))
    else:
        shown = ranked.rows if everything else ranked.rows[:MOST_ROWS]
        named = [row for row in ranked.rows if row.baseline and row not in shown]
        rows = table_rows(ranked, shown, [*named, *ranked.baselines])
        names = [name for name in rows[0] if name != "style"]
        tables.print_rows(rows, form, columns=names, short=with_short_techniques(rows))
        left = len(ranked.rows) - len(shown) - len(named)
        if left:
            talk.print(f"{left} more cells: --all", style="dim")
    _print_verdict(ranked, talk, words, everything=everything)
    for line in tuning_lines(gains):
        talk.print(line)


def gain_of(row: Ranked, gains: Sequence[Gain]) -> dict[str, object]:
    """What the parameters of a row have more than the defaults, if a search has found them."""
    keys = {result.cell.key for result in row.results}
    found = next((gain for gain in gains if keys.intersection(gain.cells)), None)
    if found is None:
        return dict.fromkeys(GAIN)
    return dict(zip(GAIN, (found.mean, found.low, found.high, found.by, found.over), strict=True))


def table_rows(ranked: Ranking, shown: Sequence[Ranked], baselines: Sequence[Ranked]) -> list[dict[str, object]]:
    """The ranking as people read it: numbers with ± sd over seeds."""
    axes = shown_axes([row.contender.axes for row in shown])
    named = {name: METRICS[name].title for name in (*OF_THE_PAPER, *_other(ranked))}
    moved = any(row.length != 1 for row in (*shown, *baselines))
    judged = any(row.tied is not None for row in shown)
    chance = any(row.p_best is not None for row in shown)

    value = f"{value_title(ranked)}{' *' if ranked.halves else ''}"
    folded = ranked.halves or moved or ranked.criterion.over != "end"

    def as_row(place: object, row: Ranked, style: str) -> dict[str, object]:
        return {
            "": place,
            **{name: row.contender.axes[name] for name in axes},
            **{title: spread(row.mean_of(name), row.sd_of(name)) for name, title in named.items()},
            **({"length": f"{row.length:g}"} if moved else {}),
            **({value: spread(row.value, deviation(row.by_seed))} if folded else {}),
            **({"to the best": interval(row)} if judged else {}),
            **({"P(best)": row.p_best} if chance else {}),
            " ": standing(ranked, row),
            "style": style,
        }

    rows = [as_row(number, row, "bold" if row is ranked.leader else "") for number, row in enumerate(shown, start=1)]
    return rows + [as_row(None, row, "dim") for row in baselines]


def spread(value: float | None, sd: float | None) -> str:
    """A mean with its standard deviation over seeds."""
    if value is None:
        return "–"
    return f"{value:.2f}" if sd is None else f"{value:.2f} ± {sd:.2f}"


def interval(row: Ranked) -> str | None:
    """Bounds of what a cell is better by than the best of the others."""
    return None if row.lower is None or row.upper is None else f"{row.lower:+.2f} … {row.upper:+.2f}"


def standing(ranked: Ranking, row: Ranked) -> str:
    """What is said of a row besides its numbers."""
    if row.removed is not None:
        return row.removed.text
    words = ["leader"] if row is ranked.leader else []
    if row.tied is not None and row is not ranked.leader:
        words.append("may be best" if row.tied else "")
    if row.practically_equal and row is not ranked.leader:
        words.append("as good")
    return ", ".join(filter(None, [*words, row.baseline]))


def value_title(ranked: Ranking) -> str:
    """The name of what ranks."""
    over = {"end": "", "mean": " (mean over tasks)", "area": " (area under the curve)"}[ranked.criterion.over]
    return f"{ranked.metric.title}{over}"


def _other(ranked: Ranking) -> list[str]:
    return [] if ranked.metric.name in OF_THE_PAPER else [ranked.metric.name]


def _print_removed(ranked: Ranking, talk: Console, *, most: int) -> None:
    """What a search has removed, and why."""
    for row in ranked.removed[:most]:
        why = row.removed.text if row.removed else ""
        talk.print(f"{row.name}: {ranked.metric.title} {spread(row.value, deviation(row.by_seed))}, {why}", style="dim")
    if len(ranked.removed) > most:
        talk.print(f"{len(ranked.removed) - most} more cells were removed: --all", style="dim")


def _print_verdict(ranked: Ranking, talk: Console, words: str, *, everything: bool) -> None:
    """What may be said of the best, in lines."""
    leader = ranked.leader
    axes = leader.contender.axes
    where = f"init {axes['init']}, deploy {axes['deploy']}, technique {axes['technique']}"
    if leader.length != 1:
        where += f", length {leader.length:g}"
    scores = ", ".join(
        f"{METRICS[name].title} {spread(leader.mean_of(name), leader.sd_of(name))}" for name in OF_THE_PAPER
    )
    talk.print("Best-in-TIME", style="bold", end="")
    talk.print(f": {where} ({scores})")
    for line in verdict(ranked):
        talk.print(f"  {line}")
    if ranked.num_unfinished:
        talk.print(f"{ranked.num_unfinished} cells are not finished and not ranked; run: time-ray sweep {words}")
    for line in left_out(ranked):
        talk.print(line)
    _print_removed(ranked, talk, most=len(ranked.removed) if everything else MOST_REMOVED)


def left_out(ranked: Ranking) -> list[str]:
    """Finished cells that are not ranked, and why."""
    lines = []
    if ranked.lacking:
        names = ", ".join(contender.name for contender in ranked.lacking[:3])
        lines.append(f"{len(ranked.lacking)} cells lack seeds that others have, and are not ranked: {names}")
    if ranked.below_floor and ranked.criterion.floor:
        lines.append(f"{len(ranked.below_floor)} cells do not keep {ranked.criterion.floor.text}")
    if ranked.removed:
        lines.append(f"{len(ranked.removed)} cells were removed by the search, and are not ranked")
    if ranked.undefined:
        lines.append(f"{len(ranked.undefined)} cells have no {ranked.metric.title}, and are not ranked")
    return lines


def verdict(ranked: Ranking) -> list[str]:
    """How sure the leader is, in sentences."""
    lines, unit = [], "" if ranked.metric.unit == "%" else f" {ranked.metric.unit}"
    if len(ranked.seeds) == 1:
        lines.append("one seed: order shown, no ranking supported; add seeds with seed=[0,1,2]")
        if any(row.p_best is not None for row in ranked.rows) and ranked.halves:
            lines.append("P(best) is over test images alone: it speaks of this stream only")
    else:
        epsilon = f"{ranked.criterion.epsilon:g}{unit} {ranked.metric.title}"
        equal = sum(bool(row.practically_equal) for row in ranked.rows) - 1
        lines.append(
            f"{len(ranked.tied)} of {len(ranked.rows)} cells may be the best ({SURE} %, {len(ranked.seeds)} seeds); "
            f"{equal} are as good as the leader within {epsilon}"
        )
        if not ranked.leader.tied:
            lines.append("the leader was selected on one half of the images and is beaten on the other: add seeds")
        why = ", the median" if ranked.criterion.seed is None else ""
        lines.append(f"--register and export take seed {ranked.seed}{why}")
    if ranked.halves:
        lines.append(f"* selected on one half of the test images, {ranked.metric.title} measured on the other")
    else:
        why = "scores that were kept without outcomes, and datasets of a few test images, have no halves"
        lines.append(f"selected and measured on the same images: {why}")
    return lines
