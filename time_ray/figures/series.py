"""Series over seeds: what a metric is after each task, or at each length, as a mean with its spread."""

from collections.abc import Sequence
from dataclasses import dataclass

from time_ray.core.statistics import deviation, mean
from time_ray.results import CellResult


@dataclass(frozen=True)
class Series:
    """Means over seeds at places in order; `sds` is empty with one seed."""

    at: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]


def over_tasks(results: Sequence[CellResult], metric: str) -> Series | None:
    """After each task, from the base on, as far as all of these cells are; None where the metric is not defined."""
    last = min((len(result.rows) for result in results), default=0)
    columns = [[result.rows[task].scores[metric] for result in results] for task in range(last)]
    return _series(range(last), columns)


def over_lengths(results: Sequence[CellResult], metric: str) -> Series | None:
    """After the last task at each length that was measured with every seed; None where none was but 1.

    The base has length 0, unless statistics of BatchNorm are estimated anew for what is served.
    """
    if not results or not all(result.done for result in results):
        return None
    measured = set.intersection(*(set(result.at_lengths) for result in results))
    if not measured:
        return None
    rows = [{length: result.at_lengths[length] for length in measured} | {1.0: result.rows[-1]} for result in results]
    if all(result.cell.setting.batches is None for result in results):
        rows = [{0.0: result.rows[0]} | own for result, own in zip(results, rows, strict=True)]
    lengths = sorted(rows[0])
    return _series(lengths, [[own[length].scores[metric] for own in rows] for length in lengths])


def _series(at: Sequence[float], columns: Sequence[Sequence[float | None]]) -> Series | None:
    values = [[value for value in column if value is not None] for column in columns]
    if not values or any(len(kept) != len(column) for kept, column in zip(values, columns, strict=True)):
        return None
    sds = [sd for column in values if (sd := deviation(column)) is not None]
    return Series(tuple(at), tuple(map(mean, values)), tuple(sds))
