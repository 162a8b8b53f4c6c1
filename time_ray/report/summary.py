"""What a sweep, a plan, a status and a ranking look like to a person."""

import time
from collections.abc import Iterator, Sequence

from rich.console import Console

from time_ray.analysis.halves import Halves
from time_ray.analysis.ranking import ranking
from time_ray.analysis.search_verdict import known_text, search_lines
from time_ray.analysis.tuning_gain import gains
from time_ray.core.metrics import METRICS, OF_THE_PAPER
from time_ray.core.quantities import duration, size
from time_ray.model_needs import Needs, device_of
from time_ray.opened import Opened
from time_ray.planning import PlannedNeeds, PlannedTuning, PlanReport, plan_report
from time_ray.report import tables
from time_ray.report.axes import shown_axes, with_short_techniques
from time_ray.report.best import print_ranking
from time_ray.report.fleet import print_fleet
from time_ray.report.running import best_so_far, counted
from time_ray.report.tables import Format
from time_ray.results import CellResult, Outcome, spared_text
from time_ray.search_plan import SearchPlan
from time_ray.store.lease import holders


def status_rows(results: Sequence[CellResult]) -> list[dict[str, object]]:
    """One row a cell: how far it is, and its scores after its latest task."""
    any_removed = any(result.removed for result in results)
    return [
        {
            **result.cell.axes,
            "tasks": f"{max(0, len(result.rows) - 1)}/{len(result.cell.setting.trainings)}",
            "done": result.done,
            **({"removed": result.removed.text if result.removed else None} if any_removed else {}),
            **_scores(result),
        }
        for result in results
    ]


def print_status(results: Sequence[CellResult], form: Format, talk: Console, *, everything: bool = False) -> None:
    """How far every cell is, is on stdout; people see only the axes that cells differ on."""
    rows = status_rows(results)
    if form == "table":
        named = [{**row, **{METRICS[name].title: row[name] for name in METRICS}} for row in rows]
        titles = [metric.title for metric in METRICS.values()]
        more = titles[len(OF_THE_PAPER) :]
        columns = [*shown_axes(rows), "tasks", *titles, *(["removed"] if "removed" in rows[0] else [])]
        left_out = tables.print_rows(
            named, form, columns=columns, short=with_short_techniques(named), optional=() if everything else more
        )
        if left_out:
            talk.print(f"no room for {', '.join(left_out)}: --all, or a wider terminal", style="dim")
    else:
        tables.print_rows(rows, form)


def status_lines(opened: Opened, results: Sequence[CellResult]) -> list[str]:
    """How far a sweep is: cells and tasks, the best so far, and whether it runs, since when and how much longer."""
    lines = [counted(results), best_so_far(results)]
    name = opened.study.experiment.name
    holder = next((one for one in holders(opened.files) if one.name == name), None)
    if holder is not None:
        seconds = plan_report(opened).seconds
        left = "" if seconds is None else f", about {duration(seconds)} left"
        lines.append(f"runs for {duration(time.time() - holder.fields['since'])} on {holder.fields['host']}{left}")
    elif any(result.due for result in results):
        lines.append(f"not running; start or resume it: time-ray sweep {opened.words}")
    if count := len(opened.study.untuned):
        searches = f"{count} search{'es' * (count > 1)} for parameters"
        lines.append(f"{searches} to do, once the grid is done: time-ray sweep {opened.words}")
    return [line for line in lines if line]


def _scores(result: CellResult) -> dict[str, object]:
    return dict(result.final) if result.rows else dict.fromkeys(METRICS)


def print_traces(opened: Opened, outcome: Outcome, talk: Console) -> None:
    """Where the traces of a profiled sweep lie is on stderr."""
    if not outcome.traces:
        talk.print("profile: no trial trained or evaluated anything, so there is no trace")
        return
    folder = outcome.traces[0].rpartition("/")[0]
    where = f"{opened.files.shown.rstrip('/')}/{folder}"
    talk.print(
        f"profile: {len(outcome.traces)} trace{'s' * (len(outcome.traces) > 1)} in {where}; open one in https://ui.perfetto.dev"
    )


def print_plan(plan: PlanReport, form: Format, talk: Console) -> None:
    """The plan is on stdout, its notes are on stderr."""
    if form != "table":
        tables.print_mapping(plan.as_dict(), form)
        return
    never = plan.stream.datasets_never_learned
    scored = f"; {never} datasets scored, never learned" if never else ""
    trainings, evaluations = plan.trainings, plan.evaluations
    lines: list[tuple[str, object, str]] = [
        ("tasks", plan.stream.tasks, f"of {plan.stream.classes} classes{scored}"),
        *(
            ("steps", count, f"a task: {model}, {budget}")
            for model, budgets in plan.steps.items()
            for budget, count in budgets.items()
        ),
        *(
            ("images", f"{found.preprocessing.resizing.size} px", f"{model}: {found}")
            for model, found in plan.preprocessing.items()
        ),
        *(("needs", _workers(need), f"{model}: {_needs_words(need)}") for model, need in plan.needs.items()),
        ("cells", plan.cells, f"in {plan.trials} trials"),
        ("trainings", trainings.distinct, f"distinct, of {trainings.asked} asked for; {trainings.to_do} to do"),
        *(("search", *line) for line in _search_words(plan.search)),
        ("merges", plan.merges.distinct, "distinct"),
        ("evaluations", evaluations.distinct, f"distinct; {evaluations.to_do} to do"),
        *(("candidates", one.candidates, f"{one.name}: {_tuning_words(one)}") for one in plan.tunings),
        ("to be stored", size(plan.bytes), _stored_words(plan)),
        (
            "time",
            "unknown" if plan.seconds is None else duration(plan.seconds),
            _who_measures(plan),
        ),
    ]
    if hours := plan.gpu_hours:
        parts = f"{hours.training:.2f} training, {hours.evaluation:.2f} evaluation"
        speed = f"{hours.tflops:g} TFLOP/s sustained by a GPU (--tflops)"
        if hours.evaluation_tflops != hours.tflops:
            speed += f", evaluation at {hours.evaluation_tflops:g}"
        about = f"{parts}, at {speed}"
        lines.append(("GPU-hours", f"{hours.training + hours.evaluation:.2f}", about))
    tables.print_rows([{"what": what, "count": count, "": about} for what, count, about in lines], "table")
    if plan.fleet is not None:
        print_fleet(plan.fleet, talk)
    if plan.search is not None and plan.search.mode == "race":
        talk.print(f"search: {known_text(plan.search.known)}")
    for note in plan.notes:
        talk.print(f"note: {note}")


def _tuning_words(tuning: PlannedTuning) -> str:
    """What a search for parameters costs, or what it has found."""
    if tuning.found is not None:
        return f"tried; best: {', '.join(f'{name} {value:g}' for name, value in tuning.found.items())}"
    seconds = "" if tuning.seconds is None else f", {duration(tuning.seconds)} of one worker"
    return f"{tuning.evaluations} merges and evaluations, no training{seconds}; then the best after every task"


def _search_words(search: SearchPlan | None) -> Iterator[tuple[int, str]]:
    """What is expected of a search, and the most that it trains."""
    if search is not None:
        most = f"{search.mode} over at most {search.seeds} seeds"
        yield search.expected, f"trainings expected: {most}; {search.drawn_from}"
        yield search.worst, f"at most, if none of {search.cells} leaves; {search.unshared} if nothing was shared"


def _stored_words(plan: PlanReport) -> str:
    experts = f"{plan.moments} expert{'s' * (plan.moments > 1)}"
    return "weights of experts and final models" + (f", second moments of {experts}" if plan.moments else "")


def _workers(need: Needs) -> str:
    if not need.workers:
        return "no worker"
    return "1 worker" if need.workers == 1 else f"{need.workers} workers"


def _needs_words(need: PlannedNeeds) -> str:
    """What each worker has, how it trains where that is not as always, and the memory that it takes."""
    threads = f"{need.threads} CPU thread{'s' * (need.threads > 1)}"
    parts = [
        threads,
        device_of(need),
        f"{need.accumulate} micro-batches" if need.accumulate > 1 else "",
        "recompute" if need.recompute else "",
        f"{size(need.training_bytes)} to train in {need.precision}",
        f"scored in {need.evaluation_precision}" if need.evaluation_precision != need.precision else "",
    ]
    return ", ".join(part for part in parts if part)


def _who_measures(plan: PlanReport) -> str:
    """Where the sweep would take so long, or who measures how long it takes."""
    if plan.seconds is None:
        return "measured by the first sweep, or by --measure"
    places = {"run.trials": "with run.trials at once", "the cluster": "on the cluster of RAY_ADDRESS"}
    return places.get(plan.on, f"on {plan.on}")


def print_outcome(opened: Opened, outcome: Outcome, talk: Console, *, everything: bool = False) -> None:
    """The end of a sweep: the ranking on stdout; what it says, failures and next commands on stderr."""
    ranked, found = ranking(outcome.results, Halves(opened.store)), gains(opened.study, opened.store)
    if ranked.rows:
        print_ranking(ranked, "table", talk, words=opened.words, everything=everything, gains=found)
    for line in search_lines(opened.study, opened.store, outcome.failures):
        talk.print(f"  {line}")
    for name, why in outcome.untuned.items():
        talk.print(f"failed: searching {name}: {why}", style="red")
    names = {cell.key: cell.name for cell in opened.study.everything}
    for key, failure in outcome.failures.items():
        talk.print(f"failed: {names[key]}: {failure.error}", style="red")
    _print_next(opened, outcome, talk)


def _print_next(opened: Opened, outcome: Outcome, talk: Console) -> None:
    done = sum(result.done for result in outcome.results)
    spared = spared_text(outcome.results)
    if outcome.interrupted or any(result.due for result in outcome.results):
        how = "interrupted" if outcome.interrupted else "not finished"
        resume = f"nothing is lost, resume with: time-ray sweep {opened.words}"
        talk.print(f"{how}: {done} of {len(outcome.results)} cells are done{spared}; {resume}")
    if outcome.tracking_error is not None:
        how = f"the same command or time-ray sync {opened.words} tries again"
        talk.print(f"MLflow: {outcome.tracking_error}; results are in the store, {how}", style="red")
    count = f"{done} of {len(outcome.results)} cells in {outcome.seconds:.0f} s{spared}"
    talk.print(f"{count}; everything lies in {opened.files.shown}")
    if not done:
        return
    for verb, why in (
        (f"time-ray best {opened.words} --register", "the winner, for mlflow.pyfunc.load_model"),
        (f"time-ray export {opened.words} --cell best -o best", "its folder, for open_clip and MLflow"),
        (f"time-ray ui {opened.words}", "compare cells in MLflow"),
    ):
        talk.print(f"  {verb}", end="")
        talk.print(f"  # {why}", style="dim")
