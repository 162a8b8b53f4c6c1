"""`time-ray merge`: parameters as written, progress in GB/s."""

import errno
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from time_ray.config import plain_value
from time_ray.core.errors import StoreError, UserError
from time_ray.merging import merge_faults, merge_files
from time_ray.merging.declaration import TAKEN


def merge_with_progress(
    base: Path,
    experts: Sequence[Path],
    output: Path,
    technique: str,
    settings: Sequence[str],
    ids: str | None,
    dtype: str | None,
    threads: int,
    talk: Console,
) -> dict[str, Any]:
    """The output file holds the merge; returns its recipe.

    Raises UserError or MergeError with every fault, and StoreError where the output cannot be written to its end.
    SIGTERM ends the process with status 143. Whatever ends a merge early, nothing of it is left.
    """
    params, faults = _params(settings)
    given = {"ids": ids.split(",") if ids else None, "dtype": dtype, **params}
    if faults:
        raise UserError(*faults, *merge_faults(base, experts, output, technique, **given))
    columns = (TextColumn("merging"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as bar:
        task = bar.add_task("merging", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def say(note: str) -> None:
            talk.print(f"note: {note}")

        with _ended_by_sigterm(talk):
            try:
                return merge_files(
                    base, experts, output, technique, progress=progress, threads=threads, say=say, **given
                )
            except OSError as error:
                if error.errno not in _OF_THE_DISK:
                    raise
                msg = f"{output}: {error.strerror or error}; nothing was written; free some space or give another place"
                raise StoreError(msg) from error


_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextmanager
def _ended_by_sigterm(talk: Console) -> Iterator[None]:
    """SIGTERM unwinds what runs inside, so that it cleans up, and ends the process as a shell reports it."""

    def end(*_: object) -> None:
        talk.print("terminated; nothing was written")
        raise SystemExit(128 + signal.SIGTERM)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if in_main_thread else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _params(settings: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    params: dict[str, Any] = {}
    faults: list[str] = []
    for text in settings:
        name, equals, value = text.partition("=")
        where = f"--set {text}"
        if not equals or not name:
            faults.append(f"{where}: write it as NAME=VALUE, as in --set keep=0.2")
        elif name in TAKEN:
            faults.append(f"{where}: {name} is no parameter of a technique; see time-ray merge --help")
        else:
            try:
                params[name] = plain_value(value, where)
            except UserError as error:
                faults += error.faults
    return params, faults
