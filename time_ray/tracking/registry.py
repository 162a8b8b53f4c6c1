"""The registry: the winner's weights are a version of a registered model, under an alias, with what speaks for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from time_ray.analysis.final_weights import final_weights
from time_ray.analysis.ranking import Ranking
from time_ray.core.errors import StoreError
from time_ray.core.secrets import hidden
from time_ray.serving.model_card import model_card
from time_ray.serving.model_folder import own_vocabulary
from time_ray.serving.served import Served
from time_ray.serving.support import support
from time_ray.tracking.models import DIGEST_TAG
from time_ray.tracking.names import within
from time_ray.tracking.tracker import Tracker

ALIAS = "best-in-time"
_REMEDIES = {
    "PERMISSION_DENIED": "have its administrator give this user the right to register models",
    "RESOURCE_ALREADY_EXISTS": "delete that prompt there, or give the experiment another name",
    "INVALID_PARAMETER_VALUE": "give the experiment another name",
}
_NO_REGISTRY = "use a server that has a registry, or `time-ray export`"


def register_best(tracker: Tracker, ranked: Ranking) -> str:
    """The winner's weights are the registered model's newest version, under the alias `best-in-time`.

    The version says, by tags and in its description, how sure that is: on how many seeds, in which interval, and what
    else may be the best.

    Raises:
        StoreError: the registry refuses.

    """
    client, result, length = tracker.client, ranked.winner, ranked.leader.length
    name = f"time-ray-{tracker.study.experiment.name}"
    uri = f"models:/{name}@{ALIAS}"
    weights = final_weights(result, tracker.store, length)
    said = support(ranked)
    served = Served(result=result, weights=weights, datasets=tracker.study.datasets, length=length, support=said)
    tracker.sync_alone(result)
    model = tracker.models.of(result, length)

    def find() -> Any:
        versions = client.search_model_versions(f"name = '{name}'")
        return next((version for version in versions if version.tags.get(DIGEST_TAG) == weights.digest), None)

    with _refusals(name, tracker.uri):
        _create(client, name)
        version = find()
        if version is None:
            version = client.made(
                lambda asked: asked.create_model_version(
                    name,
                    source=model.artifact_location,
                    run_id=tracker.run_id(result.cell.key),
                    model_id=model.model_id,
                    tags={DIGEST_TAG: weights.digest, **result.cell.axes},
                ),
                find,
            )
        for tag, value in said.items():
            client.set_model_version_tag(name, version.version, f"time_ray.{tag}", within(value))
        card = model_card(served, own_vocabulary=own_vocabulary(served.model) is not None, folder=uri)
        client.update_model_version(name, version.version, within(card))
        client.set_registered_model_alias(name, ALIAS, version.version)
    return uri


def _create(client: Any, name: str) -> None:
    """There is a registered model of that name."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or "prompt" in str(error).removeprefix(name):
            raise


@contextmanager
def _refusals(name: str, uri: str) -> Iterator[None]:
    """What the registry refuses while the block runs is a StoreError of one line, with what to do about it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        why = hidden(" ".join(str(error).split()))[:200]
        remedy = _REMEDIES.get(error.error_code, _NO_REGISTRY)
        raise StoreError(f"MLflow at {hidden(uri)}: '{name}' cannot be registered ({why}); {remedy}") from error
