"""The command line: one verb a command, stdout for data, stderr for talk."""

import os
import shlex
import signal
import sys
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from time_ray import __version__
from time_ray.commands import data, lists, manifest, store
from time_ray.commands.explain import explained, summed_up
from time_ray.commands.options import (
    ADDRESS_HELP,
    ADDRESS_VARIABLE,
    SELECTION_HELP,
    Address,
    AtLengths,
    Epsilon,
    Exp,
    Floor,
    Form,
    Overrides,
    OverTasks,
    Plugins,
    Rank,
    Sweep,
    talk,
    technique_names,
)
from time_ray.core.secrets import hidden
from time_ray.core.stream import Order
from time_ray.report import tables
from time_ray.serving.layout import Layout

app = typer.Typer(
    name="time-ray",
    help="Temporal model merging for CLIP: sweep init x deploy x technique, find the Best-in-TIME configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lists.app, name="list")
app.add_typer(data.app, name="data")
app.add_typer(store.app, name="store")
app.add_typer(manifest.app, name="manifest")


def _version(value: bool) -> None:
    if value:
        print(f"time-ray {__version__}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
    del version
    if debug:
        os.environ["TIME_RAY_DEBUG"] = "1"


@app.command()
def sweep(
    exp: Exp,
    overrides: Overrides = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every cell in the table at the end.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Keep traces of each trial's first training and evaluation.")
    ] = False,
) -> None:
    """Run every cell that is not done yet, and name the Best-in-TIME cell. Again: resume, or just print the table."""
    from time_ray import api
    from time_ray.report.progress import shown
    from time_ray.report.summary import print_outcome, print_traces

    with talk.status("reading the experiment"):
        opened = api.open_experiment(exp, overrides or ())
    study = opened.study
    with shown(study.everything, opened.store, opened.words, more=lambda: study.tuned) as progress:
        outcome = api.sweep(opened, progress.take, profile=profile)
    print_outcome(opened, outcome, talk, everything=everything)
    if profile:
        print_traces(opened, outcome, talk)
    raise typer.Exit(outcome.exit_code)


@app.command()
def show(exp: Exp, overrides: Overrides = None, form: Form = "table") -> None:
    """Print the experiment with every default filled in (as YAML that is itself a valid experiment)."""
    from time_ray import api

    values = api.show(exp, overrides or ())
    if form == "table":
        from time_ray.config import dumped

        print(dumped(values), end="")
    else:
        tables.print_mapping(values, form)


@app.command()
def plan(
    exp: Exp,
    overrides: Overrides = None,
    form: Form = "table",
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="TFLOP/s that a GPU sustains in training; if not given, 400 in bf16 or fp16, 200 in tf32, 40 in fp32.",
        ),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="N[,N...]", help="Numbers of GPUs: simulate the sweep on each of them.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of one GPU for an hour, for --gpus.")] = None,
    mtbf: Annotated[
        float | None, typer.Option(min=1, help="Mean hours between failures of one GPU, for --gpus; none if not given.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="First time a step and an evaluation of every model on this machine.")
    ] = False,
) -> None:
    """Print what a sweep would run, without running it."""
    from time_ray import api
    from time_ray.report.fleet import fleet_of
    from time_ray.report.summary import print_plan

    fleet = fleet_of(gpus, price, mtbf)
    opened = api.open_experiment(exp, overrides or ())
    if measure:
        api.measure(opened, talk.print)
    print_plan(api.plan(opened, tflops, fleet), form, talk)


@app.command()
def budget(exp: Exp, overrides: Overrides = None, form: Form = "table") -> None:
    """Print what every model gets from every budget: FLOPs and steps. Needs neither data nor weights."""
    from time_ray import api
    from time_ray.report.budgets import print_budgets

    print_budgets(api.budget(exp, overrides or ()), form)


@app.command()
def stream(
    exp: Exp,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.json", help="Stream file to write.")],
    order: Annotated[Order, typer.Option("--order", help="What the order follows; the seed decides the rest.")],
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, help="Where chance decides.")] = 0,
    reverse: Annotated[bool, typer.Option("--reverse", help="The order backwards.")] = False,
) -> None:
    """Write the classes of an experiment's data as a stream file: easy to hard, rare to frequent, like to like."""
    from time_ray import api

    built = api.stream(exp, overrides or (), order=order, output=output, seed=seed, reverse=reverse, say=talk.print)
    print(output)
    left = f"; {built.left_out} without training images are left out" if built.left_out else ""
    talk.print(f"{len(built.concepts)} classes{left}; for an experiment: stream.file={output}")


@app.command()
def status(
    exp: Exp,
    overrides: Overrides = None,
    form: Form = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until the sweep ends, on any machine.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show every metric, however narrow the terminal.")] = False,
) -> None:
    """Print how far every cell is, its scores so far, and how long a sweep that runs still takes."""
    from time_ray import api
    from time_ray.report.summary import print_status, status_lines
    from time_ray.report.watch import watched

    opened = api.open_experiment(exp, overrides or ())
    results = watched(opened, talk) if watch else api.status(opened)
    print_status(results, form, talk, everything=everything)
    if watch:
        raise typer.Exit(1 if any(result.due for result in results) else 0)
    for line in status_lines(opened, results):
        talk.print(line)


@app.command()
def submit(
    exp: Exp,
    address: Annotated[str, typer.Option("--address", metavar="URL", help=ADDRESS_HELP, envvar=ADDRESS_VARIABLE)],
    overrides: Overrides = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME", help="A variable of this shell that the job needs, as for credentials."),
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Have the cluster install the versions that are here.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    retry: Annotated[int, typer.Option(min=0, metavar="N", help="Submit again if its driver is lost.")] = 0,
) -> None:
    """Run a sweep on a Ray cluster, as a job of it. Ctrl-C leaves it alone; the same command again resumes."""
    from time_ray.commands.jobs import submitted

    raise typer.Exit(submitted(exp, overrides or (), address, env or (), talk, pin=pin, wait=wait, retry=retry))


@app.command()
def logs(
    sweep: Sweep,
    overrides: Overrides = None,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Go on until the sweep ends.")] = True,
) -> None:
    """Print what a submitted sweep says, from any machine that reaches the cluster."""
    from time_ray.commands.jobs import print_logs

    print_logs(sweep, overrides or (), address, follow=follow)


@app.command()
def stop(
    sweep: Sweep,
    overrides: Overrides = None,
    now: Annotated[bool, typer.Option("--now", help="Break off what is running.")] = False,
    address: Address = None,
) -> None:
    """Have a running sweep finish what it is at and stop, from any machine that reaches its storage or cluster."""
    from time_ray.commands.jobs import print_stopped

    print_stopped(sweep, overrides or (), address, talk, now=now)


@app.command()
def best(
    exp: Exp,
    overrides: Overrides = None,
    by: Rank = "gm",
    form: Form = "table",
    over: OverTasks = "end",
    floor: Floor = None,
    epsilon: Epsilon = 1.0,
    lengths: AtLengths = "best",
    seed: Annotated[
        int | None, typer.Option("--seed", help="Whose weights are registered; the median's if not given.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every cell.")] = False,
    register: Annotated[
        bool, typer.Option("--register/--no-register", help="Register the winner in MLflow as best-in-time.")
    ] = False,
) -> None:
    """Say which cells may be the best over their seeds; with --register, register the leader in MLflow."""
    from time_ray import api
    from time_ray.report.best import print_ranking

    opened = api.open_experiment(exp, overrides or ())
    ranked = api.best(opened, by, over=over, floor=floor, epsilon=epsilon, lengths=lengths, seed=seed)
    print_ranking(ranked, form, talk, words=opened.words, everything=everything, gains=api.tuned(opened))
    if register:
        talk.print(f"registered: {api.register(opened, ranked)}")
    else:
        talk.print(f"register it: {shlex.join(['time-ray', *sys.argv[1:], '--register'])}", style="dim")


@app.command()
def report(
    exp: Exp,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.html", help="File to write.")] = Path(
        "report.html"
    ),
    by: Rank = "gm",
    over: OverTasks = "end",
    floor: Floor = None,
    epsilon: Epsilon = 1.0,
    lengths: AtLengths = "best",
    log: Annotated[bool, typer.Option(help="Also put it into the sweep's run in MLflow.")] = True,
) -> None:
    """Write one HTML page that says what a sweep found: the best cells, how sure that is, and at what cost."""
    from time_ray import api
    from time_ray.commands.reports import log_report

    with talk.status("reading results"):
        opened = api.open_experiment(exp, overrides or ())
        written = api.report(opened, output, by, over=over, floor=floor, epsilon=epsilon, lengths=lengths)
    print(written)
    if log:
        log_report(opened, written, talk)


@app.command()
def compare(
    exp: Exp,
    a: Annotated[str, typer.Argument(metavar="A", help=SELECTION_HELP, show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.", show_default=False)],
    overrides: Overrides = None,
    by: Rank = "gm",
    form: Form = "table",
    over: OverTasks = "end",
    lengths: AtLengths = "best",
    everything: Annotated[bool, typer.Option("--all", help="Show every dataset and class.")] = False,
) -> None:
    """Compare two cells, or two values of an axis over all else: by seed, dataset, task and image."""
    from time_ray import api
    from time_ray.report.comparison import print_comparison

    opened = api.open_experiment(exp, overrides or ())
    found = api.compare(opened, a, b, by, over=over, lengths=lengths)
    print_comparison(found, form, talk, everything=everything)


@app.command()
def importance(
    exp: Exp,
    overrides: Overrides = None,
    by: Rank = "gm",
    form: Form = "table",
    over: OverTasks = "end",
) -> None:
    """Say which axis matters: the share of the variance between cells that each explains, and their interactions."""
    from time_ray import api
    from time_ray.report.importance import print_importance

    print_importance(api.importance(api.open_experiment(exp, overrides or ()), by, over=over), form, talk)


@app.command()
def findings(
    exp: Exp,
    overrides: Overrides = None,
    form: Form = "table",
    epsilon: Annotated[float, typer.Option(min=0, help="Differences in GM that do not matter.")] = 1.0,
    run: Annotated[
        bool, typer.Option("--run", help="First sweep the experiment, and the variants that findings compare it with.")
    ] = False,
) -> None:
    """Say which findings of the paper hold, and what would decide those that are open."""
    from time_ray import api
    from time_ray.commands.findings import run_all
    from time_ray.report.claims import print_verdicts

    opened = api.open_experiment(exp, overrides or ())
    status = run_all(api.findings_need(opened).items(), talk) if run else 0
    if status != 130:
        print_verdicts(api.findings(opened, epsilon), form, talk)
    raise typer.Exit(status)


@app.command()
def sync(exp: Exp, overrides: Overrides = None) -> None:
    """Copy every result of an experiment from the store into MLflow, as after an outage, or into an empty server."""
    from time_ray import api
    from time_ray.tracking.client import tracking_uri

    opened = api.open_experiment(exp, overrides or ())
    where = hidden(tracking_uri(opened.files))
    with talk.status(f"copying to {where}"):
        lag = api.sync(opened)
    if lag is not None:
        talk.print(f"error: MLflow at {where}: {lag}; the same command tries again")
        raise typer.Exit(1)
    talk.print(f"MLflow at {where} holds every result of {opened.path}")


@app.command()
def export(
    exp: Exp,
    overrides: Overrides = None,
    cell: Annotated[
        str, typer.Option("--cell", help="`best`, or axes that single one out: init=ema,deploy=ema,technique=ties.")
    ] = "best",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path("export"),
    to: Annotated[
        Layout, typer.Option("--to", help="For open_clip and MLflow, or a folder as the Hugging Face hub has them.")
    ] = "open_clip",
) -> None:
    """Write a cell's final weights as a folder that open_clip loads, and MLflow too."""
    from time_ray import api

    opened = api.open_experiment(exp, overrides or ())
    print(api.export(opened, cell, output, to, say=talk.print))
    if to == "open_clip":
        talk.print(f"predict: mlflow.pyfunc.load_model({str(output)!r}).predict(['photo.jpg'])")
    talk.print(f"load: open_clip.create_model_and_transforms({f'local-dir:{output}'!r})")
    if (output / "tokenizer.json").is_file():
        talk.print("note: open_clip.get_tokenizer needs transformers for it, as the model's vocabulary is its own")


@app.command()
def ui(
    exp: Annotated[Path | None, typer.Argument(metavar="[EXP]", help="Experiment file, for its storage.")] = None,
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
    auth: Annotated[bool, typer.Option("--auth", help="Ask for a password, which is new at every start.")] = False,
) -> None:
    """Open the MLflow UI on the store that sweeps write to."""
    from time_ray.tracking.ui import serve

    serve(exp, overrides or (), port, talk, auth=auth)


@app.command()
def doctor(
    exp: Annotated[
        Path | None, typer.Argument(metavar="[EXP]", help="Experiment file, for its storage and what it names.")
    ] = None,
    overrides: Overrides = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Of a Ray cluster, whose nodes are all looked at; RAY_ADDRESS.")
    ] = None,
    form: Form = "table",
) -> None:
    """Look for what would stop or spoil a sweep: packages, storage, MLflow, limits, and the nodes of a cluster."""
    from time_ray import api
    from time_ray.report.findings import print_findings

    with talk.status("looking"):
        found = api.doctor(exp, overrides or (), address=address)
    raise typer.Exit(print_findings(found, form, talk))


@app.command()
def merge(
    experts: Annotated[
        list[Path], typer.Argument(metavar="EXPERT...", help="Experts, oldest first: files or folders.")
    ],
    base: Annotated[Path, typer.Option("--base", help="The weights that all experts started from.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    technique: Annotated[
        str,
        typer.Option("--technique", "-t", help="See: time-ray list techniques.", autocompletion=technique_names),
    ] = "average",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter, as in --set keep=0.2.")
    ] = None,
    ids: Annotated[
        str | None, typer.Option("--ids", metavar="A,B,...", help="Names of the experts, for random draws.")
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="Of the output, as in bfloat16; the base's.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; the result does not depend on them.")] = 1,
    plugins: Plugins = None,
) -> None:
    """Merge weight files into one, streamed from disk to disk.

    Read are safetensors files, torch and open_clip checkpoints, sharded sets by their index.json, and LoRA adapters
    of peft as experts.
    """
    from time_ray.plugins import load_plugins
    from time_ray.report.merge_progress import merge_with_progress

    load_plugins(plugins or ())
    recipe = merge_with_progress(base, experts, output, technique, settings or (), ids, dtype, threads, talk)
    talk.print(f"{recipe['technique']} of {len(experts)} experts: {output}")


@app.command()
def check_technique(
    technique: Annotated[
        str,
        typer.Argument(
            metavar="TECHNIQUE", help="A name, or my_rules.py:NAME of a plugin file.", autocompletion=technique_names
        ),
    ],
    form: Form = "table",
) -> None:
    """Test a merge technique: what every technique must do, and what this one says of itself."""
    from time_ray.report.conformance import print_checks

    raise typer.Exit(print_checks(technique, form, talk))


def main() -> None:
    """Run the command line; an error is one line a fault, and a traceback only with --debug."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever its encoding, no letter ends a command
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup, above all, has it ignored
            signal.signal(number, _interrupt)
    try:
        app()
    except KeyboardInterrupt:  # typer takes one that comes within a command
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 whatever it is, people read what it is
        if os.environ.get("TIME_RAY_DEBUG"):
            talk.print(hidden("".join(traceback.format_exception(error))), end="")
        sys.exit(_explain(error))


def _interrupt(number: int, _: object) -> None:
    """A scheduler, or a terminal that is closed, ends a command as Ctrl-C does: nothing half-done is left."""
    talk.print(f"ended by {signal.Signals(number).name}")
    raise KeyboardInterrupt


def _explain(error: Exception) -> int:
    lines, status = explained(error)
    for line in summed_up(lines):
        talk.print(f"error: {hidden(line)}")
    return status
