"""Where the page comes from: the experiment as written, versions, stream, datasets, and the winner's weights."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from time_ray.analysis.ranking import Ranking
from time_ray.core.errors import some_of
from time_ray.core.stream import Task
from time_ray.opened import Opened
from time_ray.version import provenance

MOST_DATASETS = 8  # of a task, by name


class UsedDataset(NamedTuple):
    """A dataset of the experiment, by what it is there for."""

    name: str
    role: str
    classes: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What it takes to make the page again, and to know that it is the same."""

    path: str
    written: str  # the file
    overrides: Sequence[str]
    command: str
    versions: Mapping[str, str]  # of the page
    winner: Mapping[str, str]  # its name, its weights' digest, and the versions that made it
    stream: Sequence[tuple[int, str]]  # of the first seed: tasks, each with its classes
    seed: int
    datasets: Sequence[UsedDataset]


def origin(opened: Opened, ranked: Ranking, command: str) -> Origin:
    """The origin of an experiment's results."""
    first, used = opened.study.settings[0], opened.study.datasets
    roles = [("adaptation", used.adaptation), ("evaluation", used.evaluation)]
    roles += [("pretraining", (used.pretraining,))] if used.pretraining else []
    return Origin(
        path=opened.path,
        written=Path(opened.path).read_bytes().decode("utf-8-sig", errors="replace"),
        overrides=opened.overrides,
        command=command,
        versions={name: text for name, text in provenance().items() if text},
        winner=_winner(ranked) if ranked.rows else {},
        stream=[(training.task.number, _classes(training.task)) for training in first.trainings],
        seed=first.seed,
        datasets=[UsedDataset(one.name, role, len(one.classes), one.key) for role, refs in roles for one in refs],
    )


def _winner(ranked: Ranking) -> dict[str, str]:
    entry = ranked.winner.weights or {}
    made_by = entry.get("made_by")
    versions = {f"made by {name}": str(text) for name, text in made_by.items()} if isinstance(made_by, dict) else {}
    return {"cell": ranked.winner.cell.name, "weights": str(entry.get("digest", "unknown")), **versions}


def _classes(task: Task) -> str:
    counts = Counter(concept.dataset for concept in task.concepts)
    named = some_of((f"{name} ({count})" for name, count in counts.items()), MOST_DATASETS)
    return f"{len(task.concepts)} classes: {named}"
