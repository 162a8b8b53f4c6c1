"""Studies: an experiment as written, resolved against data, models and techniques into cells."""

from time_ray.study.datasets import Datasets
from time_ray.study.experts import given_in
from time_ray.study.faults import Fault, StudyError
from time_ray.study.settings import allot
from time_ray.study.study import Study, find_datasets, resolve
from time_ray.study.tunings import candidate
from time_ray.study.weights import check_experts, check_weights

__all__ = [
    "Datasets",
    "Fault",
    "Study",
    "StudyError",
    "allot",
    "candidate",
    "check_experts",
    "check_weights",
    "find_datasets",
    "given_in",
    "resolve",
]
