"""The mini world: a stream of pictures, drawn at first use, and three small CLIP models that know some of it."""

from time_ray.learn.mini.models import MODELS, MiniModel, model_config_dir
from time_ray.learn.mini.sample import VERSION
from time_ray.learn.mini.world import ADAPTATION, EVALUATION
from time_ray.learn.mini.write import POOL, write

NAMES_ADAPTATION: tuple[str, ...] = tuple(ADAPTATION)
NAMES_EVALUATION: tuple[str, ...] = tuple(EVALUATION)

__all__ = [
    "MODELS",
    "NAMES_ADAPTATION",
    "NAMES_EVALUATION",
    "POOL",
    "VERSION",
    "MiniModel",
    "model_config_dir",
    "write",
]
