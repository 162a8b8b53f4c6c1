"""A study as it is tracked: its runs in MLflow, which sweep had each cell first, and what tells its cells apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from time_ray.core.grid import Cell
from time_ray.core.training import Training
from time_ray.rates import read_gflops
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.tracking import params
from time_ray.tracking.history import Started, owners, started
from time_ray.tracking.inputs import dataset_inputs
from time_ray.tracking.runs import Runs
from time_ray.tracking.settings import Differing, differing


@dataclass(frozen=True)
class TrackedStudy:
    """What all that writes runs of a study goes by."""

    study: Study
    store: Store
    runs: Runs

    @cached_property
    def owners(self) -> Mapping[str, Started]:
        """For each cell the sweep that was the first to have it."""
        return owners(self.study, self.store)

    @cached_property
    def sweeps(self) -> Mapping[str, Started]:
        """The sweeps that had some of the cells first, by key."""
        return {owner.key: owner for owner in self.owners.values()}

    @cached_property
    def differ(self) -> Differing:
        """What all sweeps of the experiment do not have in common."""
        return differing(started(self.study.experiment.name, self.store))

    @cached_property
    def several_seeds(self) -> bool:
        """Whether the cells differ in the seed."""
        return len({cell.setting.seed for cell in self.study.everything}) > 1

    @cached_property
    def inputs(self) -> list[Any]:
        """The datasets, as MLflow takes them."""
        return dataset_inputs(self.study.datasets)

    def params(self, cell: Cell) -> dict[str, str]:
        """The parameters of a cell's run."""
        return params.of_cell(cell, self._special(cell), self._step_gflops[cell.setting.model.name])

    def name(self, cell: Cell) -> str:
        """The name of a cell's run."""
        return params.cell_name(cell, self._special(cell), self.differ)

    def name_over_seeds(self, cell: Cell) -> str:
        """The name of the run over all seeds of a cell."""
        return params.summary_name(cell, self._special(cell), self.differ)

    def _special(self, cell: Cell) -> Mapping[str, str]:
        """Settings of the cell that are not usual: the same for all cells of a model."""
        training = cell.setting.trainings[0].config
        if training not in self._specials:
            self._specials[training] = params.special_settings(self.study.experiment, training, self.differ)
        return self._specials[training]

    @cached_property
    def _specials(self) -> dict[Training, Mapping[str, str]]:
        return {}

    @cached_property
    def _step_gflops(self) -> Mapping[str, float | None]:
        """By architecture; those who train count them before they score anything."""
        batch_size = self.study.experiment.training.batch_size
        names = {spec.name for spec in self.study.experiment.model}
        return {name: read_gflops(self.store, name, batch_size) for name in names}
