"""`time-ray doctor`: this machine, the nodes of a cluster, the storage and MLflow, before one of them stops a sweep."""

import importlib.metadata
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from time_ray.cluster.checks import Demands, examine
from time_ray.cluster.machine import Machine, gather, try_storage
from time_ray.cluster.nodes import Answers, Question, ask
from time_ray.cluster.ray_cluster import check_address
from time_ray.cluster.ray_process import folder_root
from time_ray.core.errors import StoreError, UserError
from time_ray.core.finding import Finding
from time_ray.events import Note
from time_ray.store.files import PROBE, Files
from time_ray.study import Study
from time_ray.tracking.client import tracking_uri
from time_ray.tracking.willing import mlflow_findings

HERE = "this machine"
NODE_SECONDS = 60.0
BRIEF_SECONDS = 15.0
BRIEF_MLFLOW_SECONDS = 5.0


def diagnose(files: Files, study: Study | None = None, address: str | None = None) -> list[Finding]:
    """Everything that is wrong with what a sweep would run on: this machine, and a cluster's nodes if one is named.

    Args:
        files: The storage.
        study: The experiment, for the files that it names; None: none in particular.
        address: Of a Ray cluster; None: this machine alone is looked at, and no Ray.

    """
    with ThreadPoolExecutor(3) as pool, _token(files) as (file, token, failed):
        mlflow = pool.submit(mlflow_findings, files, study.experiment.name if study else None)
        nodes = pool.submit(_ask, _question(files, study, address, file, token, NODE_SECONDS)) if address else None
        here = _here(files, study, failed)
        answers = nodes.result() if nodes else Answers()
        findings = [*_examined(here, answers, files, address), *_unfit_folder(), *mlflow.result()]
    return list(dict.fromkeys(findings))


def brief(study: Study, files: Files, watch: Callable[[Note], None]) -> None:
    """What a look of seconds finds before a sweep is told; one that is not on a cluster has only MLflow looked at.

    Raises:
        UserError: A node has not the driver's storage, so that its trials could not find their data.

    """
    findings = _mlflow_briefly(files, study.experiment.name)
    address = os.environ.get("RAY_ADDRESS")
    if address and study.experiment.run.on_ray:
        with _token(files) as (file, token, failed):
            answers = _ask(_question(files, study, address, file, token, BRIEF_SECONDS, with_torch=False))
            here = _here(files, study, failed, with_torch=False)
        findings += _examined(here, answers, files, address)
    for finding in findings:
        if finding.check != "storage":
            watch(Note(f"doctor: {finding}"))
    UserError.unless_none(str(finding) for finding in findings if finding.check == "storage")


def _mlflow_briefly(files: Files, experiment: str) -> list[Finding]:
    """Servers alone: what a file beside the storage lacks shows itself."""
    if not tracking_uri(files).startswith(("http://", "https://")):
        return []
    return [
        Finding(found.check, f"MLflow at {found.where}", found.fault, f"{found.remedy}; the sweep goes on without it")
        for found in mlflow_findings(files, experiment, BRIEF_MLFLOW_SECONDS)
    ]


def _ask(question: Question) -> Answers:
    try:
        check_address(question.address)
    except UserError as error:
        return Answers(findings=tuple(_finding("Ray", fault) for fault in error.faults))
    return ask(question)


def _question(
    files: Files, study: Study | None, address: str, file: str, token: bytes, seconds: float, *, with_torch: bool = True
) -> Question:
    return Question(
        address=address,
        storage=files.uri,
        file=file,
        token=token.decode(),
        folders=tuple(_folders(files)),
        paths=tuple(_paths(files, study)),
        with_torch=with_torch,
        seconds=seconds,
        with_leaks=with_torch,
    )


def _here(files: Files, study: Study | None, failed: dict[str, str], *, with_torch: bool = True) -> Machine:
    facts = gather([*_folders(files)], _paths(files, study), with_torch=with_torch)
    return Machine(**{**facts, "name": HERE, "storage": failed})


def _examined(here: Machine, answers: Answers, files: Files, address: str | None) -> Iterator[Finding]:
    """What is wrong here and on the nodes. What a node shares with this machine, which may be one, is said once."""
    demands = Demands(
        driver=here,
        requires=_requires(),
        num_nodes=answers.num_nodes,
        hosts=[host for uri in (_tracking(files), f"ray://{address or ''}") if (host := urlsplit(uri).hostname)],
        storage=files.shown,
    )
    ours = list(examine(here, demands))
    said = {(finding.check, finding.fault) for finding in ours}
    yield from ours
    yield from answers.findings
    for machine in answers.machines:
        yield from (found for found in examine(machine, demands) if (found.check, found.fault) not in said)


def _folders(files: Files) -> list[str]:
    """Where room is needed on every machine."""
    cache = os.environ.get("TIME_RAY_CACHE")
    own = [files.root] if files.is_local else []
    return [*own, *([cache] if cache else []), os.environ.get("RAY_TMPDIR", tempfile.gettempdir())]


def _paths(files: Files, study: Study | None) -> Sequence[str]:
    """What the experiment names by path and every machine opens by itself, outside of the storage."""
    if study is None:
        return ()
    weights = [spec.weights for spec in study.experiment.model if spec.weights and Path(spec.weights).is_file()]
    datasets = [source.folder for source in study.datasets.all if not source.folder.startswith(files.path(""))]
    return [str(Path(path).absolute()) for path in (*weights, *datasets)]


def _requires() -> Sequence[str]:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.requires("time_ray") or ()
    return ()


def _tracking(files: Files) -> str:
    with suppress(UserError):
        return tracking_uri(files)
    return ""


def _unfit_folder() -> list[Finding]:
    try:
        folder_root()
    except UserError as error:
        return [_finding("temporary files", fault) for fault in error.faults]
    return []


def _finding(check: str, line: str) -> Finding:
    """A fault's line, as `where: what is wrong; what to do`."""
    where, _, rest = line.partition(": ")
    fault, _, remedy = rest.rpartition("; ")
    return Finding(check, where, fault, remedy)


@contextmanager
def _token(files: Files) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """A file that every node is to read is on the storage while the block runs; its name, its content, what failed.

    A root that was not there is removed again.
    """
    file, token = f"{PROBE}{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    new = [path for path in (Path(files.root), *Path(files.root).parents) if files.is_local and not path.exists()]
    try:
        files.write(token, file)
    except StoreError as error:
        yield file, token, {"write": str(error.__cause__)}
    else:
        yield file, token, try_storage(files.uri, file, token)
    finally:
        with suppress(StoreError):
            files.delete(file)
        with suppress(OSError):
            for path in new:
                path.rmdir()
