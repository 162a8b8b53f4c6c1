"""Model merging, exact and incremental: `merge`, `fold`, `pair`, `ema`, and the table `TECHNIQUES`.

Stands on its own: torch and the standard library are all it needs.
"""

from time_ray.merging.declaration import Technique
from time_ray.merging.errors import MergeError
from time_ray.merging.in_memory import ema, merge, pair
from time_ray.merging.incremental import Fold, fold
from time_ray.merging.parameters import Parameter
from time_ray.merging.streaming import merge_faults, merge_files
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
