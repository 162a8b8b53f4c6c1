"""Model merging, exact and incremental: `merge`, `fold`, `pair`, `ema`, and the table `TECHNIQUES`.

Stands on its own: torch and the standard library are all it needs.
"""

from time_ray.merging.errors import MergeError
from time_ray.merging.fold import Fold, fold
from time_ray.merging.merge import ema, merge, pair
from time_ray.merging.parameters import Parameter
from time_ray.merging.stream import merge_faults, merge_files
from time_ray.merging.technique import Technique
from time_ray.merging.techniques import TECHNIQUES, normalise

__all__ = [
    "TECHNIQUES",
    "Fold",
    "MergeError",
    "Parameter",
    "Technique",
    "ema",
    "fold",
    "merge",
    "merge_faults",
    "merge_files",
    "normalise",
    "pair",
]
