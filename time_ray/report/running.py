"""What people are told of sweeps that run, or do not, on a storage."""

from time_ray.store.files import Files
from time_ray.store.lease import CLEANING, Holder, holders


def asked(holder: Holder, *, now: bool) -> str:
    """Who was asked to stop a sweep; the holder is who runs it."""
    what = "break off what is running" if now else "finish what is running"
    who = f"process {holder.fields['pid']} on {holder.fields['host']}"
    return f"asked {who} to {what} and stop; time-ray status EXP --watch shows when it has"


def not_running(name: str, files: Files) -> str:
    """That nobody runs a sweep, and what else runs on the storage."""
    others = sorted({holder.name for holder in holders(files)} - {CLEANING})
    beside = f"; these are: {', '.join(others)}" if others else ""
    return f"sweep '{name}' is not running on {files.shown}{beside}"
