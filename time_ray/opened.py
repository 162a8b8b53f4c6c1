"""An experiment file, opened: checked, and resolved on the storage that it names."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from time_ray import config
from time_ray.core.errors import UserError
from time_ray.found_params import read_found
from time_ray.store.files import Files, default_root
from time_ray.store.store import Store
from time_ray.study import Study, StudyError, find_datasets, resolve


@dataclass(frozen=True)
class Opened:
    """An experiment file, resolved on its storage."""

    path: str
    overrides: tuple[str, ...]
    study: Study
    files: Files

    @property
    def words(self) -> str:
        """The file and its overrides as they follow a verb on a shell's command line."""
        return shlex.join([self.path, *self.overrides])

    @property
    def num_tasks(self) -> int:
        """The length of its stream."""
        return len(self.study.settings[0].trainings)

    @property
    def store(self) -> Store:
        """The store that its results lie in."""
        return Store(self.files)


def open_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Opened:
    """The experiment in a YAML file, checked and resolved. Raises UserError with every fault, one line each."""
    experiment, document = config.draft(path, overrides)
    try:
        files = Files(experiment.storage or default_root())
        study = resolve(experiment, find_datasets(experiment, files))
        if study.tunings:
            study.found.update(read_found(Store(files), study.tunings))
    except StudyError as error:
        raise config.placed(document, error) from None
    except UserError as error:
        raise UserError(*document.faults, *error.faults) from None
    UserError.unless_none(document.faults)
    return Opened(str(path), tuple(overrides), study, files)
