"""Final weights in MLflow: one logged model for each distinct set, with its scores, and the winner in the registry."""

import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from time_ray.analysis.final_weights import FinalWeights, final_weights
from time_ray.analysis.ranking import Ranking
from time_ray.core.errors import UserError
from time_ray.core.grid import Cell
from time_ray.results import CellResult
from time_ray.store.store import Store
from time_ray.tracking import points
from time_ray.tracking.names import within
from time_ray.tracking.runs import Run, Runs

if TYPE_CHECKING:
    from time_ray.tracking.tracker import Tracker

DIGEST_TAG = "time_ray.digest"
LEADER_TAG = "time_ray.leader"  # of the one model that the winner serves
ALIAS = "best-in-time"


class Models:
    """The logged models of an experiment by the digest of their weights; each is made when it is first asked for."""

    def __init__(self, runs: Runs, store: Store) -> None:
        self._runs = runs
        self._store = store

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
            made = _make_model(self._runs, result.cell, weights or final_weights(result, self._store))
            self._known[digest] = made
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


def _make_model(runs: Runs, cell: Cell, weights: FinalWeights) -> Any:
    client = runs.client
    model = client.create_logged_model(
        experiment_id=runs.experiment_id,
        name=f"deployed-{weights.digest[:12]}",
        source_run_id=runs.cells[cell.key].id,
        tags={DIGEST_TAG: weights.digest, "time_ray.architecture": cell.setting.model.name},
        params={"model": within(cell.setting.model.label)},  # cells may share it: their axes are on their runs
        model_type="open_clip",
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "open_clip_model.safetensors").write_bytes(weights.data)
        Path(folder, "recipe.json").write_text(json.dumps(weights.about, indent=1), encoding="utf-8")
        client.log_model_artifacts(model.model_id, folder)
    return client.finalize_logged_model(model.model_id, "READY")


def register_best(tracker: "Tracker", ranked: Ranking) -> str:
    """The winner's weights are the registered model's newest version, under the alias `best-in-time`.

    The version says by tags how sure that is: on how many seeds, in which interval, and what else may be the best.
    """
    from mlflow.exceptions import MlflowException

    client = tracker.client
    name, result = f"time-ray-{tracker.study.experiment.name}", ranked.winner
    tracker.sync_alone(result)
    model = tracker.models.of(result, ranked.leader.length)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    version = next((v for v in versions if v.tags.get(DIGEST_TAG) == model.tags[DIGEST_TAG]), None)
    if version is None:
        version = client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=tracker.run_id(result.cell.key),
            model_id=model.model_id,
            tags={DIGEST_TAG: model.tags[DIGEST_TAG], **result.cell.axes},
        )
    for tag, value in _support(ranked).items():
        client.set_model_version_tag(name, version.version, tag, within(value))
    client.set_registered_model_alias(name, ALIAS, version.version)
    return f"models:/{name}@{ALIAS}"


def _support(ranked: Ranking) -> dict[str, str]:
    """What speaks for the winner."""
    leader, metric = ranked.leader, ranked.metric
    interval = "" if leader.lower is None else f"[{leader.lower:.2f}, {leader.upper:.2f}]"
    others = [row.contender.name for row in ranked.tied if row is not leader]
    return {
        "time_ray.metric": metric.name,
        "time_ray.value": "" if leader.value is None else f"{leader.value:.2f}",
        "time_ray.length": f"{leader.length:g}",
        "time_ray.seeds": str(len(ranked.seeds)),
        "time_ray.interval": interval,
        "time_ray.tied": str(len(others)),
        "time_ray.tied_set": "; ".join(others),
    }
