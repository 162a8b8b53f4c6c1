"""An S3 server (moto's), on loopback unless it is told otherwise, that can be made slow, silent or wrong."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Respond = Callable[..., Iterable[bytes]]
SECRET = "never-to-be-shown"  # noqa: S105 moto takes anything


class S3Server:
    """moto behind a door that `trouble` may hold shut: it sees every request before moto does."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.trouble: Callable[[dict[str, Any], Respond], Iterable[bytes] | None] | None = None
        self.requests = 0
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(host, 0, self._serve, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def uri(self, path: str) -> str:
        """The address of a root in a bucket of this server."""
        address = f"{self._server.host}:{self._server.server_port}"
        return f"s3://{path}?scheme=http&region=us-east-1&allow_bucket_creation=true&endpoint_override={address}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def troubled(self, trouble: Callable[[dict[str, Any], Respond], Iterable[bytes] | None]) -> Iterator[None]:
        """While the block runs, requests go through `trouble`; None from it lets one pass."""
        self.trouble = trouble
        try:
            yield
        finally:
            self.trouble = None

    def _serve(self, environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        self.requests += 1
        answer = self.trouble(environ, respond) if self.trouble else None
        return self._app(environ, respond) if answer is None else answer


def refuse(respond: Respond, status: str = "503 Slow Down", code: str = "SlowDown") -> Iterable[bytes]:
    """An error as S3 words it."""
    body = f"<Error><Code>{code}</Code><Message>try again</Message></Error>".encode()
    respond(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def every(count: int, status: str, code: str) -> Callable[[dict[str, Any], Respond], Iterable[bytes] | None]:
    """Each `count`-th request is refused."""
    seen = iter(range(10**9))
    return lambda _, respond: refuse(respond, status, code) if next(seen) % count == 0 else None


def late(seconds: float) -> Callable[[dict[str, Any], Respond], None]:
    """Every request takes that much longer."""
    return lambda *_: time.sleep(seconds)
