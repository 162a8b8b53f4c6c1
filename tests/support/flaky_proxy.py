"""A proxy before an HTTP server that loses answers, or says that the server is busy, as often as it is told."""

import random
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

LOST = 0  # the request is carried out, and no answer comes back

Trouble = Callable[[random.Random], int | None]  # an HTTP status, LOST, or None: the request passes


class FlakyProxy:
    """On loopback; `uri` is its address.

    Attributes:
        requests: how many came.
        troubled: how many of them met with trouble.

    """

    def __init__(self, upstream: str, trouble: Trouble, seed: int = 0) -> None:
        self.requests = self.troubled = 0
        self._upstream = urlsplit(upstream).netloc
        self._trouble = trouble
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Callable[[], None]:
                if not name.startswith("do_"):
                    raise AttributeError(name)
                return lambda: proxy.serve(self)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        with self._lock:
            self.requests += 1
            trouble = self._trouble(self._chance)
            self.troubled += trouble is not None
        if trouble:
            answer(request, trouble, b"busy")
            return
        connection = HTTPConnection(self._upstream, timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        connection.request(request.command, request.path, body, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        if trouble == LOST:
            request.close_connection = True
        else:
            answer(request, response.status, data, response.getheader("Content-Type", "application/json"))

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(request: BaseHTTPRequestHandler, status: int, data: bytes, kind: str = "text/plain") -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
