"""Sweeps as Ray jobs: submitted from any machine, followed, and stopped, by the address of the head's dashboard."""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import re
import shlex
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import time_ray
from time_ray.cluster.shipped import Shipped
from time_ray.core.errors import ClusterError, UserError
from time_ray.core.loopback import past_proxies
from time_ray.core.secrets import hidden
from time_ray.version import COMMIT_VARIABLE, git_commit

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

CONNECT_SECONDS = 10.0
LOST_SECONDS = 60.0  # a head that does not answer for so long is lost
POLL_SECONDS = 1.0
STOP_SECONDS = 30  # for leaving the cluster, before Ray kills what is left of a job
SENT = ("MLFLOW_TRACKING_URI",)  # of our environment, beside the storage
OWN_EXITS = (1, 2, 130)  # a sweep that ended with one of these has said why, and would do so again

_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_ADDRESS = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d{1,5})?/?")


class Jobs:
    """The sweeps that are Ray jobs of one cluster."""

    def __init__(self, address: str) -> None:
        """Raise UserError where no Ray of our version answers at the address, or it does not let us in."""
        self.address = address.rstrip("/")
        self._client = _client(self.address)
        with self._answering():
            self._client.list_jobs()

    def submit(self, shipped: Shipped, variables: Mapping[str, str], *, pinned: bool = False) -> str:
        """The sweep is a job of the cluster, which need not have started yet; this is its id.

        Args:
            shipped: The experiment.
            variables: What the job finds in its environment, beside its storage.
            pinned: The cluster installs the versions of our dependencies that this machine has, for this job.

        Raises:
            UserError: The sweep runs already.

        """
        jobs = self.of(shipped.name)
        for job in jobs:
            if not job.status.is_terminal():
                raise UserError(self._runs_already(shipped.name, str(job.submission_id)))
        number = max((int(str(job.submission_id).rpartition("-")[2]) for job in jobs), default=0) + 1
        with tempfile.TemporaryDirectory() as folder:
            for name, text in shipped.files.items():
                Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, name).write_text(text, encoding="utf-8")
            environment = {
                "working_dir": folder,
                "py_modules": [str(Path(time_ray.__file__).parent)],
                "env_vars": {
                    **variables,
                    "TIME_RAY_STORAGE": shipped.storage,
                    COMMIT_VARIABLE: git_commit(),
                    "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
                },
                **({"pip": _pins()} if pinned else {}),
            }
            return self._submit(shipped.command, f"time-ray-{shipped.name}-{number}", environment, shipped.name)

    def of(self, name: str) -> "list[JobDetails]":
        """The jobs of a sweep, in the order in which they were submitted."""
        pattern = re.compile(rf"time-ray-{re.escape(name)}-(\d+)")
        with self._answering():
            found = [(pattern.fullmatch(job.submission_id or ""), job) for job in self._client.list_jobs()]
        numbered = [(int(match[1]), job) for match, job in found if match is not None]
        return [job for _, job in sorted(numbered, key=lambda pair: pair[0])]

    def latest(self, name: str) -> "JobDetails":
        """The job of a sweep that was submitted last. UserError if there is none."""
        jobs = self.of(name)
        if not jobs:
            raise UserError(f"{self.address}: no job of sweep '{name}' is known there; time-ray submit starts one")
        return jobs[-1]

    def follow(self, job: str, write: Callable[[str], None]) -> "JobDetails":
        """The job has ended, and all that it said was written, as it came.

        Raises:
            ClusterError: The head has forgotten the job, or does not answer any more.

        """
        written = 0

        def pass_on(text: str) -> None:
            nonlocal written
            written += len(text)
            write(text)

        while not (details := self._details(job)).status.is_terminal():
            if details.driver_agent_http_address is not None:  # else its node is being prepared
                with _broken_off():
                    asyncio.run(self._tail(job, written, pass_on))
            time.sleep(POLL_SECONDS)
        pass_on(self.logs(job)[written:])
        return details

    def logs(self, job: str) -> str:
        """All that a job has said so far; nothing if its node is gone."""
        with contextlib.suppress(RuntimeError):
            return str(self._client.get_job_logs(job))
        return ""

    def stop_now(self, job: str) -> "JobDetails":
        """The job has been broken off, and has ended."""
        with self._answering():
            self._client.stop_job(job)
        until = time.monotonic() + STOP_SECONDS + LOST_SECONDS
        while not (details := self._details(job)).status.is_terminal() and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return details

    def stop_by_storage(self, job: "JobDetails", name: str) -> str:
        """The sweep is asked to stop by its storage, from within the cluster; this is the answer.

        A job of its own does that: the storage, and what is needed to reach it, are in the first job's environment.
        """
        command = shlex.join(["python", "-m", "time_ray", "stop", name])
        asking = self._submit(
            command, f"time-ray-stop-{name}-{uuid.uuid4().hex[:6]}", dict(job.runtime_env or {}), name
        )
        said: list[str] = []
        self.follow(asking, said.append)
        lines = "".join(said).strip().splitlines()
        return lines[-1] if lines else f"job {asking} said nothing"

    def _submit(self, command: str, job: str, environment: dict[str, Any], name: str) -> str:
        metadata = {"time_ray_sweep": name, "time_ray": time_ray.__version__}
        with self._answering():
            try:
                return str(
                    self._client.submit_job(
                        entrypoint=command, submission_id=job, runtime_env=environment, metadata=metadata
                    )
                )
            except RuntimeError as error:
                if "already exists" in str(error):  # another machine was faster
                    raise UserError(self._runs_already(name, job)) from None
                raise

    def _runs_already(self, name: str, job: str) -> str:
        how = f"follow it: time-ray logs {name} --address {self.address}; or end it: time-ray stop"
        return f"{self.address}: sweep '{name}' runs there already, as job {job}; {how}"

    def _details(self, job: str) -> "JobDetails":
        """What the cluster knows of a job. ClusterError if it knows it no more, or is silent for a minute."""
        until = time.monotonic() + LOST_SECONDS
        while True:
            try:
                with self._answering():
                    return self._client.get_job_info(job)
            except ConnectionError:
                if time.monotonic() > until:
                    raise
            except ClusterError as error:
                if "does not exist" not in str(error):
                    raise
                msg = f"{self.address}: job {job} has vanished, as when a head is started anew"
                raise ClusterError(f"{msg}; what was stored is there: submit it again to go on") from None
            time.sleep(POLL_SECONDS)

    async def _tail(self, job: str, skip: int, write: Callable[[str], None]) -> None:
        async for text in self._client.tail_job_logs(job):
            news, skip = text[skip:], max(0, skip - len(text))
            if news:
                write(news)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """What Ray and its HTTP client raise is one line."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise UserError(_unauthenticated(self.address, str(error).split("\n", 1)[0])) from None
        except requests.exceptions.RequestException as error:
            raise ConnectionError(f"{self.address}: {type(error).__name__}") from error
        except RuntimeError as error:
            last = (str(error).strip().splitlines() or [""])[-1]
            raise ClusterError(f"{self.address}: Ray refused: {hidden(last)}") from error


def exit_code(job: "JobDetails") -> int:
    """As of the sweep itself: 0 done, 130 stopped, else what it ended with."""
    if job.status.value in ("SUCCEEDED", "STOPPED"):
        return 0 if job.status.value == "SUCCEEDED" else 130
    return job.driver_exit_code if job.driver_exit_code in OWN_EXITS else 1


def is_lost(job: "JobDetails") -> bool:
    """Whether the job ended without its sweep having said so, as when its node went: the same again goes on."""
    return job.status.value == "FAILED" and job.driver_exit_code not in OWN_EXITS


def variables(names: Sequence[str]) -> dict[str, str]:
    """Of our environment, what a job is to find in its own: the named ones, and those that every sweep needs.

    Raises:
        UserError: A named variable is not set.

    """
    unset = [name for name in names if name not in os.environ]
    UserError.unless_none(f"--env {name}: is not set here; export {name}=... first" for name in unset)
    return {name: os.environ[name] for name in (*SENT, *names) if name in os.environ}


def _client(address: str) -> "JobSubmissionClient":
    if not _ADDRESS.fullmatch(address):
        raise UserError(
            f"--address: '{hidden(address)}' is no address; write http://HOST:8265, of the head's dashboard"
        )
    os.environ.update(past_proxies(os.environ))
    _check_version(address)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # goes before what the client is told
    from ray.job_submission import JobSubmissionClient

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    return JobSubmissionClient(address)


def _check_version(address: str) -> None:
    """A Ray of our version answers at the address within seconds. UserError otherwise."""
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled  # as its client

    request = urllib.request.Request(f"{address}/api/version", headers=get_auth_headers_if_auth_enabled({}))  # noqa: S310 it is http
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer:  # noqa: S310 it is http
            theirs = json.load(answer)["ray_version"]
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise UserError(_unauthenticated(address, error.reason)) from None
        raise UserError(f"--address: {address} answers '{error}', and is no Ray dashboard; {_RIGHT_ONE}") from None
    except (ValueError, KeyError, TypeError, http.client.HTTPException):
        raise UserError(f"--address: what answers at {address} is no Ray dashboard; {_RIGHT_ONE}") from None
    except OSError as error:
        why = getattr(error, "reason", error)
        raise UserError(f"--address: nothing answers at {address} ({why}); {_RIGHT_ONE}") from None
    ours = version("ray")
    if theirs != ours:
        raise UserError(
            f"--address: {address} runs Ray {theirs}, and here is Ray {ours}; install {theirs} or {ours} on both"
        )


_RIGHT_ONE = "give the address of the head's dashboard, as in http://HOST:8265, and see that it can be reached"


def _unauthenticated(address: str, reason: str) -> str:
    how = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the token of the cluster"
    return f"--address: {address} does not let us in ({reason.strip().rstrip('.')}); {how}"


def _pins() -> list[str]:
    """The packages that time_ray needs in the versions that are here, without the build that goes with a machine."""
    names = [
        re.split(r"[\s<>=!~\[;]", line, maxsplit=1)[0] for line in requires("time_ray") or () if "extra ==" not in line
    ]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names if name != "ray"]


@contextmanager
def _broken_off() -> Iterator[None]:
    """A connection that breaks while logs come is made again by whoever asks next."""
    import aiohttp

    with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
        yield
