"""What searches for parameters found, in lines: at the end of a sweep."""

from collections.abc import Iterator

from time_ray.analysis.tuning_gain import Gain, gains
from time_ray.core.metrics import METRICS
from time_ray.store.store import Store
from time_ray.study import Study

SURE = 95  # percent


def tuning_lines(study: Study, store: Store) -> Iterator[str]:
    """The best parameters of every search that is over, and what they gain."""
    ranges = {tuning.name: tuning.ranges for tuning in study.tunings}
    for gain in gains(study, store):
        yield _line(gain)
        for name, bound in gain.at_bounds.items():
            found = ranges[gain.name][name]
            at = found.low if bound == "lower" else found.high
            yield f"  {name} lies at the {bound} bound of its range, {at:g}: there may be better beyond it"


def _line(gain: Gain) -> str:
    params = ", ".join(f"{name} {value:g}" for name, value in gain.params.items())
    failed = f", of which {gain.failed} failed" if gain.failed else ""
    title = METRICS[gain.by].title
    gained = f"{title} {gain.mean:+.2f} ({SURE} % over images: {gain.low:+.2f} … {gain.high:+.2f}) over the defaults"
    where = "on the half of the test images that did not choose" if gain.halves else "on the images that chose"
    return f"{gain.name}: {params}, the best of {gain.candidates} candidates{failed}: {gained}, {where}"
