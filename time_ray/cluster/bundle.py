"""A bundle of cells: through the temporal loop in step, each failing alone."""

import traceback
from collections.abc import Iterator, Sequence

from time_ray.cluster.board import Board
from time_ray.cluster.packing import by_trajectory
from time_ray.cluster.world import SweepWorld
from time_ray.core.errors import CellError
from time_ray.core.grid import Cell
from time_ray.loop import Row, run


def work(cells: Sequence[Cell], world: SweepWorld, board: Board) -> None:
    """Every cell has run as far as it can. Cells of one trajectory go in step, so that they share what is in memory."""
    for group in by_trajectory(cells).values():
        going = {cell: run(cell, world) for cell in group}
        while going:
            for cell in list(going):
                if world.ranks.agree(board.draining):
                    return
                if not _advance(cell, going[cell], world):
                    del going[cell]


def _advance(cell: Cell, rows: Iterator[Row], world: SweepWorld) -> bool:
    """Take the cell through one task; False once it is over, well or badly. A failing cell fails alone."""
    first = world.ranks.rank == 0
    if first:
        world.board.tell({"kind": "running", "cell": cell.key, "holder": world.holder})
    try:
        row = next(rows, None)
    except Exception as error:
        if world.ranks.size > 1 and not isinstance(error, CellError):
            raise  # the other workers may wait in a collective: only a restart of all of them is safe
        if first:
            trace = traceback.format_exc()
            world.board.tell({"kind": "failed", "cell": cell.key, "error": _one_line(error), "trace": trace})
        return False
    if first and row is None:
        world.board.tell({"kind": "done", "cell": cell.key})
    elif first and row is not None:
        world.board.tell({"kind": "row", "cell": cell.key, "task": row.task})
    return row is not None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, CellError) else f"{type(error).__name__}: {text}"
