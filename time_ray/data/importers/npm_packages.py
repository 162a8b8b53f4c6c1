"""Packages of npm as data: fetched by its own client or found in a folder, verified by digest, and never installed."""

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from time_ray.core.errors import UserError, some_of
from time_ray.data.importers.tars import TarFault, contents
from time_ray.limits import JSON_BYTES, PACKAGE_BYTES, parse_json, read_at_most

CLIENT = "npm"


class Package(NamedTuple):
    """A version of a package, and the digest that npm has for its file."""

    name: str
    version: str
    integrity: str

    @property
    def spec(self) -> str:
        """As npm takes it."""
        return f"{self.name}@{self.version}"

    @property
    def file(self) -> str:
        """What `npm pack` calls its file."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


@contextmanager
def package_files(packages: Sequence[Package], folder: Path | None) -> Iterator[Path]:
    """A folder with the file of each package: the one given, or one of what npm fetches, which is gone afterwards.

    Raises UserError where npm is missing or fails.
    """
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory(prefix="time_ray-npm-") as scratch:
        _fetch(packages, scratch)
        yield Path(scratch)


def check(packages: Iterable[Package], folder: Path) -> None:
    """The file of each package is in the folder, byte for byte. Raises UserError with a line for each that is not."""
    UserError.unless_none(fault for package in packages for fault in _faults(package, folder))


def read_json(package: Package, folder: Path, names: Sequence[str]) -> list[Any]:
    """What JSON files of a checked package say. Raises UserError for one that is not there, or not JSON."""
    path = folder / package.file
    wanted = {f"package/{name}": name for name in names}
    found: dict[str, Any] = {}
    for member in contents(path):
        if isinstance(member, TarFault) or member[0] not in wanted:
            continue
        try:
            found[wanted[member[0]]] = parse_json(member[1], JSON_BYTES)
        except ValueError as error:
            raise UserError(f"{path}: {member[0]}: not valid JSON ({error}); get {package.spec} anew") from error
        if len(found) == len(wanted):
            return [found[name] for name in names]
    lacking = [name for name in names if name not in found]
    raise UserError(f"{path}: holds no {some_of(lacking)}; get {package.spec} anew")


def _fetch(packages: Sequence[Package], folder: str) -> None:
    client = shutil.which(CLIENT)
    files = some_of((package.file for package in packages), len(packages))
    if client is None:
        raise UserError(f"{CLIENT} is not installed; install it, or give --packages FOLDER with {files}")
    words = [client, "pack", "--ignore-scripts", "--loglevel=error", "--pack-destination", folder]
    done = subprocess.run(  # noqa: S603 names and versions are those of a table
        [*words, *(package.spec for package in packages)], capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = said[0] if said else f"status {done.returncode}"
        raise UserError(f"{CLIENT} pack fails ({why}); see to it, or give --packages FOLDER with {files}")


def _faults(package: Package, folder: Path) -> Iterator[str]:
    path = folder / package.file
    if not path.is_file():
        yield f"{path}: missing; get it by {CLIENT} pack {package.spec}"
        return
    try:
        digest = hashlib.sha512(read_at_most(path, PACKAGE_BYTES)).digest()
    except (OSError, ValueError) as error:
        yield f"{path}: cannot be read ({error}); get it anew by {CLIENT} pack {package.spec}"
        return
    if f"sha512-{base64.b64encode(digest).decode()}" != package.integrity:
        yield f"{path}: is not {package.spec} as it was published; get it anew by {CLIENT} pack {package.spec}"
