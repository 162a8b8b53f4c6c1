"""All that a plugin needs, from one place: see `time_ray/docs/extending.md`."""

from time_ray.clip.architectures import Architecture
from time_ray.core.metrics import AccuracyHistory, Metric
from time_ray.core.recipe import Base, Experts, Recipe, ResolvedTechnique, Running, merge_of
from time_ray.core.strategies import Strategy
from time_ray.data.importers.pipeline import DatasetSpec, import_parts
from time_ray.data.importers.registry import Importer, Option
from time_ray.data.importers.sample_faults import SampleFault
from time_ray.data.importers.samples import Sample, sample_of_file, sample_parts
from time_ray.data.shards import Row
from time_ray.merging import Parameter, Technique, technique
from time_ray.merging.parameters import choice, flag, fraction, number, whole

__all__ = [
    "AccuracyHistory",
    "Architecture",
    "Base",
    "DatasetSpec",
    "Experts",
    "Importer",
    "Metric",
    "Option",
    "Parameter",
    "Recipe",
    "ResolvedTechnique",
    "Row",
    "Running",
    "Sample",
    "SampleFault",
    "Strategy",
    "Technique",
    "choice",
    "flag",
    "fraction",
    "import_parts",
    "merge_of",
    "number",
    "sample_of_file",
    "sample_parts",
    "technique",
    "whole",
]
