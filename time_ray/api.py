"""The verbs of time_ray, for Python and for the command line alike."""

import copy
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from time_ray import config
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment, Stream
from time_ray.core.plan import Plan, Stored, Work, needs, plan
from time_ray.core.scoring import subset_size
from time_ray.core.stream import Order
from time_ray.data.dataset import verify_datasets
from time_ray.ranking import By, Ranked, best_seed, rank
from time_ray.rates import read_rates, trajectory_seconds, work_seconds
from time_ray.results import CellResult, read_results, stored
from time_ray.store.files import Files, default_root
from time_ray.store.gc import collect
from time_ray.store.inventory import Inventory, Reach, Waste, rows
from time_ray.store.lookup import LookUp
from time_ray.store.store import Store
from time_ray.store.verify_store import Checked, verify
from time_ray.store.why import Difference, first_difference
from time_ray.stream_orders import Built, build, write
from time_ray.study import Study, StudyError, allot, find_datasets, resolve

__all__ = [
    "Opened",
    "best",
    "budget",
    "export",
    "open_experiment",
    "plan_of",
    "register",
    "show",
    "status",
    "storage",
    "store_gc",
    "store_list",
    "store_show",
    "store_verify",
    "store_why",
    "stream",
    "sweep",
    "sync",
]

TFLOPS = 400.0  # an H100 in bf16 at about 40 % of its peak: assumed where nobody measured


@dataclass(frozen=True)
class Opened:
    """An experiment file, resolved on its storage."""

    path: str
    overrides: tuple[str, ...]
    study: Study
    files: Files

    @property
    def words(self) -> str:
        """The file and its overrides as they follow a verb on a shell's command line."""
        return shlex.join([self.path, *self.overrides])

    @property
    def num_tasks(self) -> int:
        """The length of its stream."""
        return len(self.study.settings[0].trainings)

    @property
    def store(self) -> Store:
        """The store that its results lie in."""
        return Store(self.files)


def open_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Opened:
    """The experiment in a YAML file, checked and resolved. Raises UserError with every fault, one line each."""
    experiment, document = config.draft(path, overrides)
    try:
        files = Files(experiment.storage or default_root())
        study = resolve(experiment, find_datasets(experiment, files))
    except StudyError as error:
        raise config.placed(document, error) from None
    except UserError as error:
        raise UserError(*document.faults, *error.faults) from None
    UserError.unless_none(document.faults)
    return Opened(str(path), tuple(overrides), study, files)


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
) -> Built:
    """The classes of an experiment's adaptation data, arranged, are a stream file; what made it is beside it.

    See `time_ray.stream_orders.build` for the orders.
    """
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


def budget(path: str | Path, overrides: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What every model of the grid gets from every budget.

    Neither data nor weights are needed, but for streams of one task a dataset: these say how many tasks there are.
    """
    from time_ray.report.budgets import budget_rows

    experiment, document = config.load(path, overrides)
    said = None if experiment.stream.arrangement == "dataset_incremental" else experiment.stream.tasks
    num_tasks = said or open_experiment(path, overrides).num_tasks
    try:
        return budget_rows(experiment, allot(experiment, num_tasks), num_tasks)
    except StudyError as error:
        raise config.placed(document, error) from None


def plan_of(opened: Opened, tflops: float | None = None) -> dict[str, Any]:
    """What a sweep would do. Bytes are those to be stored; seconds are null until throughput has been measured.

    `gpu_hours` are those of the FLOPs to do, at `tflops` sustained by a GPU; null where nothing asks for FLOPs.
    """
    store = opened.store
    have = stored(store)
    counts = plan(opened.study.cells, have)
    rates = read_rates(store, opened.study.cells)
    trials, slots = _trials(opened.study, counts, store, have)
    seconds = work_seconds(counts.work, rates)
    experiment = opened.study.experiment
    in_flops = tflops is not None or any(budget.gflops is not None for budget in experiment.budget)
    return {
        "stream": _stream(opened.study),
        "steps": _steps(opened.study),
        "cells": counts.cells,
        "trials": trials,
        "trainings": {
            "asked": counts.trainings_asked,
            "distinct": counts.trainings_distinct,
            "to_do": counts.trainings_to_do,
        },
        "merges": {"distinct": counts.merges_distinct},
        "evaluations": {"distinct": counts.evaluations_distinct, "to_do": counts.evaluations_to_do},
        "bytes": _bytes(experiment, counts),
        "seconds": None if seconds is None else round(seconds / max(1, min(slots, trials)), 1),
        "gpu_hours": _gpu_hours(opened.study, counts, tflops or TFLOPS) if in_flops else None,
    }


def _stream(study: Study) -> dict[str, int]:
    """The stream of the first seed; those of others are as long."""
    trainings = study.settings[0].trainings
    concepts = [concept for training in trainings for concept in training.task.concepts]
    unseen = {source.name for source in study.datasets.adaptation} - {concept.dataset for concept in concepts}
    return {"tasks": len(trainings), "classes": len(concepts), "datasets_never_learned": len(unseen)}


def _steps(study: Study) -> dict[str, dict[str, int]]:
    """Steps of a task by model and budget."""
    steps: dict[str, dict[str, int]] = {}
    for setting in study.settings:
        steps.setdefault(setting.model.label, {})[setting.budget] = setting.trainings[0].steps
    return steps


def _gpu_hours(study: Study, counts: Plan, tflops: float) -> dict[str, float]:
    """Hours of one GPU: training whole batches, evaluation each scored image and class prompt once a model."""
    from time_ray.clip.cost import operations

    batch_size, share = study.experiment.training.batch_size, study.experiment.evaluation.subset
    scored = [
        (source.num_scored, len(source.classes)) for source in (*study.datasets.adaptation, *study.datasets.evaluation)
    ]
    images = sum(subset_size(rows, classes, share) if share and classes else rows for rows, classes in scored)
    prompts = sum(classes for _, classes in scored)
    training = evaluation = 0.0
    for spec in study.experiment.model:
        work, each = counts.work.get(spec.label, Work(0, 0, 0)), operations(spec.name, batch_size)
        training += work.steps * each.step
        evaluation += work.evaluations * (images * each.image + prompts * each.text) / batch_size
    hours = {"training": training, "evaluation": evaluation}
    return {**{name: round(gflops / tflops / 3.6e6, 3) for name, gflops in hours.items()}, "tflops": tflops}


def _trials(study: Study, counts: Plan, store: Store, have: Stored) -> tuple[int, int]:
    """Trials on this machine, and how many run at once."""
    from time_ray.cluster.packing import pack

    run = study.experiment.run
    slots = run.trials or max(1, (os.cpu_count() or 1) // max(1, run.workers * run.threads))
    if not counts.cells_to_do:
        return 0, slots
    todo = (
        [result.cell for result in read_results(study.cells, store) if not result.done]
        if counts.cells < 2000
        else study.cells
    )
    if run.workers == 0:
        return 1, 1
    seconds = trajectory_seconds(todo, read_rates(store, study.cells), have)
    return len(pack(todo, slots, seconds, have, one_each=run.pack == "cell")), slots


def _bytes(experiment: Experiment, counts: Plan) -> int:
    from time_ray.clip.models import num_bytes

    sizes = {spec.label: num_bytes(spec) for spec in experiment.model}
    return sum(work.weights * sizes[model] for model, work in counts.work.items())


def sweep(opened: Opened, watch: Callable[[dict[str, Any]], None] | None = None) -> Any:
    """Run every cell that is not done yet, and return the `Outcome`. The same call again resumes."""
    from time_ray.cluster.sweep import sweep as run_sweep

    return run_sweep(opened.study, opened.files, watch or (lambda _: None))


def status(opened: Opened) -> list[CellResult]:
    """Every cell with the rows it has so far."""
    return read_results(opened.study.cells, opened.store)


def best(opened: Opened, by: By = "gm") -> list[Ranked]:
    """Finished cells over their seeds, best first. UserError if none is finished."""
    ranked = rank(status(opened), by)
    if not ranked:
        raise UserError(f"{opened.path}: no cell is finished; run: time-ray sweep {opened.words}")
    return ranked


def register(opened: Opened, ranked: Sequence[Ranked], by: By = "gm") -> str:
    """The winner's weights are in the MLflow registry under the alias `best-in-time`; returns their URI."""
    from time_ray.tracking.tracker import Tracker, register_best

    return register_best(Tracker(opened.study, opened.files), best_seed(ranked[0], by))


def sync(opened: Opened) -> str | None:
    """MLflow holds every result of the experiment that the store has; what it lacks, and why, if it does not answer."""
    from time_ray.tracking.mlflow_sync import copy_all

    if not any(result.rows for result in status(opened)):
        raise UserError(f"{opened.path}: no cell has results; run: time-ray sweep {opened.words}")
    return copy_all(opened.study, opened.files)


def export(opened: Opened, cell: str, folder: str | Path) -> Path:
    """The final weights of one cell as a safetensors file that open_clip loads, with its recipe beside it.

    `cell` is `best`, or axes as in `init=ema,deploy=ema,technique=ties,seed=0`, as many as single it out.
    """
    result = _pick(opened, cell)
    entry = result.weights
    data = opened.store.payload(result.final_key, entry) if entry else None
    if entry is None or data is None:
        raise UserError(f"{result.cell.name}: its weights are not there; run: time-ray sweep {opened.words}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    name = result.cell.setting.model.name
    (target / "recipe.json").write_text(json.dumps({**result.cell.axes, **entry}, indent=1), encoding="utf-8")
    _export_architecture(name, target)
    weights = target / f"{name}.safetensors"
    weights.write_bytes(data)
    return weights


def _export_architecture(name: str, target: Path) -> None:
    """A mini model's architecture and vocabulary go along: open_clip does not know them by itself.

    open_clip wants the vocabulary's absolute path, so after a move `bpe_path` in the configuration must follow.
    """
    from time_ray.clip import mini

    if name in mini.MODELS:
        configs = target / "configs"
        configs.mkdir(exist_ok=True)
        config = copy.deepcopy(mini.MODELS[name].config)
        tokenizer = config["text_cfg"]["tokenizer_kwargs"]
        vocabulary = Path(tokenizer["bpe_path"])
        shutil.copyfile(vocabulary, configs / vocabulary.name)
        tokenizer["bpe_path"] = str((configs / vocabulary.name).absolute())
        (configs / f"{name}.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _pick(opened: Opened, wanted: str) -> CellResult:
    results = [result for result in status(opened) if result.done]
    if wanted == "best":
        return best_seed(best(opened)[0], "gm")
    axes = dict(part.partition("=")[::2] for part in _split(wanted))
    known = list(opened.study.cells[0].axes)
    unknown = [name for name in axes if name not in known]
    if unknown:
        raise UserError(
            f"--cell: no axis '{unknown[0]}'; write for example init=ema,deploy=ema; axes: {', '.join(known)}"
        )
    found = [r for r in results if all(_matches(r.cell.axes[k], v) for k, v in axes.items())]
    exact = [r for r in found if all(r.cell.axes[k] == v for k, v in axes.items())]
    if len(exact) == 1 or len(found) == 1:
        return (exact if len(exact) == 1 else found)[0]
    names = "; ".join(r.cell.name for r in found[:4])
    raise UserError(
        f"--cell {wanted}: {len(found)} finished cells match{': ' + names if found else ''}; name more axes"
    )


def _split(wanted: str) -> list[str]:
    """Commas part the axes, but not the parameters within parentheses."""
    parts, depth = [""], 0
    for letter in wanted:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _matches(label: str, wanted: str) -> bool:
    return label == wanted or label.partition("(")[0] == wanted


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
    known = LookUp(Store(storage(where)))
    return known.show(known.key(key))


def store_why(where: str | Path, one: str, other: str) -> Difference | None:
    """The first field in which the recipes of two keys differ, through the experts that they are made of."""
    known = LookUp(Store(storage(where)))
    return first_difference({"key": known.key(one)}, {"key": known.key(other)}, known.recipe)


def store_verify(where: str | Path) -> Iterator[Checked]:
    """Every file of a storage, read and compared with its digest; what is damaged is set aside by then."""
    files = storage(where)
    yield from verify(files)
    for path, size, fault in verify_datasets(files.path("data"), files.filesystem):
        yield Checked("data", path.removeprefix(files.path("")), size, fault)


def store_gc(words: Sequence[str], *, young: bool = False, dry: bool = False) -> Iterator[Waste]:
    """What a storage does not need, each removed by the time it is told (see `collect`).

    `words` are experiment files, each followed by its overrides: what their sweeps can still reach is kept. Or one
    storage root: then only what no entry names is removed. UserError if they are not all of one storage.
    """
    experiments = _with_overrides(words)
    if [path for path, _ in experiments if not path.endswith((".yaml", ".yml"))]:
        if len(experiments) > 1:
            raise UserError("gc: name experiment files (YAML) of one storage, or one storage root alone")
        return collect(storage(words[0]), None, young=young, dry=dry)
    opened = [open_experiment(path, overrides) for path, overrides in experiments]
    roots = sorted({one.files.shown for one in opened})
    if len(roots) > 1:
        raise UserError(f"gc: the experiments lie on different storages ({', '.join(roots)}); clean one at a time")
    return collect(opened[0].files, _reach(opened), young=young, dry=dry)


def _with_overrides(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if "=" in word and found and not Path(word).exists() and "://" not in word:
            found[-1][1].append(word)
        else:
            found.append((word, []))
    return found


def _reach(opened: Sequence[Opened]) -> Reach:
    """Every key that a sweep of these experiments may ask for."""
    weights: set[str] = set()
    scores: set[str] = set()
    for cell in (cell for one in opened for cell in one.study.cells):
        need = needs(cell)
        weights |= {*need.experts, need.final}
        scores |= {*need.scores}
    return Reach(weights, scores)
