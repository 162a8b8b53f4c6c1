"""Processes of this host, as leases ask for them: whether one has ended, or is only stopped."""

import os
from functools import cache
from pathlib import Path


@cache
def host_id() -> str:
    """What processes share that can see each other by number: since this host's start, and in one container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # this system has no such files
        return ""


def start_of(pid: int) -> int:
    """When the process started, in ticks since the host did; 0 where it has ended, or the system does not say.

    A number is given anew once its process has ended: both together are never another's.
    """
    fields = _fields(pid)
    return int(fields[19]) if fields else 0


def has_ended(pid: int, start: int) -> bool:
    """Whether the process that started then is no more, or is one whose parent has only not asked how it ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, as somebody else's
    fields = _fields(pid)
    return bool(fields) and (fields[0] in "ZX" or (start > 0 and int(fields[19]) != start))


def is_stopped(pid: int) -> bool:
    """Whether the process was stopped, as by SIGSTOP or Ctrl-Z, and may go on."""
    return _fields(pid)[:1] in (["T"], ["t"])


def _fields(pid: int) -> list[str]:
    """What the system says of a process, from its state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it went meanwhile, or this system has no such files
        return []
