"""Whether MLflow is there and takes what a sweep would tell it: a server may answer, and refuse all the same."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecodeError, loads
from urllib.parse import urlsplit

from time_ray.core.errors import StoreError, UserError
from time_ray.core.finding import Finding
from time_ray.core.secrets import hidden
from time_ray.store.files import Files
from time_ray.tracking.client import answering, open_client, settle, tracking_uri
from time_ray.tracking.uris import database_file
from time_ray.tracking.views import VIEW_TAGS

CHECK = "MLflow"
SECONDS = 10.0
_API = "/api/2.0/mlflow/experiments"  # unlike /health, what is asked here is refused where a sweep would be
_REBINDING = "DNS rebinding"  # MLflow's words where it was not told of the host name that it is called by
_SHOWN = 200


@dataclass(frozen=True)
class Answer:
    """What a server said; status 0: nothing, and the text says why."""

    status: int
    text: str


def mlflow_findings(files: Files, experiment: str | None = None, seconds: float = SECONDS) -> list[Finding]:
    """What is wrong with where results are tracked; nothing for a database that is yet to be made.

    Args:
        files: The storage, beside which an SQLite file lies by default.
        experiment: The name of one that is to be written; None: none in particular.
        seconds: How long a server may take to answer.

    """
    try:
        uri = tracking_uri(files)
    except UserError as error:
        return [Finding(CHECK, "MLflow", *_parts(error.faults[0]))]
    if uri.startswith(("http://", "https://")):
        found = list(refusals(uri, _asked(uri, seconds, "GET", "search", params={"max_results": 1})))
        if not found and experiment:
            found = list(_unwritable(uri, experiment, seconds))
        return [Finding(CHECK, hidden(uri), *each) for each in found]
    file = database_file(uri)
    if file is not None and not file.exists():
        return []
    try:
        with answering(uri):
            open_client(uri).search_experiments(max_results=1)
    except StoreError as error:
        why = str(error.__cause__)
        return [Finding(CHECK, hidden(uri), f"cannot be used ({_short(why)})", _database_remedy(why))]
    return []


def refusals(uri: str, answer: Answer) -> Iterator[tuple[str, str]]:
    """What is wrong with a server that answered so, and what to do."""
    if answer.status == 0:
        yield _silence(answer.text)
    elif answer.status == 200:
        if not _is_mlflow(answer.text):
            yield "answers, but is no MLflow server", "set MLFLOW_TRACKING_URI to its address, as in http://HOST:5000"
    elif answer.status == 401:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        who = f"does not know the user {user} by this password" if user else "asks for a user"
        yield f"{who} (401)", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    elif answer.status == 403 and _REBINDING in answer.text:
        host = urlsplit(uri).netloc.rpartition("@")[2]
        fault = f"refuses the host name {host}, which it was not told of (403, DNS rebinding)"
        yield fault, f"start it with --allowed-hosts '{host},localhost:*', or MLFLOW_SERVER_ALLOWED_HOSTS"
    elif answer.status == 403:
        yield f"forbids it (403: {_short(answer.text)})", "have its administrator give this user the right to write"
    elif answer.status == 404:
        fault = "has no MLflow at this path (404)"
        yield fault, "end MLFLOW_TRACKING_URI before /api, /# or /experiments; keep its --static-prefix"
    elif answer.status == 407:
        yield "is behind a proxy that asks for a user (407)", "add its host to no_proxy, or give the proxy a user"
    else:
        yield (
            f"answers {answer.status} ({_short(answer.text)})",
            "see to its log, its database and what stands before it",
        )


def _silence(why: str) -> tuple[str, str]:
    """Of a server that said nothing."""
    if "ProxyError" in why or "proxy" in why.lower():
        return "is looked for through a proxy that does not lead there", "add its host to no_proxy"
    if "CERTIFICATE" in why.upper() or "SSLError" in why:
        return (
            f"has a certificate that cannot be checked ({_short(why)})",
            "set MLFLOW_TRACKING_SERVER_CERT_PATH, or write http:// where it has none",
        )
    if "NameResolution" in why or "not known" in why or "Temporary failure in name" in why:
        return "its name does not resolve", "correct MLFLOW_TRACKING_URI, or give the name in the DNS or /etc/hosts"
    if "refused" in why:
        return "nothing answers there (connection refused)", "start the server, or correct its port"
    if "timed out" in why or "timeout" in why.lower():
        return "does not answer in time", "see that it runs, and that no firewall is between"
    return f"cannot be reached ({_short(why)})", "see that it runs, and correct MLFLOW_TRACKING_URI"


def _unwritable(uri: str, experiment: str, seconds: float) -> Iterator[tuple[str, str]]:
    """Why an experiment that is there cannot be written: what it says already is written again, and changes nothing."""
    answer = _asked(uri, seconds, "GET", "get-by-name", params={"experiment_name": experiment})
    if answer.status != 200:
        return  # there is none yet
    found = loads(answer.text)["experiment"]
    tags = [tag for tag in found.get("tags", ()) if tag["key"] in VIEW_TAGS.values()]
    for tag in tags:
        answer = _asked(
            uri, seconds, "POST", "set-experiment-tag", json={**tag, "experiment_id": found["experiment_id"]}
        )
        if answer.status == 403:
            fault = f"lets this user read the experiment '{experiment}', but not write it (403)"
            yield fault, "have its owner give the permission EDIT, or name the experiment otherwise"


def _asked(uri: str, seconds: float, method: str, what: str, **parameters: object) -> Answer:
    """What the server says to a question of a sweep, asked as MLflow would: with its users, tokens and certificates."""
    settle()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request
    from requests import RequestException

    try:
        response = http_request(
            get_default_host_creds(uri),
            f"{_API}/{what}",
            method,
            max_retries=0,
            timeout=seconds,
            raise_on_status=False,
            **parameters,
        )
    except (MlflowException, RequestException) as error:
        return Answer(0, str(error))
    return Answer(response.status_code, response.text)


def _is_mlflow(text: str) -> bool:
    try:
        found = loads(text)
    except JSONDecodeError:
        return False
    return isinstance(found, dict) and (not found or "experiments" in found)


def _database_remedy(why: str) -> str:
    if "No module named" in why:
        package = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
        missing = why.rpartition("No module named ")[2].split()[0].strip("'\"")
        return f"pip install {package.get(missing, missing)}"
    return "see that it answers and is whole, and to MLFLOW_TRACKING_URI"


def _parts(line: str) -> tuple[str, str]:
    """A fault's line as what is wrong and what to do."""
    fault, _, remedy = line.rpartition("; ")
    return fault, remedy


def _short(text: str) -> str:
    line = hidden(" ".join(text.split()))
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
