"""`time-ray findings --run`: sweeps the experiment and the variants that findings compare it with."""

from collections.abc import Iterable

from rich.console import Console

from time_ray.opened import Opened


def run_all(sweeps: Iterable[tuple[str, Opened]], talk: Console) -> int:
    """Each is swept as far as it goes, one after the other: 0 all done, 1 some cell failed, 130 interrupted."""
    from time_ray import api
    from time_ray.report.progress import shown

    worst = 0
    for name, opened in sweeps:
        if not any(result.due for result in api.status(opened)):
            continue
        talk.print(f"{name}: time-ray sweep {opened.words}")
        with shown(opened.study.everything, opened.store) as progress:
            outcome = api.sweep(opened, progress.take)
        names = {cell.key: cell.name for cell in opened.study.everything}
        for key, failure in outcome.failures.items():
            talk.print(f"failed: {names[key]}: {failure.error}", style="red")
        worst = max(worst, outcome.exit_code)
        if outcome.interrupted:
            break
    return worst
