"""The runs of an experiment in MLflow: found again by tags, made, reopened and closed, and never two of one thing."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from time_ray.tracking import copies
from time_ray.tracking.copies import FILES_TAG
from time_ray.tracking.names import LENGTH, TAG, within
from time_ray.tracking.patient import PatientClient

Kind = Literal["sweep", "summary", "cell"]
Ending = Literal["FINISHED", "FAILED", "KILLED"]

KIND_TAG = "time_ray.kind"
SWEEP_TAG = "time_ray.sweep"
CELL_TAG = "time_ray.cell"
SUMMARY_TAG = "time_ray.summary"
ROWS_TAG = "time_ray.rows"  # how many rows of the cell were logged
TOLD_TAG = "time_ray.told"  # the sweep's experiment was logged
PARENT_TAG = "mlflow.parentRunId"
ABOUT: Mapping[Kind, str] = {"sweep": SWEEP_TAG, "summary": SUMMARY_TAG, "cell": CELL_TAG}  # what a run is found by

METRICS_A_BATCH = 1000  # that MLflow takes at once
_WORDS_A_BATCH = 100  # params, and tags
_RUNS_A_PAGE = 500
_SERIES = (
    "adaptation/",
    "retention/",
    "accuracy/",
    "seconds/",
    "performance/",
    "training/",
    "system/",
)  # what is never read back


@dataclass
class Run:
    """What we know of a run in MLflow.

    Attributes:
        id: MLflow's.
        start: milliseconds.
        name: for people.
        status: MLflow's word.
        tags: all of them.
        metrics: newest values, but for those of datasets, stages and steps, which are many.
        params: names that it is known to have; None: not looked up.
        is_ours: made by this process, which knows what it wrote.
        files: digests of its artifacts, by their paths.

    """

    id: str
    start: int
    name: str
    status: str
    tags: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)
    params: set[str] | None = None
    is_ours: bool = False
    files: dict[str, str] = field(default_factory=dict)

    def ending(self) -> Ending | None:
        """How it ended; None while it is open."""
        endings: dict[str, Ending] = {"FINISHED": "FINISHED", "FAILED": "FAILED", "KILLED": "KILLED"}
        return endings.get(self.status)


class Runs:
    """Sweeps, summaries and cells by what they are about; every change is made in MLflow and known here.

    Args:
        client: of MLflow.
        experiment_id: MLflow's.
        verified: ids of runs and models whose files have been compared with their digests; None: none ever are.

    """

    def __init__(self, client: PatientClient, experiment_id: str, verified: set[str] | None = None) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.verified = verified
        self.look()

    def look(self) -> None:
        """All runs were found anew: another writer may have made some."""
        self.sweeps, self.summaries, self.cells = (self._find(kind) for kind in ("sweep", "summary", "cell"))

    def make(self, kind: Kind, about: str, name: str, tags: Mapping[str, str]) -> Run:
        """A new run, which is open."""
        start = int(time.time() * 1000)
        tags = {KIND_TAG: kind, ABOUT[kind]: about, **{key: within(value, TAG) for key, value in tags.items()}}
        name = within(name, LENGTH)
        made = self.client.made(
            lambda client: (
                client.create_run(self.experiment_id, run_name=name, tags=dict(tags), start_time=start).info.run_id
            ),
            lambda: next((run.id for run in self._search(kind, about)), None),
        )
        run = Run(made, start, name, "RUNNING", tags, params=set(), is_ours=True)
        self._of(kind)[about] = run
        return run

    def forget(self, kind: Kind, about: str) -> None:
        """There is no such run."""
        self.client.delete_run(self._of(kind).pop(about).id)

    def reopen(self, run: Run) -> None:
        """The run is open."""
        if run.status != "RUNNING":
            self.client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"

    def end(self, run: Run, ending: Ending) -> None:
        """The run is over."""
        if run.status != ending:
            self.client.set_terminated(run.id, ending)
            run.status = ending

    def rename(self, run: Run, name: str) -> None:
        """The run has this name."""
        name = within(name, LENGTH)
        if run.name != name:
            self.client.update_run(run.id, name=name)
            run.name = name

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        """The run has these tags."""
        self.log(run, tags=tags)

    def untag(self, run: Run, tag: str) -> None:
        """The run has no such tag."""
        if run.tags.pop(tag, None) is not None:
            self.client.delete_tag(run.id, tag)

    def put(self, run: Run, files: Mapping[str, bytes]) -> None:
        """The run has these artifacts, by their paths; what is logged next notes their digests."""
        with TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self.client.log_artifacts(run.id, folder)
            run.files |= copies.digests_of(Path(folder))

    def distrust(self, run: Run, signs: Mapping[str, Sequence[str]]) -> None:
        """A run whose artifacts are to be verified counts as lacking what MLflow has no more as it was.

        Args:
            run: which artifacts it has is known by their digests; without these it counts as lacking all.
            signs: by the beginnings of paths, the tags that say that such artifacts are there.

        """
        if self.verified is None or run.id in self.verified:
            return
        if not run.is_ours:
            bad = list(copies.damaged(run.files, lambda path, to: self.client.download_artifacts(run.id, path, to)))
            for start, tags in signs.items():
                if not run.files or any(path.startswith(start) for path in bad):
                    for tag in tags:
                        run.tags.pop(tag, None)
        self.verified.add(run.id)

    def log(
        self,
        run: Run,
        metrics: Sequence[Any] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """The run has all of these; tags are written last, so that they may say what is there.

        A parameter that it has already stays as it is: MLflow refuses another value.
        """
        from mlflow.entities import Param, RunTag

        noted = {FILES_TAG: copies.written(run.files)} if run.files else {}
        asked = {**(tags or {}), **noted}.items()
        new = {key: text for key, value in asked if run.tags.get(key) != (text := within(value, TAG))}
        lacking = list(self._lacking(run, params or {}).items())
        *full, points = _batches(metrics, METRICS_A_BATCH)
        for some in full:
            self.client.log_batch(run.id, metrics=some)
        *full, words = _batches([Param(*pair) for pair in lacking], _WORDS_A_BATCH)
        for some in full:
            self.client.log_batch(run.id, params=some)
        if points or words or new:
            tagged = [RunTag(*pair) for pair in new.items()]
            self.client.log_batch(run.id, metrics=points, params=words, tags=tagged)
        run.tags |= new

    def state(self, run: Run, values: Mapping[str, float | None], tags: Mapping[str, str] | None = None) -> None:
        """The newest values of these metrics are these, of which each is one point: at step 0.

        A point cannot be taken back: a value that changed is a later point beside the earlier one.
        """
        from mlflow.entities import Metric

        known = {key: round(value, 4) for key, value in values.items() if value is not None}
        changed = {key: value for key, value in known.items() if run.metrics.get(key) != value}
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now if key in run.metrics else run.start, 0) for key, value in changed.items()]
        self.log(run, metrics, tags=tags)
        run.metrics |= changed

    def _lacking(self, run: Run, params: Mapping[str, str]) -> dict[str, str]:
        """Those that the run does not have; from now on it counts as having them."""
        if run.params is None:
            run.params = set(self.client.get_run(run.id).data.params) if params else None
        found = {name: within(value) for name, value in params.items() if name not in (run.params or ())}
        if found and run.params is not None:
            run.params |= found.keys()
        return found

    def _find(self, kind: Kind) -> dict[str, Run]:
        """Runs of this kind by what they are about. Of two the one in use or the first stands; the other is deleted."""
        in_use = {ROWS_TAG, TOLD_TAG}
        found = [run for run in self._search(kind) if ABOUT[kind] in run.tags]
        order = [((in_use.isdisjoint(run.tags), run.start, run.id), run) for run in found]
        runs: dict[str, Run] = {}
        for _, run in sorted(order, key=itemgetter(0)):
            about = run.tags[ABOUT[kind]]
            if about in runs:
                self.client.delete_run(run.id)
            else:
                runs[about] = run
        return runs

    def _search(self, kind: Kind, about: str | None = None) -> Iterator[Run]:
        """Those of this kind; or of these the ones about this."""
        only = "" if about is None else f" AND tags.`{ABOUT[kind]}` = '{about}'"
        token = None
        while token is None or token:
            page = self.client.search_runs(
                [self.experiment_id],
                f"tags.`{KIND_TAG}` = '{kind}'{only}",
                max_results=_RUNS_A_PAGE,
                page_token=token or None,
            )
            for run in page:
                kept = {key: value for key, value in run.data.metrics.items() if not key.startswith(_SERIES)}
                tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.source.")}
                info, files = run.info, copies.read(tags)
                yield Run(info.run_id, info.start_time, info.run_name, info.status, tags, kept, files=files)
            token = page.token or ""

    def _of(self, kind: Kind) -> dict[str, Run]:
        return {"sweep": self.sweeps, "summary": self.summaries, "cell": self.cells}[kind]


def _batches(items: Sequence[Any], size: int) -> list[list[Any]]:
    """At least one, which may be empty."""
    return [list(items[first : first + size]) for first in range(0, max(1, len(items)), size)]
