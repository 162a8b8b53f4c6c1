"""An experiment as files that mean the same on another machine: itself, its plugins and its stream, nothing else.

Data, weights and results do not travel: what names them must mean the same on every node.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from time_ray import config
from time_ray.clip.weights import known_name
from time_ray.core.errors import UserError
from time_ray.core.experiment import DataSection, Experiment
from time_ray.data.sources import MINI
from time_ray.plugins import loaded
from time_ray.store.files import default_root

_OTHER_FOLDER = re.compile(r"^(?:[\w+.-]+://|/)")  # a URI or an absolute path: no matter where a process starts


@dataclass(frozen=True)
class Shipped:
    """What a machine needs to run an experiment, beside time_ray, its data and its storage."""

    experiment: Experiment
    storage: str = field(repr=False)  # apart from the experiment: it may hold what is nobody else's business
    files: dict[str, str]  # texts by path below the folder
    folder: str  # where they shall lie; empty: where the command starts

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.experiment.name

    @property
    def command(self) -> str:
        """The command that runs it."""
        return f"python -m time_ray sweep {self.folder}{self.name}.yaml"


def shipped(path: str | Path, overrides: Sequence[str] = (), folder: str = "") -> Shipped:
    """The experiment with its overrides as files for another machine.

    Args:
        path: The experiment file.
        overrides: Changes to it.
        folder: Where the files shall lie, with a slash at its end; empty: where the command starts.

    Raises:
        UserError: The experiment has faults, or names by a relative path what does not travel.

    """
    experiment, document = config.load(path, overrides)
    faults = [document.fault(place, text) for place, text in [*_unknown(experiment), *_left_here(experiment)]]
    try:
        storage = storage_everywhere(experiment)
    except UserError as error:
        faults += error.faults
    UserError.unless_none(faults)
    written, files = experiment.written(), dict[str, str]()
    del written["storage"]
    written["plugins"] = []
    for number, plugin in enumerate(loaded(experiment.plugins)):
        where = f"plugins/{number}/{Path(plugin.path).name}"
        written["plugins"].append(where)
        files[where] = plugin.source
    if experiment.stream.file is not None:
        files["stream.json"] = _text(experiment.stream.file)
        written["stream"]["file"] = f"{folder}stream.json"
    files[f"{experiment.name}.yaml"] = config.dumped(written)
    return Shipped(experiment, storage, files, folder)


def storage_everywhere(experiment: Experiment) -> str:
    """The storage of an experiment, which means the same wherever it runs. UserError where it does not."""
    storage = experiment.storage or default_root()
    if _OTHER_FOLDER.match(storage):
        return storage
    raise UserError(
        f"storage: '{storage}' would lie in a Ray job's own folder, which Ray removes with the job; "
        "set storage: or TIME_RAY_STORAGE to s3://BUCKET/PATH, or to the absolute path of a folder that all nodes share"
    )


def _unknown(experiment: Experiment) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Names of models that nobody knows, each with its place: on the cluster they would be told minutes later."""
    for index, model in enumerate(experiment.model):
        try:
            known_name(model.name)
        except UserError as error:
            yield from ((("model", index), fault) for fault in error.faults)


def _left_here(experiment: Experiment) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Paths that other machines would look for in a folder of their own, each with its place in the experiment."""
    what = "is a path from this folder, and stays on this machine; give the absolute path that it has on every node"
    for place, reference in _references(experiment.data):
        if not _OTHER_FOLDER.match(reference) and reference.partition(":")[0] != MINI:
            yield place, f"'{reference}' {what}"
    if experiment.experts is not None and not _OTHER_FOLDER.match(experiment.experts):
        yield ("experts",), f"'{experiment.experts}' {what}"
    for index, model in enumerate(experiment.model):
        if model.weights is not None and Path(model.weights).is_file() and not _OTHER_FOLDER.match(model.weights):
            yield ("model", index, "weights"), f"'{model.weights}' {what}"


def _references(data: DataSection) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if data.root is not None:
        yield ("data", "root"), data.root
        return
    lists: dict[str, Sequence[Any]] = {
        "adaptation": data.adaptation,
        "evaluation": data.evaluation,
        "pretraining": [data.pretraining] if data.pretraining is not None else [],
    }
    yield from ((("data", role), reference) for role, found in lists.items() for reference in found)


def _text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"stream.file: '{path}': cannot be read ({error}); correct the path") from None
