"""Paths as people write them: `~` is their home folder."""

from pathlib import Path

from time_ray.core.errors import UserError


def at_home(path: str | Path) -> Path:
    """The path with a leading `~` or `~user` spelled out. Raises UserError where that user has no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such user, or no home folder; write the path without ~") from error
