"""Sweeps as Ray jobs, as people see them: submitted and followed, their logs, and how they are stopped."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from time_ray import api
from time_ray.core.errors import ClusterError, UserError
from time_ray.core.foreign import shown
from time_ray.report.running import asked, not_running
from time_ray.store.lease import STALE_SECONDS, holders

if TYPE_CHECKING:
    from time_ray.cluster.jobs import Jobs

INTERRUPTED = 130


def submitted(
    exp: Path,
    overrides: Sequence[str],
    address: str,
    env: Sequence[str],
    talk: Console,
    *,
    pin: bool,
    wait: bool,
    retry: int,
) -> int:
    """The sweep was submitted, its job's id is on stdout, what it says on stderr; its exit status, 0 if not waited for.

    Raises:
        UserError: see `api.submit`; or there is nothing that could try again.

    """
    if retry and not wait:
        raise UserError("--retry: a driver that is lost is seen by who follows it; leave out --no-wait")
    jobs = api.jobs(address)
    for again in range(retry, -1, -1):
        job = api.submit(exp, overrides, to=jobs, env=env, pinned=pin)
        print(job, flush=True)
        name = job.removeprefix("time-ray-").rpartition("-")[0]
        follow = f"time-ray logs {name} --address {jobs.address}"
        if not wait:
            talk.print(f"submitted to {jobs.address}; follow it: {follow}")
            return 0
        talk.print(f"submitted to {jobs.address}; Ctrl-C leaves it running")
        try:
            code = _followed(jobs, job, talk)
        except KeyboardInterrupt:
            stop = f"time-ray stop {name} --address {jobs.address}"
            talk.print(f"job {job} goes on; follow it: {follow}; end it: {stop}")
            return INTERRUPTED
        if code is not None:
            return code
        if again:
            talk.print(
                f"job {job} was lost; submitting it again in {STALE_SECONDS:.0f} s, when it holds its storage no more"
            )
            time.sleep(STALE_SECONDS)
    talk.print(f"job {job} was lost, and nothing that is stored; the same command resumes")
    return 1


def _followed(jobs: "Jobs", job: str, talk: Console) -> int | None:
    """The job's exit status once it has ended, all it said being on stderr; None if it was lost."""
    from time_ray.cluster.jobs import exit_code, is_lost

    try:
        ended = jobs.follow(job, _writing(sys.stderr))
    except ClusterError as error:
        talk.print(str(error))
        return None
    if is_lost(ended):
        talk.print(f"job {job}: {_first_line(ended.message)}")
        return None
    return exit_code(ended)


def print_logs(sweep: str, overrides: Sequence[str], address: str | None, *, follow: bool) -> None:
    """What the latest job of the sweep says is on stdout. UserError without an address: only a cluster keeps logs."""
    name, files = api.sweep_named(sweep, overrides)
    if address is None:
        running = next((holder for holder in holders(files) if holder.name == name), None)
        where = "a sweep that is not submitted talks to the terminal that it was started from"
        what = not_running(name, files) if running is None else str(running)
        raise UserError(f"{what}; {where}, and the log of a job is at its cluster: give --address http://HEAD:8265")
    jobs = api.jobs(address)
    job = str(jobs.latest(name).submission_id)
    if follow:
        jobs.follow(job, _writing(sys.stdout))
    else:
        _writing(sys.stdout)(jobs.logs(job))


def print_stopped(sweep: str, overrides: Sequence[str], address: str | None, talk: Console, *, now: bool) -> None:
    """The sweep was asked to stop, by its storage, or, where an address is given, by its cluster."""
    name, files = api.sweep_named(sweep, overrides)
    if address is None:
        holder = api.stop(name, files, "now" if now else "finish")
        talk.print(not_running(name, files) if holder is None else asked(holder, now=now))
        return
    jobs = api.jobs(address)
    job = jobs.latest(name)
    if job.status.is_terminal():
        talk.print(f"job {job.submission_id} has ended already ({job.status.value})")
    elif now:
        ended = jobs.stop_now(str(job.submission_id))
        talk.print(f"job {job.submission_id} has ended ({ended.status.value})")
    else:
        talk.print(jobs.stop_by_storage(job, name))


def _writing(stream: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        stream.write(shown(text))
        stream.flush()

    return write


def _first_line(message: str | None) -> str:
    return (message or "ended without a reason").strip().splitlines()[0]
