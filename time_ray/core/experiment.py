"""The experiment as written: one short YAML, checked strictly, shown again fully resolved."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from time_ray.core import strategies
from time_ray.core.batch_norm import BatchNorm
from time_ray.core.budget import Budget
from time_ray.core.errors import unknown
from time_ray.core.metrics import is_defined
from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.parameter_range import Range, is_range, read_range
from time_ray.core.scoring import Scoring
from time_ray.core.search import Search
from time_ray.core.section import Section
from time_ray.core.strategies import Strategy
from time_ray.core.stream import BY_DATASET, Arrangement
from time_ray.core.training import Training
from time_ray.core.tuning import TuningSettings

AXES = ("init", "deploy", "technique", "model", "budget", "seed")
WORLDS = ("mini", "mini2")  # versions of the mini world: each alone is all of `data`


class TechniqueSpec(Section):
    """A merge technique by name, with the parameters that differ from its defaults."""

    name: str
    params: Annotated[dict[str, Any], Field(default_factory=dict)]

    @property
    def ranges(self) -> dict[str, Range]:
        """The parameters that are searched."""
        return {name: read_range(name, value) for name, value in self.params.items() if is_range(value)}

    @property
    def fixed(self) -> "TechniqueSpec":
        """The same with the defaults of what is searched."""
        return TechniqueSpec(name=self.name, params={k: v for k, v in self.params.items() if not is_range(v)})

    @property
    def label(self) -> str:
        """The name, with what was set: for people."""
        shown = {**self.params, **{name: found.label for name, found in self.ranges.items()}}
        said = ",".join(f"{name}={value}" for name, value in sorted(shown.items()))
        return f"{self.name}({said})" if said else self.name

    def written(self) -> str | dict[str, Any]:
        """Plain values that mean this technique, short where there is nothing to say."""
        return {"name": self.name, **self.params} if self.params else self.name


PathText = Annotated[str, Field(min_length=1)]
"""A path, or the name of something: an empty one would be the current folder."""


class DataSection(Section):
    """Which datasets are learned, which only test retention, and which pool is replayed."""

    root: Annotated[
        PathText | None, Field(description="folder that paths of data start from; null: the current one")
    ] = None
    adaptation: Annotated[tuple[PathText, ...], Field(min_length=1, description="datasets that the stream teaches")]
    evaluation: Annotated[
        tuple[PathText, ...], Field(description="held-out datasets that measure zero-shot retention")
    ] = ()
    pretraining: Annotated[PathText | None, Field(description="pool for the pretraining share of the mixture")] = None


class Stream(Section):
    """The order in which classes arrive, and the number of tasks they are cut into."""

    tasks: Annotated[int | None, Field(ge=1, description="number of tasks T; null with one task a dataset")] = 5
    order: Annotated[
        Arrangement | None,
        Field(
            description="listed: as the file, else the data, names them; random: mixed by seed; dataset_incremental: "
            "a task a dataset; random_datasets: a task a dataset, mixed by seed; null: listed where there is a file, "
            "else random"
        ),
    ] = None
    file: Annotated[
        PathText | None, Field(description="JSON list of DATASET+++class; null: all classes of the data")
    ] = None
    reverse: Annotated[bool, Field(description="the order backwards")] = False

    @property
    def arrangement(self) -> Arrangement:
        """The order, with its default filled in."""
        return self.order or ("random" if self.file is None else "listed")

    @property
    def by_dataset(self) -> bool:
        """Whether every dataset is a task, however many there are."""
        return self.arrangement in BY_DATASET


class WorkerRun(Section):
    """What the workers of a trial have and how they train, as it is written: for all models, or for one."""

    workers: Annotated[
        int | None,
        Field(
            ge=0, description="training workers of a trial; 0: run in this process, no Ray; null: 1, or as memory wants"
        ),
    ] = None
    gpus: Annotated[float | None, Field(ge=0, description="GPUs of a worker; null: one if the cluster has any")] = None
    accelerator: Annotated[
        str | None, Field(min_length=1, description="type of a worker's GPU by Ray's name, as H100; null: any")
    ] = None
    threads: Annotated[int, Field(ge=1, description="CPU threads of a worker")] = 1
    loaders: Annotated[
        int | None,
        Field(
            ge=0,
            description="threads that make coming batches while a step computes; 0: between steps; null: 1, or up to "
            "6 of the CPUs that its node has for each GPU",
        ),
    ] = None
    accumulate: Annotated[
        int | None,
        Field(ge=1, description="micro-batches of a step: less memory, more time; null: 1, or as memory wants"),
    ] = None
    recompute: Annotated[bool, Field(description="compute activations again instead of keeping them")] = False
    compile: Annotated[
        bool, Field(description="run transformer blocks as torch.compile makes them, where a GPU waits for launches")
    ] = False


def _as_given(run: WorkerRun) -> dict[str, Any]:
    return run.model_dump(mode="json", exclude_unset=True)


class Run(WorkerRun):
    """How the sweep executes. Nothing here changes a result, so nothing here is part of a key."""

    by_model: Annotated[
        dict[str, Annotated[WorkerRun, PlainSerializer(_as_given)]],
        Field(description="what differs for a model, by its name or label"),
    ] = {}  # noqa: RUF012 pydantic copies it
    trials: Annotated[int | None, Field(ge=1, description="trials at once; null: as many as the cluster holds")] = None
    pack: Annotated[
        Literal["auto", "cell"], Field(description="auto: a trajectory a trial; cell: one cell a trial")
    ] = "auto"
    max_failures: Annotated[int, Field(ge=0, description="restarts of a trial after lost workers or nodes")] = 3
    cache_gb: Annotated[float, Field(gt=0, description="memory for weights in use, per worker")] = 4.0
    checkpoint_share: Annotated[
        float, Field(ge=0, lt=1, description="share of the time that step checkpoints may take; 0: none")
    ] = 0.02

    @property
    def on_ray(self) -> bool:
        """Whether trials run on Ray; else everything does in this process."""
        return self.workers != 0

    def place(self, model: ModelSpec, key: str) -> tuple[str, ...]:
        """Where in `run` the key's value for a model is written: what is said of its label, else of its name."""
        said = (name for name in (model.label, model.name) if key in self._given(name))
        return next((("by_model", name, key) for name in said), (key,))

    def of(self, model: ModelSpec) -> WorkerRun:
        """What holds for a model."""
        for_all = {key: getattr(self, key) for key in WorkerRun.model_fields}
        return WorkerRun.model_validate({**for_all, **self._given(model.name), **self._given(model.label)})

    def _given(self, name: str) -> dict[str, Any]:
        return _as_given(self.by_model[name]) if name in self.by_model else {}


def _listed(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else [value]


def _none_for_null(value: object) -> object:
    return () if value is None else value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _technique(value: object) -> object:
    """`ties` or `{name: ties, keep: 0.2}`: every key but the name is a parameter."""
    if isinstance(value, str):
        return {"name": strategies.plain_name(value)}
    if isinstance(value, dict) and "params" not in value and isinstance(value.get("name"), str):
        params = {k: v for k, v in value.items() if k != "name"}
        _check_ranges(params)
        return {"name": value["name"], "params": params}
    return value


def _check_ranges(params: Mapping[str, Any]) -> None:
    """Raises ValueError with every fault."""
    faults = []
    for name, given in params.items():
        try:
            if is_range(given):
                read_range(name, given)
        except ValueError as error:
            faults.append(str(error))
    if is_range(params.get("weight")):
        faults.append("weight: it belongs to the running merge; ranges are of a technique's own parameters")
    if faults:
        raise ValueError("; ".join(faults))


def _budget(value: object) -> object:
    if isinstance(value, (int, float)):
        msg = (
            f"{value} has no unit; write '{value} steps' or '{value} samples' of each task, or '{value}x' or "
            f"'{value} GFLOPs' of the whole stream; on a command line in quotes: 'budget={value} steps'"
        )
        raise ValueError(msg)  # noqa: TRY004 what pydantic tells people
    return Budget.parse(value) if isinstance(value, str) else value


def _sources(value: object) -> object:
    """`mini`, `mini2`, one folder, or the full section."""
    if isinstance(value, str) and value in WORLDS:
        return {"adaptation": (value,), "evaluation": (value,), "pretraining": value}
    if isinstance(value, str):
        return {"adaptation": (value,)}
    if isinstance(value, dict):
        lists = ("adaptation", "evaluation")
        return {k: _as_tuple(_listed(v)) if k in lists and v is not None else v for k, v in value.items()}
    return value


def _cell_rule(value: object) -> object:
    """`{init: zs, deploy: [ft, ema], seed: 0}`: of some axes the values, as tables show them."""
    if not isinstance(value, dict):
        msg = f"{value!r} is no rule; write an axis and values of it, as in {{init: zs, deploy: [ft, ema]}}"
        raise ValueError(msg)  # noqa: TRY004 what pydantic tells people
    if wrong := [str(axis) for axis in value if axis not in AXES]:
        raise ValueError(unknown("axis", wrong[0], AXES))
    if not value or [] in value.values():
        msg = "a rule needs an axis and values of it, as in {init: zs, deploy: [ft, ema]}"
        raise ValueError(msg)
    return {axis: _labels(values) for axis, values in value.items()}


def _labels(values: object) -> tuple[object, ...]:
    listed = values if isinstance(values, list | tuple) else [values]
    if mappings := [value for value in listed if isinstance(value, dict)]:
        raise ValueError(f"{mappings[0]!r}: write it as tables show it, as in 'ema(weight=0.3)'")
    return tuple(str(value) if isinstance(value, int) else value for value in listed)  # a seed


def _no_twice(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen: list[Any] = []
    for value in values:
        if value in seen:
            text = getattr(value, "label", None) or getattr(value, "name", None) or value
            msg = f"'{text}' is given twice; keep one, a cell is run once"
            raise ValueError(msg)
        seen.append(value)
    return values


def _check_metric(name: str, info: ValidationInfo) -> None:
    """Raises ValueError where the data and the stream, as far as they are whole, leave the metric without a value."""
    if not {"data", "stream"} <= info.data.keys():
        return
    tasks, held_out = info.data["stream"].tasks or _SEVERAL, bool(info.data["data"].evaluation)
    if not is_defined(name, tasks, held_out=held_out):
        with_more = is_defined(name, _SEVERAL, held_out=held_out)
        why = "for a stream of one task" if with_more else "without held-out datasets (data.evaluation)"
        raise ValueError(f"{name} is not defined {why}; go by another metric")


_SEVERAL = 2
_Axis = (BeforeValidator(_as_tuple), BeforeValidator(_listed), Field(min_length=1), AfterValidator(_no_twice))
CellRule: TypeAlias = dict[str, tuple[str, ...]]
_Rules = (BeforeValidator(_as_tuple), BeforeValidator(_listed), BeforeValidator(_none_for_null))
StrategyEntry = Annotated[Strategy, BeforeValidator(strategies.read), PlainSerializer(Strategy.written)]
TechniqueEntry = Annotated[TechniqueSpec, BeforeValidator(_technique)]
ModelEntry = Annotated[ModelSpec, BeforeValidator(_named)]
BudgetEntry = Annotated[Budget, BeforeValidator(_budget)]


class Experiment(Section):
    """A sweep: the grid's axes, and everything that all cells share."""

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200, description="also the MLflow experiment"),
    ]
    about: Annotated[str, Field(description="the question it answers, in a sentence")] = ""
    plugins: Annotated[
        tuple[PathText, ...],
        BeforeValidator(_as_tuple),
        BeforeValidator(_listed),
        Field(description="Python files of your own; from this file's folder"),
    ] = ()
    init: Annotated[tuple[StrategyEntry, ...], *_Axis]
    deploy: Annotated[tuple[StrategyEntry, ...], *_Axis]
    technique: Annotated[tuple[TechniqueEntry, ...], *_Axis]
    model: Annotated[tuple[ModelEntry, ...], *_Axis]
    budget: Annotated[tuple[BudgetEntry, ...], *_Axis]
    seed: Annotated[tuple[Annotated[int, Field(ge=0)], ...], *_Axis] = (0,)
    exclude: Annotated[
        tuple[Annotated[CellRule, BeforeValidator(_cell_rule)], ...],
        *_Rules,
        Field(description="cells that are left out: those that match one of these rules"),
    ] = ()
    only: Annotated[
        tuple[Annotated[CellRule, BeforeValidator(_cell_rule)], ...],
        *_Rules,
        Field(description="the cells that are run, where any rule is given: those that match one of these"),
    ] = ()
    data: Annotated[DataSection, BeforeValidator(_sources)]
    stream: Stream = Stream()
    experts: Annotated[
        PathText | None,
        Field(
            description="folder of fine-tuned weights, [MODEL/]DATASET.safetensors or .pt: the experts of their tasks; "
            "null: experts are trained"
        ),
    ] = None
    mixture: Mixture = Mixture()
    training: Training = Training()
    batch_norm: BatchNorm = BatchNorm()
    multitask: Annotated[
        bool, Field(description="also train each model on all tasks at once, for comparison: with the budget of all")
    ] = False
    evaluation: Scoring = Scoring()
    tuning: TuningSettings = TuningSettings()
    search: Annotated[
        Search | None, Field(description="find the best cell without running all; null: the full grid")
    ] = None
    run: Run = Run()
    storage: Annotated[
        PathText | None, Field(description="root of everything a run makes; null: TIME_RAY_STORAGE, else ./runs")
    ] = None

    @field_validator("init")
    @classmethod
    def _starts_are_whole(cls, init: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
        for strategy in init:
            if strategy.patch != 1:
                msg = f"'{strategy.label}': patch is of what is served; write it under deploy"
                raise ValueError(msg)
        return init

    @field_validator("search")
    @classmethod
    def _several_to_choose_from(cls, search: Search | None, info: ValidationInfo) -> Search | None:
        if search is not None and len(info.data.get("seed", ())) == 1:
            msg = f"{search.mode} compares cells over seeds, and there is one; write seed: [0, 1, 2, 3, 4]"
            raise ValueError(msg)
        return search

    @field_validator("search")
    @classmethod
    def _by_what_there_is(cls, search: Search | None, info: ValidationInfo) -> Search | None:
        """GM is KA where nothing is held out; any other metric has to be there."""
        if search is not None and search.by != "gm":
            _check_metric(search.by, info)
        return search

    @field_validator("tuning")
    @classmethod
    def _to_what_there_is(cls, tuning: TuningSettings, info: ValidationInfo) -> TuningSettings:
        if tuning.by != "gm":
            _check_metric(tuning.by, info)
        return tuning

    def written(self) -> dict[str, Any]:
        """Plain values that load to the same experiment, short where there is nothing to say."""
        return {
            **self.model_dump(mode="json"),
            "technique": [technique.written() for technique in self.technique],
            "model": [model.written() for model in self.model],
            "budget": [entry.label for entry in self.budget],
        }
