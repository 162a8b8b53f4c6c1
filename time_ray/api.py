"""The verbs of time_ray, for Python and for the command line alike."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from time_ray import config
from time_ray.analysis import comparison
from time_ray.analysis.axis_importance import AxisImportance, axis_importance
from time_ray.analysis.claim_rules import Verdict
from time_ray.analysis.claims import judge
from time_ray.analysis.comparison import Comparison
from time_ray.analysis.evidence import Evidence
from time_ray.analysis.halves import Halves
from time_ray.analysis.ranking import Ranked, Ranking, ranking
from time_ray.analysis.searching import results_of
from time_ray.analysis.tuning_gain import Gain, gains
from time_ray.core.criterion import Criterion, Lengths, Over, read_floor
from time_ray.core.errors import UserError
from time_ray.core.experiment import Stream
from time_ray.core.finding import Finding
from time_ray.core.plan import needs
from time_ray.core.selection import read_selection
from time_ray.core.stream import Order
from time_ray.data.dataset import CARD, verify_datasets
from time_ray.events import Event
from time_ray.export import export_cell, pick_cell
from time_ray.fleet_plan import Fleet, FleetPlan
from time_ray.model_needs import needs_by_model
from time_ray.opened import Opened, open_experiment
from time_ray.planning import BudgetReport, PlanReport, budget_reports, plan_report
from time_ray.rates import Rate
from time_ray.results import CellResult, Outcome
from time_ray.serving.layout import Layout
from time_ray.serving.support import support
from time_ray.store.files import Files, default_root
from time_ray.store.gc import collect
from time_ray.store.inventory import Garbage, Inventory, Reachable, rows
from time_ray.store.lease import Holder
from time_ray.store.recipe_index import RecipeIndex
from time_ray.store.sign_store import Signed, sign
from time_ray.store.signing import marks, own_signer
from time_ray.store.stop_request import How, request_stop
from time_ray.store.store import Store
from time_ray.store.verify_store import Checked, verify
from time_ray.store.why import Difference, first_difference
from time_ray.study import StudyError, allot, find_datasets

if TYPE_CHECKING:  # these need Ray, or torch, which most verbs do not
    from time_ray.cluster.jobs import Jobs
    from time_ray.stream_orders import Built

__all__ = [
    "AxisImportance",
    "BudgetReport",
    "CellResult",
    "Comparison",
    "Finding",
    "Fleet",
    "FleetPlan",
    "Gain",
    "Opened",
    "Outcome",
    "PlanReport",
    "Ranked",
    "Ranking",
    "Rate",
    "Verdict",
    "best",
    "budget",
    "compare",
    "doctor",
    "export",
    "findings",
    "findings_need",
    "importance",
    "jobs",
    "log_report",
    "manifest",
    "measure",
    "open_experiment",
    "plan",
    "register",
    "report",
    "show",
    "status",
    "stop",
    "storage",
    "store_gc",
    "store_list",
    "store_show",
    "store_sign",
    "store_unchecked",
    "store_verify",
    "store_why",
    "stream",
    "submit",
    "sweep",
    "sweep_named",
    "sync",
    "tuned",
]


def show(path: str | Path, overrides: Sequence[str] = ()) -> Mapping[str, Any]:
    """The experiment with every default filled in, as a mapping that is itself a valid experiment."""
    opened = open_experiment(path, overrides)
    return opened.study.experiment.written()


def stream(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    order: Order,
    output: str | Path,
    seed: int = 0,
    reverse: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> "Built":
    """The classes of an experiment's adaptation data, arranged, are a stream file; what made it is beside it.

    See `time_ray.stream_orders.build` for the orders.
    """
    from time_ray.stream_orders import build, write

    experiment, document = config.load(path, overrides)
    experiment = experiment.model_copy(update={"stream": Stream()})  # the one it has may be what is to be made
    needs_pool = order == "frequency"
    try:
        datasets = find_datasets(experiment, Files(experiment.storage or default_root()), with_pool=needs_pool)
    except StudyError as error:
        raise config.placed(document, error) from None
    datasets = datasets._replace(evaluation=())
    built = build(experiment, datasets, order, seed=seed, reverse=reverse, say=say)
    flags = ["--order", order, "--seed", str(seed), *(["--reverse"] if reverse else []), "-o", str(output)]
    write(
        Path(output),
        built,
        {
            "command": shlex.join(["time-ray", "stream", str(path), *overrides, *flags]),
            "model": experiment.model[0].label if order in ("similarity", "performance") else None,
            "datasets": {source.name: source.key for source in datasets.all},
        },
    )
    return built


def budget(path: str | Path, overrides: Sequence[str] = ()) -> list[BudgetReport]:
    """What every model of the grid gets from every budget.

    Neither data nor weights are needed, but for streams of one task a dataset: these say how many tasks there are.
    """
    experiment, document = config.load(path, overrides)
    said = None if experiment.stream.by_dataset else experiment.stream.tasks
    num_tasks = said or open_experiment(path, overrides).num_tasks
    try:
        return budget_reports(experiment, allot(experiment, num_tasks), num_tasks)
    except StudyError as error:
        raise config.placed(document, error) from None


def plan(opened: Opened, tflops: float | None = None, fleet: Fleet | None = None) -> PlanReport:
    """What a sweep would do, without doing it: see `PlanReport`.

    Args:
        opened: The experiment.
        tflops: TFLOP/s that a GPU sustains in training; None: 400 in bf16 or fp16, 200 in tf32, 40 in fp32.
        fleet: Numbers of GPUs on which to simulate the sweep.

    Where RAY_ADDRESS names a cluster, its nodes say how many trials run at once; else this machine does.

    Raises:
        UserError: a trial needs more GPUs than such a number; no cluster answers where RAY_ADDRESS says.

    """
    run = opened.study.experiment.run
    if not run.on_ray or run.trials or not os.environ.get("RAY_ADDRESS"):
        return plan_report(opened, tflops, fleet)
    from time_ray.cluster.ray_process import cluster_slots

    return plan_report(opened, tflops, fleet, slots=cluster_slots(needs_by_model(opened.study.experiment)))


def measure(opened: Opened, say: Callable[[str], None] = lambda _: None) -> Mapping[str, Rate]:
    """Seconds of a training step and of an evaluation of every model, timed here; plans know them from now on.

    Args:
        opened: The experiment, whose own data are read; nothing is kept but the rates.
        say: Hears what is being timed.

    Returns:
        By model. What a sweep on this storage has measured counts more in a plan.

    """
    from time_ray.measuring import measure as time_models

    return time_models(opened, say)


def sweep(opened: Opened, watch: Callable[[Event], None] | None = None, *, profile: bool = False) -> Outcome:
    """Run every cell that is not done yet, and return the `Outcome`. The same call again resumes.

    Args:
        opened: The experiment.
        watch: Called with every event of the sweep as it happens; see `time_ray.events`.
        profile: Whether each trial leaves traces of its first training and evaluation: `Outcome.traces`.

    """
    from time_ray.cluster.sweep import sweep as run_sweep

    return run_sweep(opened.study, opened.files, watch or (lambda _: None), profile=profile)


def jobs(address: str) -> "Jobs":
    """The Ray jobs of a cluster, by the address of its dashboard: http://HEAD:8265.

    Raises:
        UserError: no Ray of our version answers there, or it does not let us in.

    """
    from time_ray.cluster.jobs import Jobs

    return Jobs(address)


def submit(
    path: str | Path, overrides: Sequence[str] = (), *, to: "Jobs", env: Sequence[str] = (), pinned: bool = False
) -> str:
    """The sweep of an experiment file is a Ray job; this is its id, for `to.follow`.

    Args:
        path: The experiment file; neither its data nor its storage need be on this machine.
        overrides: Changes to the file.
        to: Whose job it becomes; see `jobs`.
        env: Names of variables of this process that the job needs, such as those with credentials.
        pinned: The cluster installs, for this job, the versions of all dependencies that are here.

    Raises:
        UserError: the experiment has faults, or cannot run elsewhere; or the sweep runs there already.

    """
    from time_ray.cluster.jobs import variables
    from time_ray.cluster.shipped import shipped

    return to.submit(shipped(path, overrides), variables(env), pinned=pinned)


def manifest(path: str | Path, overrides: Sequence[str] = (), image: str = "") -> str:
    """YAML of a KubeRay job that runs the sweep on a cluster of its own, of the sizes that the experiment asks for.

    Args:
        path: The experiment file.
        overrides: Changes to the file.
        image: A container image with time_ray in it; empty: `time-ray` in the version of this package.

    Raises:
        UserError: the experiment has faults, cannot run elsewhere, or does not say what a worker needs.

    """
    from time_ray.cluster.kuberay import MOUNT, kuberay
    from time_ray.cluster.shipped import shipped

    return kuberay(shipped(path, overrides, MOUNT), image)


def status(opened: Opened) -> list[CellResult]:
    """Every cell with the rows it has so far."""
    return results_of(opened.study, opened.store)


def sweep_named(where: str, overrides: Sequence[str] = ()) -> tuple[str, Files]:
    """The name of a sweep and the storage that it runs on: an experiment file's, or the given name on TIME_RAY_STORAGE.

    Raises:
        UserError: there is no such file, or it has faults; overrides are given to a name.

    """
    if where.endswith((".yaml", ".yml")):
        experiment, _ = config.load(where, overrides)
        return experiment.name, Files(experiment.storage or default_root())
    if overrides:
        raise UserError(f"{where}: {overrides[0]} changes an experiment file, and this is a name; give the file")
    return where, Files(default_root())


def stop(name: str, files: Files, how: How = "finish") -> Holder | None:
    """The sweep of this name is asked to stop, by its storage; this is who runs it, None if nobody does.

    Args:
        name: The sweep's.
        files: The storage that it runs on; see `sweep_named`.
        how: `finish` lets cells finish the task they are at, `now` breaks them off. Nothing that is stored is lost.

    """
    return request_stop(files, name, how)


def best(
    opened: Opened,
    by: str = "gm",
    *,
    over: Over = "end",
    floor: str | None = None,
    epsilon: float = 1.0,
    lengths: Lengths = "best",
    seed: int | None = None,
) -> Ranking:
    """Which cells may be the best, the leader first; see `Ranking`.

    Args:
        opened: The experiment.
        by: A metric; see `time-ray list metrics`.
        over: After the last task, the mean over tasks, or the area under the curve.
        floor: What a cell must keep besides, as in `zs>=0.95*base`.
        epsilon: Differences that do not matter, in the metric's unit.
        lengths: Every cell at its best length where lengths were measured, or as it was served.
        seed: Whose weights are the winner's; None: the median's.

    Raises:
        UserError: no cell is finished, or keeps the floor; there is no such metric, seed or floor.

    """
    criterion = _criterion(by, over, floor, epsilon, lengths, seed)
    found = ranking(status(opened), Halves(opened.store), criterion)
    if not found.rows:
        raise UserError(f"{opened.path}: no cell is finished; run: time-ray sweep {opened.words}")
    return found


def report(
    opened: Opened,
    output: str | Path = "report.html",
    by: str = "gm",
    *,
    over: Over = "end",
    floor: str | None = None,
    epsilon: float = 1.0,
    lengths: Lengths = "best",
) -> Path:
    """One HTML file, which needs nothing else, says what the experiment found; it is made of what the store has.

    Args:
        opened: The experiment, as far as it is swept.
        output: The file; it is replaced.
        by: A metric; see `time-ray list metrics`.
        over: After the last task, the mean over tasks, or the area under the curve.
        floor: What a cell must keep besides, as in `zs>=0.95*base`.
        epsilon: Differences that do not matter, in the metric's unit.
        lengths: Every cell at its best length where lengths were measured, or as it was served.

    Returns:
        The file.

    Raises:
        UserError: no cell has results, or keeps the floor; there is no such metric or floor; or the file cannot be
            written.

    """
    from time_ray.report.page.write import write_page

    given = {"--by": (by, "gm"), "--over": (over, "end"), "--floor": (floor, None), "--epsilon": (epsilon, 1.0)}
    given["--lengths"] = (lengths, "best")
    flags = [word for flag, (value, usual) in given.items() if value != usual for word in (flag, str(value))]
    command = f"time-ray report {opened.words} {shlex.join(['-o', str(output), *flags])}"
    write_page(opened, _criterion(by, over, floor, epsilon, lengths), Path(output), command)
    return Path(output)


def log_report(opened: Opened, page: Path) -> None:
    """The page of `report` is an artifact of the sweep's run in MLflow, `report.html`.

    Raises:
        UserError: the sweep is not in MLflow yet.
        StoreError: MLflow does not answer, or refuses.

    """
    from time_ray.tracking import tracker

    tracker.log_report(opened.study, opened.files, page)


def compare(
    opened: Opened, a: str, b: str, by: str = "gm", *, over: Over = "end", lengths: Lengths = "best"
) -> Comparison:
    """Cells of A against those of B that agree with them on everything else; see `Comparison`.

    Args:
        opened: The experiment.
        a: Axes as in `init=ema,deploy=ema`: one cell, or a value of an axis over all else.
        b: The other side, likewise.
        by: A metric; see `time-ray list metrics`.
        over: After the last task, the mean over tasks, or the area under the curve.
        lengths: Every cell at its best length where lengths were measured, or as it was served.

    Raises:
        UserError: no cell is meant, or several for one partner; no seed in common is finished; no such metric.

    """
    one, other = read_selection(a, "A"), read_selection(b, "B")
    criterion = Criterion(by=by, over=over, lengths=lengths)
    return comparison.compare(_finished(opened), Halves(opened.store), one, other, criterion)


def importance(opened: Opened, by: str = "gm", *, over: Over = "end") -> AxisImportance:
    """Which axis matters: shares of the variance between cells, by axis and interaction; see `AxisImportance`.

    Args:
        opened: The experiment.
        by: A metric; see `time-ray list metrics`.
        over: After the last task, the mean over tasks, or the area under the curve.

    Raises:
        UserError: a cell is not finished, no axis has several values, or there is no such metric.

    """
    criterion = Criterion(by=by, over=over)
    rest = "" if opened.study.experiment.search is None else " search=null"
    to_finish = f"time-ray sweep {opened.words}{rest}"
    return axis_importance(status(opened), Halves(opened.store), criterion, to_finish=to_finish)


def findings(opened: Opened, epsilon: float = 1.0) -> list[Verdict]:
    """Which of the paper's findings hold, by the results of the experiment and its variants; see `Verdict`.

    Args:
        opened: The experiment. Where it has several models or budgets, all but R6 is judged by the first of each.
        epsilon: Differences in GM that do not matter.

    Raises:
        UserError: no cell is finished, or GM is not defined, since nothing is held out; experts are given.

    """
    _trains(opened)
    _finished(opened)
    return judge(Evidence(opened), epsilon)


def findings_need(opened: Opened) -> dict[str, Opened]:
    """What to sweep for `findings`, by name: the experiment itself, and the variants that it is compared with."""
    _trains(opened)
    evidence = Evidence(opened)
    return {"as written": opened, **{name: evidence.open(name) for name in evidence.variants}}


def _trains(opened: Opened) -> None:
    if opened.study.experiment.experts is not None:
        raise UserError(f"{opened.path}: experts are given, and findings are about their training; remove experts")


def _criterion(
    by: str, over: Over, floor: str | None, epsilon: float, lengths: Lengths, seed: int | None = None
) -> Criterion:
    bound = None if floor is None else read_floor(floor)
    return Criterion(by=by, over=over, floor=bound, epsilon=epsilon, lengths=lengths, seed=seed)


def _finished(opened: Opened) -> list[CellResult]:
    """Every cell, of which at least one is finished."""
    results = status(opened)
    if not any(result.done for result in results if not result.cell.multitask):
        raise UserError(f"{opened.path}: no cell is finished; run: time-ray sweep {opened.words}")
    return results


def tuned(opened: Opened) -> list[Gain]:
    """What searches for parameters have found, of those that are over: the best, and what it gains over the defaults.

    Args:
        opened: The experiment, some of whose techniques have ranges.

    """
    return gains(opened.study, opened.store)


def register(opened: Opened, ranked: Ranking) -> str:
    """The winner's weights are in the MLflow registry under the alias `best-in-time`; returns their URI.

    Raises:
        StoreError: MLflow does not answer, or refuses.

    """
    from time_ray.tracking.client import answering, tracking_uri
    from time_ray.tracking.registry import register_best
    from time_ray.tracking.tracker import Tracker

    with answering(tracking_uri(opened.files)):
        return register_best(Tracker(opened.study, opened.files, verified=set()), ranked)


def sync(opened: Opened) -> str | None:
    """MLflow holds every result of the experiment that the store has; what it lacks, and why, if it does not answer."""
    from time_ray.tracking.mlflow_sync import copy_all

    if not any(result.rows for result in status(opened)):
        raise UserError(f"{opened.path}: no cell has results; run: time-ray sweep {opened.words}")
    return copy_all(opened.study, opened.files)


def export(
    opened: Opened,
    cell: str,
    folder: str | Path,
    layout: Layout = "open_clip",
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """The final weights of one cell as a folder that open_clip and MLflow load, with a model card.

    Args:
        opened: The experiment.
        cell: `best`, or axes as in `init=ema,deploy=ema,technique=ties,seed=0`, as many as single it out.
        folder: Where the files go; it is made, or replaced if it holds an earlier export.
        layout: `hf-folder` is as the Hugging Face hub has models of open_clip: without what only MLflow needs.
        say: Hears which cell is the best, and how many are not ranked: as they are not finished, or what they served
            is lost.

    Returns:
        The safetensors file.

    Raises:
        UserError: no finished cell, or more than one, is meant; its weights are not in the store; or the folder holds
            other things, or cannot be written.

    """
    if cell != "best":
        return export_cell(opened, pick_cell(status(opened), cell), Path(folder), layout=layout)
    found = best(opened)
    length, said = found.leader.length, support(found)
    if found.num_unfinished:
        say(f"{found.num_unfinished} cells are not finished and not ranked; run: time-ray sweep {opened.words}")
    weights = export_cell(opened, found.winner, Path(folder), length, layout=layout, support=said)
    say(f"best: {found.winner.cell.name}{'' if length == 1 else f', length {length:g}'}")
    return weights


def doctor(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, address: str | None = None
) -> list[Finding]:
    """What is wrong with what a sweep would run on: nothing, or faults with their remedies. No sweep is started.

    Args:
        path: An experiment file, for its storage and the files that it names; None: the default storage.
        overrides: Changes to it.
        address: Of a Ray cluster, whose nodes are all looked at; None: RAY_ADDRESS, or this machine alone.

    """
    from time_ray.cluster.doctor import diagnose

    opened = open_experiment(path, overrides) if path else None
    files = opened.files if opened else Files(default_root())
    return diagnose(files, opened.study if opened else None, address or os.environ.get("RAY_ADDRESS"))


def storage(where: str | Path) -> Files:
    """The storage of an experiment file, or the storage root itself: a folder or a URI."""
    if str(where).endswith((".yaml", ".yml")):
        experiment, _ = config.load(where)
        return Files(experiment.storage or default_root())
    files = Files(str(where))
    if files.is_local and not Path(files.root).is_dir():
        raise UserError(f"'{where}' is neither an experiment file (YAML) nor a storage root; correct the path")
    return files


def store_list(where: str | Path) -> list[dict[str, object]]:
    """What lies on a storage: a row for each kind of file."""
    return rows(Inventory.of(storage(where)))


def store_show(where: str | Path, key: str) -> dict[str, object]:
    """All that a storage knows of a key, given by its beginning."""
    known = RecipeIndex(Store(storage(where)))
    return known.show(known.key(key))


def store_why(where: str | Path, one: str, other: str) -> Difference | None:
    """The first field in which the recipes of two keys differ, through the experts that they are made of."""
    known = RecipeIndex(Store(storage(where)))
    return first_difference({"key": known.key(one)}, {"key": known.key(other)}, known.recipe)


def store_verify(where: str | Path) -> Iterator[Checked]:
    """Every file of a storage, read and compared with its digest; what is damaged is set aside by then."""
    files = storage(where)
    yield from verify(files)
    cards = [f for f in files.list("data", recursive=True) if f.base_name == CARD and files.holds(f.path)]
    for path, size, fault in verify_datasets(cards, files.filesystem):
        yield Checked("data", path.removeprefix(files.path("")), size, fault)


def store_sign(where: str | Path) -> Iterator[Signed]:
    """Every entry of a storage that was never signed, signed with TIME_RAY_STORE_KEY by the time it is told."""
    return sign(storage(where))


def store_unchecked(where: str | Path) -> bool:
    """Whether a storage is signed, and there is no key to check signatures with."""
    return own_signer() is None and bool(marks(storage(where)))


def store_gc(where: str | Path | Sequence[Opened], *, young: bool = False, dry: bool = False) -> Iterator[Garbage]:
    """What a storage does not need, each removed by the time it is told (see `collect`).

    Args:
        where: Experiments of one storage: what their sweeps can still reach is kept. Or a storage root: then only
            what no entry names is removed.
        young: Also files of the last hour, which a writer may still be at.
        dry: Only tell.

    Raises:
        UserError: the experiments are not all of one storage, or a sweep runs there.

    """
    if isinstance(where, (str, Path)):
        return collect(storage(where), None, young=young, dry=dry)
    roots = sorted({opened.files.shown for opened in where})
    if len(roots) > 1:
        raise UserError(f"gc: the experiments lie on different storages ({', '.join(roots)}); clean one at a time")
    return collect(where[0].files, _reach(where), young=young, dry=dry)


def _reach(opened: Sequence[Opened]) -> Reachable:
    """Every key that a sweep of these experiments may ask for."""
    weights: set[str] = set()
    scores: set[str] = set()
    for cell in (cell for one in opened for cell in one.study.everything):
        need = needs(cell)
        weights |= {*need.experts, *need.moments.values(), need.final}
        scores |= {*need.scores}
    return Reachable(weights, scores)
