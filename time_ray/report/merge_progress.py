"""`time-ray merge`: parameters as written, progress in GB/s."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from time_ray.core.errors import UserError
from time_ray.merging import merge_faults, merge_files


def merge_with_progress(
    base: Path,
    experts: Sequence[Path],
    output: Path,
    technique: str,
    settings: Sequence[str],
    threads: int,
    talk: Console,
) -> dict[str, Any]:
    """The output file holds the merge; returns its recipe. Raises UserError or MergeError with every fault."""
    params, faults = _params(settings)
    if faults:
        raise UserError(*faults, *merge_faults(base, experts, output, technique, **params))
    columns = (TextColumn("merging"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as bar:
        task = bar.add_task("merging", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return merge_files(base, experts, output, technique, progress=progress, threads=threads, **params)


def _params(settings: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    params: dict[str, Any] = {}
    faults: list[str] = []
    for text in settings:
        name, equals, value = text.partition("=")
        try:
            params[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            params.pop(name, None)
            faults.append(f"--set {text}: write it as NAME=VALUE, as in --set keep=0.2")
    return params, faults
