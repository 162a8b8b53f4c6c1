"""Final weights in MLflow: one logged model for each distinct set, with its scores."""

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from time_ray.analysis.final_weights import FinalWeights, final_weights
from time_ray.core.errors import UserError
from time_ray.results import CellResult
from time_ray.serving.served import Served
from time_ray.store.store import Store
from time_ray.study import Datasets
from time_ray.tracking import points
from time_ray.tracking.model_flavor import write_model
from time_ray.tracking.names import within
from time_ray.tracking.runs import Run, Runs

DIGEST_TAG = "time_ray.digest"
LEADER_TAG = "time_ray.leader"  # of the one model that the winner serves
FLAVOR_TAG = "time_ray.flavor"  # MLflow can load the model; those of earlier versions are weights alone


class Models:
    """The logged models of an experiment by the digest of their weights; each is made when it is first asked for."""

    def __init__(self, runs: Runs, store: Store, datasets: Datasets) -> None:
        self._runs = runs
        self._store = store
        self._datasets = datasets

    def of(self, result: CellResult, length: float = 1.0) -> Any:
        """The logged model that holds the cell's final weights at that length; identical weights are one model.

        Raises:
            UserError: the cell is not finished, or its weights are not in the store.

        """
        if result.weights is None:
            msg = f"{result.cell.name}: not finished; run the sweep first"
            raise UserError(msg)
        weights = None if length == 1 else final_weights(result, self._store, length)  # only its bytes say its digest
        digest = str(result.weights["digest"]) if weights is None else weights.digest
        if digest not in self._known:
            self._known[digest] = self._make(result, weights or final_weights(result, self._store), length)
        return self._known[digest]

    def log_output(self, run: Run, result: CellResult) -> None:
        """The run says which model it made, and the model what it scores there."""
        from mlflow.entities import LoggedModelOutput

        model, last = self.of(result), result.rows[-1]
        client = self._runs.client
        client.log_dict(run.id, dict(result.weights or {}), "deployed/recipe.json")
        there = [] if run.is_ours else client.get_run(run.id).outputs.model_outputs
        if model.model_id not in [output.model_id for output in there]:
            client.log_outputs(run.id, [LoggedModelOutput(model.model_id, last.task)])
        if run.id not in [metric.run_id for metric in model.metrics or ()]:
            known = [points.Point(key, value, last.task) for key, value in points.scores(last).items()]
            self._runs.log(run, [point.metric(run.start, model_id=model.model_id, run_id=run.id) for point in known])

    def lead(self, result: CellResult | None) -> None:
        """No model but that of this cell is the leader's."""
        leader = None if result is None else self.of(result).model_id
        for digest, model in self._known.items():
            is_leader = model.model_id == leader
            if is_leader and LEADER_TAG not in model.tags:
                self._runs.client.set_logged_model_tags(model.model_id, {LEADER_TAG: "true"})
            elif not is_leader and LEADER_TAG in model.tags:
                self._runs.client.delete_logged_model_tag(model.model_id, LEADER_TAG)
            else:
                continue
            self._known[digest] = self._runs.client.get_logged_model(model.model_id)

    @cached_property
    def _known(self) -> dict[str, Any]:
        """Logged models by digest, one of each. One that was cut off while it was made is deleted."""
        models: dict[str, Any] = {}
        client = self._runs.client
        token = None
        while token is None or token:
            page = client.search_logged_models([self._runs.experiment_id], page_token=token or None)
            token = page.token or ""
            for model in page:
                digest = model.tags.get(DIGEST_TAG)
                if digest is not None and (digest in models or not str(model.status).endswith("READY")):
                    client.delete_logged_model(model.model_id)
                elif digest is not None:
                    models[digest] = model
        return models

    def _make(self, result: CellResult, weights: FinalWeights, length: float) -> Any:
        client, spec = self._runs.client, result.cell.setting.model
        model = client.create_logged_model(
            experiment_id=self._runs.experiment_id,
            name=f"deployed-{weights.digest[:12]}",
            source_run_id=self._runs.cells[result.cell.key].id,
            tags={DIGEST_TAG: weights.digest, FLAVOR_TAG: "pyfunc", "time_ray.architecture": spec.name},
            params={"model": within(spec.label)},  # cells may share it: their axes are on their runs
            model_type="open_clip",
        )
        with tempfile.TemporaryDirectory() as folder:
            served = Served(result=result, weights=weights, datasets=self._datasets, length=length)
            write_model(Path(folder), served, model_id=model.model_id)
            client.log_model_artifacts(model.model_id, folder)
        return client.finalize_logged_model(model.model_id, "READY")
