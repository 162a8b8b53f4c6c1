"""Every node of a Ray cluster, asked what it is like: `python -m time_ray.cluster.nodes`, run by the doctor.

A process of its own, as with a sweep's driver: Ray may hang, or end the process that speaks with it.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from time_ray import python_child
from time_ray.cluster import machine
from time_ray.cluster.leaks import give_back_what_dead_jobs_left
from time_ray.cluster.machine import Machine
from time_ray.cluster.ray_process import end_session, variables
from time_ray.core.finding import Finding

CHECK = "Ray"
CONNECT_SECONDS = 40.0  # Ray itself gives up after 20, if it does
CLOCK_SECONDS = 5.0
CLOCK_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Question:
    """What every node is asked."""

    address: str
    storage: str
    file: str  # that the driver wrote there
    token: str  # what is in it
    folders: tuple[str, ...]
    paths: tuple[str, ...]
    with_torch: bool
    seconds: float  # in which every node must have answered
    with_leaks: bool = False  # whether what dead jobs still hold is looked for, and given back


@dataclass(frozen=True)
class Answers:
    """What the nodes said, and what kept some of them from it."""

    machines: tuple[Machine, ...] = ()
    num_nodes: int = 0
    findings: tuple[Finding, ...] = field(default=())


def ask(question: Question) -> Answers:
    """What every node is like. Whatever Ray does, this takes no longer than joining and answering may take."""
    process = python_child.start(
        ["-m", "time_ray.cluster.nodes"],
        variables={**variables(), "RAY_ADDRESS": question.address, "RAY_USAGE_STATS_ENABLED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        session=True,
    )
    try:
        limit = CONNECT_SECONDS + question.seconds
        out, errors = process.communicate(json.dumps(asdict(question)).encode(), timeout=limit)
    except subprocess.TimeoutExpired:
        remedy = "see that the head runs, and that its ports can be reached from here"
        return Answers(findings=(Finding(CHECK, question.address, f"no answer within {limit:.0f} s", remedy),))
    finally:
        end_session(process.pid)
        process.wait()
    if process.returncode != 0:
        return Answers(findings=(Finding(CHECK, question.address, *unjoined(errors.decode(errors="replace"))),))
    found = json.loads(out.splitlines()[-1])
    silent = [Finding("nodes", name, *_silence(why)) for name, why in found["silent"]]
    machines = tuple(Machine(**fields) for fields in found["machines"])
    left = [Finding("resources", question.address, line, "nothing is left to do") for line in found["left"]]
    return Answers(machines, len(machines) + len(silent), (*silent, *left))


def unjoined(text: str) -> tuple[str, str]:
    """Why a cluster cannot be joined, and what to do, from what Ray wrote."""
    line = " ".join(text.split())
    versions = re.search(r"started with: Ray: (\S+) Python: (\S+) .*started with: Ray: (\S+) Python: (\S+)", line)
    if versions:
        ray, python, our_ray, our_python = versions.groups()
        fault = f"runs Ray {ray} on Python {python}, this machine Ray {our_ray} on Python {our_python}"
        return fault, f"give both the same, as in pip install 'ray[default,tune,train]=={our_ray}' on the cluster"
    if re.search(r"InvalidAuthToken|Unauthenticated|authentication token", line):
        fault = "asks for a token that this machine does not have, or has another of"
        return fault, "set RAY_AUTH_MODE=token, and copy the head's ~/.ray/auth_token here (or set RAY_AUTH_TOKEN)"
    last = (text.strip().splitlines() or ["no reason given"])[-1]
    return f"cannot be joined ({last[:200]})", "see that the head runs, and that its ports can be reached from here"


def _silence(why: str) -> tuple[str, str]:
    """Of a node that did not say what it is like."""
    return why, "see to its log and its load, or take it out of the cluster (ray stop there)"


def main() -> None:
    """Join the cluster, ask every node, and print what they said as a line of JSON."""
    question = TypeAdapter(Question).validate_json(sys.stdin.read())
    import ray

    ray.init(address=question.address, logging_level="ERROR", log_to_driver=False)
    for module in (machine, python_child):
        ray.cloudpickle.register_pickle_by_value(module)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    machines, silent = [], []
    for node, answer in zip(nodes, _answers(nodes, question), strict=True):
        name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        if isinstance(answer, str):
            silent.append((name, answer))
        else:
            machines.append({**answer, "name": name, "is_here": False})
    left: list[str] = []
    if question.with_leaks:
        give_back_what_dead_jobs_left(left.append)
    sys.stdout.write(json.dumps({"machines": machines, "silent": silent, "left": left}) + "\n")
    sys.stdout.flush()
    ray.shutdown()


def _answers(nodes: list[dict[str, Any]], question: Question) -> Iterator[dict[str, Any] | str]:
    """For every node what it is like, or why it did not say so. All are asked at once."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    pins = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    tasks = {name: ray.remote(num_cpus=0, max_retries=0)(getattr(machine, name)) for name in _TASKS}

    def start(name: str, pin: object, *args: object, **options: object) -> Any:
        return tasks[name].options(scheduling_strategy=pin).remote(*args, **options)

    facts = [start("gather", p, question.folders, question.paths, with_torch=question.with_torch) for p in pins]
    tried = [start("try_storage", p, question.storage, question.file, question.token.encode()) for p in pins]
    ready, late = ray.wait([*facts, *tried], num_returns=2 * len(pins), timeout=question.seconds)
    del ready
    for ref in late:
        ray.cancel(ref, force=True)
    for pin, fact, storage in zip(pins, facts, tried, strict=True):
        if fact in late or storage in late:
            yield f"no answer within {question.seconds:.0f} s"
            continue
        try:
            clock = [_skew(lambda p=pin: start("now", p)) for _ in range(CLOCK_TRIES)]
            skew = min(clock, key=abs)
            yield {**ray.get(fact), "storage": ray.get(storage), "skew": skew}
        except RayError as error:
            yield f"cannot run a task ({str(error).strip().splitlines()[-1][:200]})"


_TASKS = ("gather", "try_storage", "now")


def _skew(ask_time: Any) -> float:
    """How far a clock is ahead of ours beyond what the way there and back took."""
    import ray

    before = time.time()
    theirs = ray.get(ask_time(), timeout=CLOCK_SECONDS)
    after = time.time()
    if before <= theirs <= after:
        return 0.0
    return float(theirs - after if theirs > after else theirs - before)


if __name__ == "__main__":
    main()
