"""Final weights in MLflow: one logged model for each distinct set, with its scores."""

import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from time_ray.analysis.final_weights import final_weights
from time_ray.core.errors import UserError
from time_ray.results import CellResult
from time_ray.serving.model_folder import WEIGHTS
from time_ray.serving.served import Served
from time_ray.store.store import Store
from time_ray.study import Datasets
from time_ray.tracking import copies, points
from time_ray.tracking.model_flavor import write_model
from time_ray.tracking.names import within
from time_ray.tracking.runs import Run, Runs

DIGEST_TAG = "time_ray.digest"
LEADER_TAG = "time_ray.leader"  # of the one model that the winner serves
FLAVOR_TAG = "time_ray.flavor"  # MLflow can load the model; those of earlier versions are weights alone


class Models:
    """The logged models of an experiment by the digest of their weights; each is made when it is first asked for.

    Where files are to be verified (see Runs), what a model has no more as it was given is given again.
    """

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
        model: Any = self._known.get(digest)
        intact = {} if model is None else self._intact(model, digest)
        if intact is not None:
            served = Served(
                result=result,
                weights=weights or final_weights(result, self._store),
                datasets=self._datasets,
                length=length,
            )
            model = self._known[digest] = self._filled(model or self._make(served), served, intact)
        if self._runs.verified is not None:
            self._runs.verified.add(model.model_id)
        return model

    def log_output(self, run: Run, result: CellResult) -> None:
        """The run says which model it made, and the model what it scores there."""
        from mlflow.entities import LoggedModelOutput

        model, last = self.of(result), result.rows[-1]
        client = self._runs.client
        self._runs.put(run, {"deployed/recipe.json": json.dumps(dict(result.weights or {}), indent=2).encode()})
        output = LoggedModelOutput(model.model_id, last.task)

        def is_there() -> bool | None:
            outputs = client.get_run(run.id).outputs.model_outputs
            return model.model_id in [one.model_id for one in outputs] or None

        if run.is_ours or not is_there():
            client.made(lambda asked: asked.log_outputs(run.id, [output]), is_there)
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

    def _make(self, served: Served) -> Any:
        """A new one, which has no files yet."""
        client, result = self._runs.client, served.result
        tag, digest = DIGEST_TAG, served.weights.digest

        def create(asked: Any) -> Any:
            return asked.create_logged_model(
                experiment_id=self._runs.experiment_id,
                name=f"deployed-{digest[:12]}",
                source_run_id=self._runs.cells[result.cell.key].id,
                tags={tag: digest, FLAVOR_TAG: "pyfunc", "time_ray.architecture": result.cell.setting.model.name},
                params={"model": within(result.cell.setting.model.label)},  # cells may share it: runs have the axes
                model_type="open_clip",
            )

        def find() -> Any:
            return next(
                iter(client.search_logged_models([self._runs.experiment_id], f"tags.`{tag}` = '{digest}'")), None
            )

        return client.made(create, find)

    def _filled(self, model: Any, served: Served, intact: copies.Digests) -> Any:
        """It has all of its files, and tags say their digests; those that are intact are not given again."""
        client = self._runs.client
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), served, model_id=model.model_id)
            for name in intact:
                Path(folder, name).unlink(missing_ok=True)
            client.log_model_artifacts(model.model_id, folder)
            digests = {**intact, **copies.digests_of(Path(folder))}
        client.set_logged_model_tags(model.model_id, {copies.FILES_TAG: copies.written(digests), FLAVOR_TAG: "pyfunc"})
        return client.finalize_logged_model(model.model_id, "READY")

    def _intact(self, model: Any, digest: str) -> dict[str, str] | None:
        """Digests of the files that it has as they were; None where it has all, or is not to be verified.

        Of a model that an earlier version made only the digest of its weights is known.
        """
        verified = self._runs.verified
        if verified is None or model.model_id in verified:
            return None
        noted = copies.read(model.tags)
        known = noted or copies.of_weights(WEIGHTS, digest)
        where = str(model.artifact_location)
        bad = set(copies.damaged(known, lambda path, to: self._runs.client.download(f"{where}/{path}", to)))
        return {path: found for path, found in known.items() if path not in bad} if bad or not noted else None
