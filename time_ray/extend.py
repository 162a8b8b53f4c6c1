"""All that a plugin needs, from one place: see `time_ray/docs/extending.md`."""

from time_ray.clip.architectures import Architecture
from time_ray.core.metrics import AccuracyHistory, Metric
from time_ray.core.recipe import Base, Experts, Recipe, ResolvedTechnique, Running, merge_of
from time_ray.core.strategies import Strategy
from time_ray.merging import Parameter, Technique, technique
from time_ray.merging.parameters import choice, flag, fraction, number, whole

__all__ = [
    "AccuracyHistory",
    "Architecture",
    "Base",
    "Experts",
    "Metric",
    "Parameter",
    "Recipe",
    "ResolvedTechnique",
    "Running",
    "Strategy",
    "Technique",
    "choice",
    "flag",
    "fraction",
    "merge_of",
    "number",
    "technique",
    "whole",
]
