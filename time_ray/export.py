"""A cell's final weights as a folder that open_clip loads by itself, and MLflow too."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from time_ray.analysis.final_weights import final_weights
from time_ray.core.errors import UserError
from time_ray.core.selection import read_selection
from time_ray.opened import Opened
from time_ray.results import CellResult
from time_ray.serving.layout import Layout
from time_ray.serving.model_folder import WEIGHTS, describe, whole_folder
from time_ray.serving.served import Served
from time_ray.tracking.client import settle
from time_ray.tracking.model_flavor import write_model


def export_cell(
    opened: Opened,
    result: CellResult,
    folder: Path,
    length: float = 1.0,
    *,
    layout: Layout = "open_clip",
    support: Mapping[str, str] | None = None,
) -> Path:
    """The folder holds the cell's weights at that length, with all that is needed to use them.

    Args:
        opened: the experiment.
        result: of the cell.
        folder: it may hold an earlier export, or nothing.
        length: 1 for what the cell serves.
        layout: `hf-folder` is as the Hugging Face hub has models of open_clip.
        support: what speaks for the cell, if it is the best.

    Returns:
        The safetensors file.

    Raises:
        UserError: the cell's weights are not in the store, or not whole; that length needs data; or the folder holds
            other things, or cannot be written.

    """
    weights = final_weights(result, opened.store, length, again=f"time-ray sweep {opened.words}")
    served = Served(
        result=result, weights=weights, datasets=opened.study.datasets, length=length, support=support or {}
    )
    with whole_folder(folder) as draft:
        if layout == "open_clip":
            settle()
            write_model(draft, served, folder.absolute())
        else:
            (draft / WEIGHTS).write_bytes(weights.data)
            describe(served, draft, layout)
    return folder / WEIGHTS


def pick_cell(results: Sequence[CellResult], wanted: str) -> CellResult:
    """The one finished cell that `init=ema,deploy=ema,technique=ties` singles out.

    Raises:
        UserError: an axis is unknown, or not exactly one finished cell matches.

    """
    done = [result for result in results if result.done]
    found = read_selection(wanted, "--cell").of(done, lambda result: result.cell.axes)
    if len(found) == 1:
        return found[0]
    names = "; ".join(result.cell.name for result in found[:4])
    raise UserError(
        f"--cell {wanted}: {len(found)} finished cells match{': ' + names if found else ''}; name more axes"
    )
