"""Files that MLflow was given, by their digests: which of them it has no more as they were."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from time_ray.tracking.patient import was_answered
from time_ray.whole_files import file_digest

FILES_TAG = "time_ray.files"  # digests of a run's or a model's files, by their paths
_HEX = 16  # digits of a digest: all files of a run fit into a tag

Digests = Mapping[str, str]


def digests_of(folder: Path) -> dict[str, str]:
    """The digest of every file below the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path)[:_HEX] for path in files}


def of_weights(path: str, digest: str) -> dict[str, str]:
    """The same of a file of which the whole digest is known."""
    return {path: digest[:_HEX]}


def written(digests: Digests) -> str:
    """The value of the tag."""
    return json.dumps(dict(sorted(digests.items())), separators=(",", ":"), ensure_ascii=False)


def read(tags: Mapping[str, str]) -> dict[str, str]:
    """What the tag says; nothing where an earlier version wrote none."""
    try:
        found = json.loads(tags.get(FILES_TAG, "{}"))
    except json.JSONDecodeError:
        return {}
    return {str(path): str(digest) for path, digest in found.items()} if isinstance(found, dict) else {}


def damaged(digests: Digests, fetch: Callable[[str, str], str]) -> Iterator[str]:
    """Paths of files that MLflow does not give as they were.

    Args:
        digests: of the files.
        fetch: gives the path of a file that MLflow has, which it may write into the folder.

    """
    for path, digest in digests.items():
        with TemporaryDirectory() as folder:
            try:
                is_whole = file_digest(Path(fetch(path, folder)))[:_HEX] == digest
            except Exception as error:
                if not was_answered(error):
                    raise
                is_whole = False
        if not is_whole:
            yield path
