"""What a cell's last model scores on a half of the test images: that of a candidate, which has nothing but this one."""

from time_ray.core.grid import Cell, last
from time_ray.core.metrics import METRICS, AccuracyHistory
from time_ray.core.outcomes import accuracies, accuracies_of
from time_ray.per_image import Half, PerImage


def final_score(cell: Cell, images: PerImage, by: str, half: Half) -> float | None:
    """A metric after the last task; on all test images where they have no halves, None where it is not scored."""
    setting = cell.setting
    outcomes, asked = images.outcomes(setting.scores_key(last(cell))), images.test_images(setting)
    if outcomes is None:
        return None
    has_halves = asked is not None and asked.has_halves
    found = accuracies_of(asked.percents(outcomes, half)) if asked and has_halves else accuracies(outcomes)
    return METRICS[by].compute(AccuracyHistory([found], setting.adaptation, setting.evaluation))
