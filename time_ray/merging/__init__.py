"""Model merging, exact and incremental: `merge`, `fold`, `pair`, `ema`, and the table `TECHNIQUES`.

Stands on its own: torch, safetensors and the standard library are all it needs. What is known of techniques is there
without torch, which is imported when something is merged.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from time_ray.merging.declaration import Technique
from time_ray.merging.errors import MergeError, TechniqueError
from time_ray.merging.function import technique
from time_ray.merging.parameters import Parameter
from time_ray.merging.techniques import TECHNIQUES, normalise, register

if TYPE_CHECKING:
    from time_ray.merging.fisher import fisher_merge, second_moments
    from time_ray.merging.function_rule import TensorContext
    from time_ray.merging.in_memory import ema, merge, merge_by_moments, pair
    from time_ray.merging.incremental import Fold, fold
    from time_ray.merging.momentum import with_momentum
    from time_ray.merging.patching import distance, patch
    from time_ray.merging.streaming import merge_faults, merge_files

__all__ = [
    "TECHNIQUES",
    "Fold",
    "MergeError",
    "Parameter",
    "Technique",
    "TechniqueError",
    "TensorContext",
    "distance",
    "ema",
    "fisher_merge",
    "fold",
    "merge",
    "merge_by_moments",
    "merge_faults",
    "merge_files",
    "normalise",
    "pair",
    "patch",
    "register",
    "second_moments",
    "technique",
    "with_momentum",
]

_NEEDS_TORCH = {
    "Fold": "incremental",
    "TensorContext": "function_rule",
    "distance": "patching",
    "ema": "in_memory",
    "fisher_merge": "fisher",
    "fold": "incremental",
    "merge": "in_memory",
    "merge_by_moments": "in_memory",
    "merge_faults": "streaming",
    "merge_files": "streaming",
    "pair": "in_memory",
    "patch": "patching",
    "second_moments": "fisher",
    "with_momentum": "momentum",
}
"""The files of the names that are imported at first use (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_NEEDS_TORCH[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
