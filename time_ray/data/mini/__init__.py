"""The mini world: a stream of pictures, drawn at first use."""

from time_ray.data.mini.sample import VERSION
from time_ray.data.mini.world import ADAPTATION, EVALUATION, num_test
from time_ray.data.mini.write import POOLS, write

NAMES_ADAPTATION: tuple[str, ...] = tuple(ADAPTATION)
NAMES_EVALUATION: tuple[str, ...] = tuple(EVALUATION)

__all__ = ["NAMES_ADAPTATION", "NAMES_EVALUATION", "POOLS", "VERSION", "num_test", "write"]
