"""What searches for parameters have found, in lines: for the terminal and for MLflow."""

from collections.abc import Iterable, Iterator, Mapping

from time_ray.analysis.tuning_gain import Gain
from time_ray.core.metrics import METRICS

SURE = 95  # percent


def tuning_lines(gains: Iterable[Gain]) -> Iterator[str]:
    """The best parameters of every search that is over, and what they gain."""
    for gain in gains:
        yield _line(gain)
        for name, bound in gain.at_bounds.items():
            at = gain.ranges[name].at(bound)
            yield f"  {name} lies at the {bound} bound of its range, {at:g}: there may be better beyond it"


def params_text(params: Mapping[str, object]) -> str:
    """Parameters as people write them."""
    values = {name: f"{value:g}" if isinstance(value, float) else value for name, value in params.items()}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def tried_text(gain: Gain) -> str:
    """How many candidates there were."""
    return f"{gain.candidates} candidates" + (f", of which {gain.failed} failed" if gain.failed else "")


def gain_text(gain: Gain) -> str:
    """What was gained, with its interval over test images."""
    title = METRICS[gain.by].title
    return f"{title} {gain.mean:+.2f} ({SURE} % over images: {gain.low:+.2f} … {gain.high:+.2f})"


def where_text(gain: Gain) -> str:
    """The images that the gain is measured on."""
    return "on the half of the test images that did not choose" if gain.halves else "on the images that chose"


def _line(gain: Gain) -> str:
    found = f"{gain.name}: {params_text(gain.params)}, the best of {tried_text(gain)}"
    return f"{found}: {gain_text(gain)} over the defaults, {where_text(gain)}"
