"""Sweeps as Ray jobs: addresses that will not do, and a cluster that `ray start` has made."""

import contextlib
import http.server
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray_head import free_ports, ray_head

from time_ray import api
from time_ray.cluster import jobs as ray_jobs
from time_ray.core.errors import ClusterError, UserError
from time_ray.store.files import Files
from time_ray.store.lease import holders

Make = Callable[..., Path]
COMMAND = [sys.executable, "-c", "from time_ray.cli import main; main()"]
SECRET = "not-for-everybody"  # noqa: S105
SMALL = {"init": ["ft", "ema"], "deploy": ["ema", "all"], "technique": ["average"]}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@contextmanager
def served(status: int, body: bytes) -> Iterator[str]:
    """A server that gives everybody the same answer."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=partial(server.serve_forever, 0.05))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def refusal(address: str) -> str:
    with pytest.raises(UserError) as refused:
        api.jobs(address)
    (line,) = refused.value.faults
    return line


@pytest.mark.parametrize("address", ["head", "head:8265", "ray://head:10001", "http://h:123456", "http://u:p@h:1/x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    line = refusal(address)
    assert line.endswith("is no address; write http://HOST:8265, of the head's dashboard")
    assert "u:p" not in line


def test_where_nothing_answers_is_told() -> None:
    (port,) = free_ports(1)
    assert refusal(f"http://127.0.0.1:{port}").startswith(f"--address: nothing answers at http://127.0.0.1:{port} (")


def test_who_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "CONNECT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "timed out" in refusal(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (404, b"", "answers 'HTTP Error 404: Not Found', and is no Ray dashboard"),
        (200, b"<html>", "is no Ray dashboard"),
        (200, b"[1]", "is no Ray dashboard"),
        (200, b'{"ray_version": "2.9.3"}', "runs Ray 2.9.3, and here is Ray 2."),
        (401, b"", "does not let us in (Unauthorized); set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or"),
    ],
)
def test_who_is_no_ray_of_ours_is_told(status: int, body: bytes, what: str) -> None:
    with served(status, body) as address:
        assert what in refusal(address)


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    assert ray_jobs.variables(["SOME_TOKEN"]) == {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "SOME_TOKEN": SECRET}
    monkeypatch.delenv("SOME_TOKEN")
    with pytest.raises(UserError, match="--env SOME_TOKEN: is not set here"):
        ray_jobs.variables(["SOME_TOKEN"])


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "lost"),
    [
        ("SUCCEEDED", 0, 0, False),
        ("STOPPED", None, 130, False),
        ("FAILED", 130, 130, False),
        ("FAILED", 2, 2, False),
        ("FAILED", 1, 1, False),
        ("FAILED", 137, 1, True),
        ("FAILED", -9, 1, True),
        ("FAILED", None, 1, True),
    ],
)
def test_how_a_job_ended(status: str, code: int | None, exit_code: int, lost: bool) -> None:
    job: Any = SimpleNamespace(status=SimpleNamespace(value=status), driver_exit_code=code)
    assert (ray_jobs.exit_code(job), ray_jobs.is_lost(job)) == (exit_code, lost)


def test_nothing_can_try_again_without_waiting(
    time_ray: Callable[..., Any], new_experiment: Make, tmp_path: Path
) -> None:
    done = time_ray("submit", new_experiment(tmp_path), "--address", "http://h:1", "--no-wait", "--retry", "1")
    assert (done.status, done.out) == (2, "")
    assert done.err == "error: --retry: a driver that is lost is seen by who follows it; leave out --no-wait\n"


def test_where_the_log_of_a_sweep_is_that_was_not_submitted(
    time_ray: Callable[..., Any], new_experiment: Make, tmp_path: Path
) -> None:
    done = time_ray("logs", new_experiment(tmp_path))
    assert (done.status, done.out) == (2, "")
    assert f"sweep 'tiny' is not running on {tmp_path / 'runs'}; " in done.err
    assert "give --address http://HEAD:8265" in done.err


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    with ray_head(RAY_AUTH_MODE="disabled") as address:
        yield address


def held(path: Path, process: "subprocess.Popen[str] | None" = None) -> dict[str, Any]:
    """What is said of itself by whoever runs the sweep, once somebody does."""
    for _ in range(1200):
        assert process is None or process.poll() is None
        for holder in holders(Files(str(path.parent / "runs"))):
            return holder.fields
        time.sleep(0.1)
    raise AssertionError("the sweep has not begun")


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_sweep_is_submitted_and_stopped_and_goes_on(
    head: str, new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process of the job: what Ray does with trials is tested elsewhere."""
    path = new_experiment(tmp_path, **SMALL, budget="100 steps")
    monkeypatch.setenv("MY_TOKEN", SECRET)
    sent = time_ray("submit", path, "--address", head, "--env", "MY_TOKEN", "--no-wait")
    assert (sent.status, sent.out) == (0, "time-ray-tiny-1\n")
    assert held(path)["job"] == "time-ray-tiny-1"

    again = time_ray("submit", path, "--address", head)
    assert (again.status, again.out) == (2, "")
    assert f"error: {head}: sweep 'tiny' runs there already, as job time-ray-tiny-1; " in again.err

    jobs = api.jobs(head)
    (job,) = jobs.of("tiny")
    assert job.runtime_env is not None
    assert job.runtime_env["env_vars"]["MY_TOKEN"] == SECRET
    assert SECRET not in f"{job.entrypoint} {job.metadata} {sent.err}"

    stopped = time_ray("stop", path)
    assert stopped.status == 0
    assert re.search(r"asked process \d+ on .* to finish what is running and stop", stopped.err)
    log = time_ray("logs", path, "--address", head)
    assert log.status == 0
    assert "asked to stop; finishing what is running" in log.out
    assert "nothing is lost, resume with: time-ray sweep tiny.yaml" in log.out
    assert ray_jobs.exit_code(jobs.latest("tiny")) == 130
    for words in ([], ["--now"]):
        ended = time_ray("stop", path, "--address", head, *words)
        assert (ended.status, ended.err) == (0, "job time-ray-tiny-1 has ended already (FAILED)\n")

    done = time_ray("submit", path, "--address", head)
    assert (done.status, done.out) == (0, "time-ray-tiny-2\n"), done.err
    assert "4 of 4 cells in " in done.err
    assert all(result.done for result in api.status(api.open_experiment(path)))

    with pytest.raises(ClusterError, match=r"job time-ray-tiny-3 has vanished, .* submit it again to go on"):
        jobs.follow("time-ray-tiny-3", print)
    assert "no job of sweep 'other' is known there" in time_ray("logs", "other", "--address", head).err


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_ctrl_c_detaches_and_stop_reaches_a_sweep_by_its_cluster_alone(
    head: str, new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials on Ray. Stopped at once, a sweep holds nothing of the cluster, so that the same job runs at once again."""
    path = new_experiment(tmp_path, **SMALL, name="trials", budget="300 steps", run={"workers": 1})
    words = [*COMMAND, "submit", str(path), "--address", head]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as submit:
        held(path, submit)
        submit.send_signal(signal.SIGINT)
        out, err = submit.communicate(timeout=60)
    assert (submit.returncode, out) == (130, "time-ray-trials-1\n")
    assert f"job time-ray-trials-1 goes on; follow it: time-ray logs trials --address {head}" in err
    elsewhere = time_ray("stop", "trials", "--address", head)  # this process knows no storage
    assert elsewhere.status == 0
    assert re.search(r"asked process \d+ on .* to finish what is running and stop", elsewhere.err)
    assert time_ray("logs", "trials", "--address", head).status == 0

    assert time_ray("submit", path, "--address", head, "--no-wait").status == 0
    held(path)
    time.sleep(20)  # trials have begun
    now = time_ray("stop", path, "--now", "--address", head)
    assert (now.status, now.err) == (0, "job time-ray-trials-2 has ended (STOPPED)\n")
    assert not list((tmp_path / "runs").glob("leases/trials/*"))
    assert time_ray("submit", path, "--address", head).status == 0
    assert all(result.done for result in api.status(api.open_experiment(path)))


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_driver_that_is_killed_is_submitted_again(
    head: str, new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_experiment(tmp_path, **SMALL, name="killed", budget="300 steps")

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(held(path)["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    done = time_ray("submit", path, "--address", head, "--retry", "1")
    killer.join()
    assert (done.status, done.out) == (0, "time-ray-killed-1\ntime-ray-killed-2\n"), done.err
    assert "job time-ray-killed-1 was lost; submitting it again" in done.err


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_a_cluster_with_token_authentication(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own: Ray reads how to authenticate once."""
    path = new_experiment(tmp_path, **SMALL, budget="2 steps")
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}

    def submit(address: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        words = [*COMMAND, "submit", str(path), "--address", address]
        return subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, check=False)

    with ray_head(**secret) as address:
        for variables in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another"}):
            refused = submit(address, **variables)
            assert (refused.returncode, refused.stdout) == (2, "")
            (line,) = refused.stderr.strip().splitlines()
            assert f"--address: {address} does not let us in (" in line
            assert "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH" in line
        assert submit(address, **secret).returncode == 0
    shutil.rmtree(tmp_path / "runs")
