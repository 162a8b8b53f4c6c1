"""`time-ray importance`: shares of axes and interactions, and the paper's claim as one number."""

import math
from collections.abc import Iterator

from rich.console import Console

from time_ray.analysis.axis_importance import AxisImportance
from time_ray.core.importance import Effect, Importance, Interval
from time_ray.report import tables
from time_ray.report.tables import Format

SURE = 95  # percent
COLUMNS = ("effect", "share", "low", "high", "share_at_best", "low_at_best", "high_at_best")
HEADLINE = "headline"


def print_importance(found: AxisImportance, form: Format, talk: Console) -> None:
    """Shares are on stdout, and for programs the headline; for people that is on stderr, in words."""
    if form == "json":
        tables.print_mapping(found.as_dict(), form)
    elif form == "csv":
        tables.print_rows(_numbers(found), form, columns=COLUMNS)
    else:
        tables.print_rows(_shown(found), form)
    for line in verdict(found):
        talk.print(line)


def verdict(found: AxisImportance) -> list[str]:
    """The paper's claim, in sentences."""
    lines = [*_lost(found), _claim(found.at_one, "as served")]
    if found.at_best is not None:
        lines.append(_claim(found.at_best, "at best lengths"))
        where = "on one half of the test images, shares are of the other" if found.halves else "on the same images"
        lines.append(f"best lengths were chosen {where}")
    else:
        lines.append("no lengths were measured: give evaluation.lengths, as in evaluation.lengths=[0.5,0.75,1.25]")
    if len(found.seeds) == 1:
        lines.append("one seed: no intervals, and noise is shared out as if it were interactions; add seeds")
    return lines


def _lost(found: AxisImportance) -> Iterator[str]:
    """What holes of the grid cost."""
    if found.left_out:
        values = "; ".join(f"{axis} {', '.join(values)}" for axis, values in found.left_out.items())
        cells = f"{found.num_left_out} cell{'s' * (found.num_left_out > 1)}"
        yield f"the grid has holes: shares are of its complete part, without {values} ({cells})"


def _claim(found: Importance, where: str) -> str:
    ratio = found.headline
    if ratio.value is None:
        return f"{where}: technique explains nothing, or has one value"
    low, high = ratio.interval or (None, None)
    interval = "" if low is None else f" ({SURE} %: {_times(low)} … {_times(high)})"
    return f"{where}: init, deploy and init × deploy explain {_times(ratio.value)} times as much as technique{interval}"


def _times(ratio: float | None) -> str:
    return "∞" if ratio is None or math.isinf(ratio) else f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"


def _numbers(found: AxisImportance) -> list[dict[str, object]]:
    both = [_columns(found.at_one, ""), {} if found.at_best is None else _columns(found.at_best, "_at_best")]
    return [{"effect": name, **both[0][name], **both[1].get(name, {})} for name in both[0]]


def _columns(found: Importance, suffix: str) -> dict[str, dict[str, object]]:
    rows: list[tuple[str, float | None, Interval | None]] = [
        *((_named(share.axes), share.value, share.interval) for share in found.shares),
        (HEADLINE, found.headline.value, found.headline.interval),
    ]

    def values() -> Iterator[tuple[str, dict[str, object]]]:
        for name, value, interval in rows:
            low, high = interval or (None, None)
            yield name, {f"share{suffix}": value, f"low{suffix}": low, f"high{suffix}": high}

    return dict(values())


def _shown(found: AxisImportance) -> list[dict[str, object]]:
    """The largest first."""
    best = {} if found.at_best is None else {share.axes: share for share in found.at_best.shares}
    rows = []
    for share in sorted(found.at_one.shares, key=lambda share: -share.value):
        row: dict[str, object] = {
            "explained by": _named(share.axes),
            "share": share.value,
            f"{SURE} %": _interval(share.interval),
        }
        if best:
            row |= {"at best length": best[share.axes].value, f"{SURE} % ": _interval(best[share.axes].interval)}
        rows.append(row)
    return rows


def _interval(interval: Interval | None) -> str | None:
    return None if interval is None else f"{interval[0]:.2f} … {interval[1]:.2f}"


def _named(effect: Effect) -> str:
    return " × ".join(effect) or "more than three axes"
