"""How far an import or a verification is, and what it left out. All on stderr."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from time_ray.core.foreign import shown
from time_ray.data.importers import pipeline
from time_ray.data.importers.sample_faults import SampleFault, counted, noted

LINE_SECONDS = 5.0


@contextmanager
def watched(name: str, talk: Console) -> Iterator[Callable[[pipeline.ImportProgress], None]]:
    """Takes how far it is: a bar on a terminal, a line every few seconds where stderr is piped."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as bar:
        task = bar.add_task(shown(name), total=1.0, said="")
        start = last = time.monotonic()

        def take(progress: pipeline.ImportProgress) -> None:
            nonlocal last
            now = time.monotonic()
            said = f"{progress.samples:,} images, {progress.samples / max(now - start, 1e-9):,.0f}/s"
            bar.update(task, completed=progress.share, said=said)
            if not talk.is_terminal and now - last >= LINE_SECONDS:
                last = now
                talk.print(f"{name}: {progress.share:.0%}, {said}")

        yield take


def summary(faults: Sequence[SampleFault]) -> list[str]:
    """One line for each kind of fault: how many, and what became of them; and one for each kind of note."""
    lines = [
        f"{count:,} × {kind}: {'imported nevertheless' if kept else 'left out'}"
        for (kind, kept), count in counted(faults).items()
    ]
    return lines + [f"{count:,} × {kind}" for kind, count in noted(faults).items()]
