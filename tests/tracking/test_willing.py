"""Whether MLflow is willing: servers that answer and refuse all the same are told apart, each with its remedy."""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.server.security_utils import INVALID_HOST_MSG

from time_ray.core.finding import Finding
from time_ray.store.files import Files
from time_ray.tracking.willing import mlflow_findings

Serve = Callable[[int, str], str]
ServeEach = Callable[[dict[str, tuple[int, str]]], str]
NOT_FOUND = "<!doctype html><title>404 Not Found</title>"


@pytest.fixture
def serve(serve_each: ServeEach) -> Serve:
    """Starts a server that gives every request the same answer, and names its address."""
    return lambda status, text: serve_each(defaultdict(lambda: (status, text)))


@pytest.fixture
def serve_each() -> Iterator[ServeEach]:
    """Starts a server that gives each kind of request its answer: by the last part of its path."""
    servers = []

    def start(answers: dict[str, tuple[int, str]]) -> str:
        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = answers[self.path.partition("?")[0].rpartition("/")[2]]
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *args: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def found(root: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return mlflow_findings(Files(str(root)), seconds=5.0)


REFUSALS = [
    (403, INVALID_HOST_MSG, "refuses the host name 127.0.0.1:", "start it with --allowed-hosts '127.0.0.1:"),
    (403, "Permission denied", "forbids it (403: Permission denied)", "the right to write"),
    (401, "You are not authenticated.", "asks for a user (401)", "MLFLOW_TRACKING_USERNAME"),
    (404, NOT_FOUND, "has no MLflow at this path (404)", "end MLFLOW_TRACKING_URI before /api"),
    (200, "<html>a page</html>", "answers, but is no MLflow server", "as in http://HOST:5000"),
    (200, '{"status": "fine"}', "answers, but is no MLflow server", "as in http://HOST:5000"),
    (502, "Bad Gateway", "answers 502 (Bad Gateway)", "what stands before it"),
]


@pytest.mark.parametrize(("status", "text", "fault", "remedy"), REFUSALS)
def test_a_server_that_refuses(
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    text: str,
    fault: str,
    remedy: str,
) -> None:
    uri = serve(status, text)
    (finding,) = found(tmp_path, uri.replace("//", "//me:pa55word@"), monkeypatch)
    assert (finding.check, finding.where) == ("MLflow", uri)
    assert fault in finding.fault
    assert remedy in finding.remedy
    assert "pa55word" not in str(finding)


def test_a_user_who_may_only_read(tmp_path: Path, serve_each: ServeEach, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the experiment that the sweep is to write to tells."""
    tag = {"key": "mlflow.sharedViewState.cells", "value": "{}"}
    mine = {"experiment": {"experiment_id": "7", "name": "mine", "tags": [tag]}}
    answers = {"search": (200, "{}"), "get-by-name": (200, json.dumps(mine)), "set-experiment-tag": (403, "no")}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve_each(answers))
    assert mlflow_findings(Files(str(tmp_path))) == []
    (finding,) = mlflow_findings(Files(str(tmp_path)), "mine")
    assert finding.fault == "lets this user read the experiment 'mine', but not write it (403)"
    assert "EDIT" in finding.remedy
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve_each({**answers, "set-experiment-tag": (200, "{}")}))
    assert mlflow_findings(Files(str(tmp_path)), "mine") == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serve_each({**answers, "get-by-name": (404, "{}")}))
    assert mlflow_findings(Files(str(tmp_path)), "mine") == []


def test_a_user_who_is_not_known_is_named(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pa55word")
    (finding,) = found(tmp_path, serve(401, ""), monkeypatch)
    assert finding.fault == "does not know the user me by this password (401)"


@pytest.mark.parametrize("text", ["{}", '{"experiments": [], "next_page_token": ""}'])
def test_a_server_that_is_willing(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert found(tmp_path, serve(200, text), monkeypatch) == []


@pytest.mark.parametrize(
    ("uri", "fault", "remedy"),
    [
        ("http://127.0.0.1:1", "nothing answers there (connection refused)", "start the server, or correct its port"),
        ("http://no-such-host.invalid:5000", "its name does not resolve", "correct MLFLOW_TRACKING_URI"),
        ("htp://127.0.0.1", "MLFLOW_TRACKING_URI: 'htp://127.0.0.1' is no address of MLflow", "write http://HOST:PORT"),
        ("postgresql+none://me:pa55word@127.0.0.1:1/x", "cannot be used (", "MLFLOW_TRACKING_URI"),
    ],
)
def test_addresses_where_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, fault: str, remedy: str
) -> None:
    (finding,) = found(tmp_path, uri, monkeypatch)
    assert fault in finding.fault
    assert remedy in finding.remedy
    assert "pa55word" not in str(finding)


def test_a_proxy_that_does_not_lead_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    (finding,) = found(tmp_path, "http://mlflow:5000", monkeypatch)
    assert finding.fault == "is looked for through a proxy that does not lead there"
    assert finding.remedy == "add its host to no_proxy"


def test_a_file_that_is_yet_to_be_made_is_no_fault(tmp_path: Path) -> None:
    assert mlflow_findings(Files(str(tmp_path))) == []


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"something else" * 100)
    (finding,) = mlflow_findings(Files(str(tmp_path)))
    assert finding.fault.startswith("cannot be used (")
