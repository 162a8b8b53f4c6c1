"""Ray: a private local cluster on a laptop, or the cluster that RAY_ADDRESS names."""

import contextlib
import os
import re
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from time_ray.core.errors import UserError
from time_ray.core.secrets import hidden
from time_ray.core.waiting import STARTS_AT_ONCE
from time_ray.private_files import close_to_others
from time_ray.version import COMMIT_VARIABLE, git_commit

if TYPE_CHECKING:
    from ray.job_config import JobConfig

# read when ray is imported: no usage report leaves the machine, no extra loggers, no output of Tune's own
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # what is done is known from the store
    "TUNE_MAX_PENDING_TRIALS_PG": str(STARTS_AT_ONCE),
    "RAY_worker_maximum_startup_concurrency": "16",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_ONE_MACHINE = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody announces the end of a laptop; it would be one more process
    "RAY_task_events_report_interval_ms": "0",  # nobody looks at single calls; the GCS would keep 100,000 of them
}
_ESSENTIAL = ("gcs_server", "raylet")  # a private cluster does not go on without these
_CONNECT_SECONDS = 10.0
RAYS = "r"  # of our folder, what Ray makes writable for everybody; short, for the paths of sockets


def check_address(address: str | None = None) -> None:
    """The address, or else RAY_ADDRESS if set, is one that Ray understands, and something answers there.

    Raises:
        UserError: It does not.

    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address or address == "auto":
        return
    found = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise UserError(f"RAY_ADDRESS: '{hidden(address)}' is no address; write auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), _CONNECT_SECONDS).close()
    except OSError as error:
        msg = f"RAY_ADDRESS: nothing answers at {address} ({error}); start the cluster, or unset it for a private one"
        raise UserError(msg) from None


@contextmanager
def connected(folder: str, *, threads: int, groups: bool) -> Iterator[str]:
    """A Ray cluster is connected while the block runs: the one that RAY_ADDRESS names, else one started for the block.

    Gives the address of its dashboard, if it has one.

    Groups of workers need Ray's State API: without it what a group holds might never be given back.

    Args:
        folder: Where a cluster that is started keeps its files.
        threads: CPU threads of a process, until a trial says what its own are.
        groups: Whether trials have several workers.

    Raises:
        UserError: The cluster cannot be joined, or lacks what a sweep needs of it.

    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if "RAY_ADDRESS" not in os.environ:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read at import: everything listens on 127.0.0.1 only
    import ray

    env = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "MALLOC_ARENA_MAX": "2",  # glibc keeps what was freed for each thread apart: 100 MB a process
        COMMIT_VARIABLE: git_commit(),
        **_SETTINGS,
    }
    if address := os.environ.get("RAY_ADDRESS"):
        dashboard = _join(address, env)
    else:
        dashboard = _start_local(env, folder, dashboard=groups)
        close_to_others(Path.home() / ".ray" / "auth_token")  # Ray itself leaves it readable
    try:
        if groups:
            _check_state_api()
        yield dashboard
    finally:
        ray.shutdown()


def _join(address: str, env: dict[str, str]) -> str:
    import ray

    check_address(address)  # again: Ray waits minutes for a head that was lost meanwhile
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # within a Ray job: variables that it has, too, are ours to set

    try:
        context = ray.init(
            address=address,
            job_config=None if address.startswith("ray://") else _without_working_folder(),  # a client adds none
            runtime_env={"env_vars": env},
            logging_level="ERROR",
            log_to_driver=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"RAY_ADDRESS: {address}: {reason}; start the cluster, or unset it for a private one"
        ) from error
    return _dashboard(context)


def _start_local(env: dict[str, str], folder: str, *, dashboard: bool) -> str:
    """Four processes fewer without the dashboard, which answers for the State API."""
    import ray

    port = _free_port()
    # Ray Train's cleaner asks the State API; told the port, it cannot ask another cluster of this host by mistake
    env = {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}", **_ONE_MACHINE}
    os.environ.update(_ONE_MACHINE)
    os.environ["RAY_API_SERVER_ADDRESS"] = env["RAY_API_SERVER_ADDRESS"]
    context = ray.init(
        address="local",
        include_dashboard=dashboard,
        dashboard_host="127.0.0.1",
        dashboard_port=port,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(Path(folder, RAYS)),
        job_config=_without_working_folder(),
        runtime_env={"env_vars": env},
        logging_level="ERROR",
        log_to_driver=False,
    )
    return _dashboard(context)


def _without_working_folder() -> "JobConfig":
    """Ray would have its workers import from the folder that the sweep was started in."""
    from ray.job_config import JobConfig

    class OursAlone(JobConfig):  # type: ignore[misc]
        def _serialize(self) -> bytes:
            self._py_driver_sys_path: list[str] = []
            return bytes(super()._serialize())

    return OursAlone()


def _dashboard(context: Any) -> str:
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""


class Parts:
    """The parts of a private cluster without which nothing goes on, as they may be asked for from another thread."""

    def __init__(self) -> None:
        self._starting: dict[str, psutil.Process] | None = {}

    def lost(self) -> str | None:
        """One that has ended, if there is one. Ray knows of its parts once all have started; it is not imported."""
        worker = sys.modules.get("ray._private.worker")  # there is no public way
        node = getattr(worker, "_global_node", None)
        if node is not None:
            self._starting = None
            dead = {name for name, _ in node.dead_processes()}
        elif self._starting is not None:
            self._starting = {**_children(_ESSENTIAL), **self._starting}
            dead = {name for name, part in self._starting.items() if _has_ended(part)}
        else:
            dead = set()  # it was shut down
        return next((name for name in _ESSENTIAL if name in dead), None)


def _children(names: Collection[str]) -> dict[str, psutil.Process]:
    """Processes of these names that this one has started."""
    found: dict[str, psutil.Process] = {}
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it went meanwhile
            if (name := child.name()) in names:
                found[name] = child
    return found


def _has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def head_address() -> str:
    """Where the head of the connected cluster answers: HOST:PORT."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_state_api() -> None:
    """Without the State API a group of workers that is stopped would keep its resources for ever."""
    from ray.util.state import list_nodes

    try:
        list_nodes(timeout=30)
    except Exception as error:
        msg = (
            f"ray: the State API does not answer ({error}); start the head with its dashboard, and install ray[default]"
        )
        raise UserError(msg) from error


def nodes() -> tuple[dict[str, float], ...]:
    """What every node that is there now holds, whether it is in use or not."""
    import ray

    return tuple(node["Resources"] for node in ray.nodes() if node["Alive"])


def node_names() -> dict[str, str]:
    """Every node that is there now, by id: how people call it."""
    import ray

    found = [node for node in ray.nodes() if node["Alive"]]
    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in found}


def can_grow() -> bool:
    """Whether an autoscaler stands behind the cluster, so that what does not fit now may fit later."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists() or "KUBERNETES_SERVICE_HOST" in os.environ
