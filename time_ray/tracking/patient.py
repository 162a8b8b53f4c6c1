"""A client of MLflow that asks again: an answer may be lost on its way, and a server too busy, now and then.

What was done is not done again: each request is repeated by itself. A server that is not there, or silent, is not asked
again here: `mlflow_sync.py` waits for it.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # seconds before a request is repeated
BUDGET_SECONDS = 300.0  # of pauses, in the life of a client
_BUSY = (429, 500, 502, 503, 504)
_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")

T = TypeVar("T")


class PatientClient:
    """MlflowClient, every request of which is repeated where its fault may pass.

    That must not be done to what makes something new, or adds a row that may be there: see `made`.
    """

    def __init__(self, client: Any, budget: float = BUDGET_SECONDS) -> None:
        self._client = client
        self._budget = budget

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*args: Any, **kwargs: Any) -> Any:
            return self._repeated(
                lambda: getattr(self._client, name)(*args, **kwargs), is_removal=name.startswith("delete_")
            )

        return ask

    def made(self, make: Callable[[Any], T], find: Callable[[], T | None]) -> T:
        """What was made: found, where the answer to its making was lost.

        Args:
            make: asks the client that it is given for it, by one request.
            find: looks for what that request makes.

        """
        asked = False

        def find_or_make() -> T:
            nonlocal asked
            found = find() if asked else None
            asked = True
            return make(self._client) if found is None else found

        return self._repeated(find_or_make)

    def log_artifacts(self, run_id: str, folder: str, at: str | None = None) -> None:
        """Every file of the folder is an artifact of the run: by one call, and where that fails each by its own."""
        try:
            self._client.log_artifacts(run_id, folder, at)
        except Exception as error:
            if not may_pass(error):
                raise
            for path, place in _files(Path(folder), at):
                self.log_artifact(run_id, path, place)

    def log_model_artifacts(self, model_id: str, folder: str) -> None:
        """Every file of the folder is one of the logged model: likewise."""
        try:
            self._client.log_model_artifacts(model_id, folder)
        except Exception as error:
            if not may_pass(error):
                raise
            for path, place in _files(Path(folder), None):
                self.log_model_artifact(model_id, path, place)

    def download(self, address: str, folder: str) -> str:
        """The path of an artifact that lies at an address: where it is, if on this machine, or else in the folder."""
        from mlflow.artifacts import download_artifacts

        to = None if address.startswith("file:") else folder
        uri = self._client.tracking_uri
        return str(self._repeated(lambda: download_artifacts(address, dst_path=to, tracking_uri=uri)))

    def _repeated(self, ask: Callable[[], T], *, is_removal: bool = False) -> T:
        for number, pause in enumerate((*PAUSES, None)):
            try:
                return ask()
            except Exception as error:
                if is_removal and number and getattr(error, "error_code", None) in _GONE:
                    return cast("T", None)  # the request whose answer was lost removed it
                if pause is None or pause > self._budget or not may_pass(error):
                    raise
                self._budget -= pause
                time.sleep(pause)
        raise AssertionError  # the last one returns or raises


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment: its answer was lost, or the server is busy."""
    from requests import exceptions as requested
    from urllib3 import exceptions as urllib

    chain = list(_chain(error))
    unreachable = (ConnectionRefusedError, requested.Timeout, urllib.NewConnectionError, urllib.TimeoutError)
    responses = (each.response for each in chain if isinstance(each, requested.HTTPError))
    if any(response is not None and response.status_code in _BUSY for response in responses):
        return True
    return not was_answered(error) and not any(isinstance(each, unreachable) for each in chain)


def was_answered(error: BaseException) -> bool:
    """Whether whoever was asked said so, and is not merely out of reach or too busy."""
    from requests import exceptions as requested

    lost = (ConnectionError, requested.ConnectionError, requested.ChunkedEncodingError, requested.RetryError)
    return not any(isinstance(each, (*lost, requested.Timeout)) for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it follows from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _files(folder: Path, at: str | None) -> Iterator[tuple[str, str | None]]:
    """Every file below the folder, and the folder among artifacts that it goes to."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inner = path.relative_to(folder).parent.as_posix()
        places = [part for part in (at, inner) if part and part != "."]
        yield str(path), "/".join(places) or None
