"""Plugins: techniques, strategies, metrics and importers from outside, in files or in installed packages.

A plugin file is a Python file. Whatever it defines at its top level joins the table of its kind: a technique (see
`time_ray.merging.technique`), a subclass of `Strategy`, a `Metric`, an `Architecture`, an `Importer`. An installed
package offers the same objects by entry points of the groups in `KINDS`.
"""

import ast
import inspect
import linecache
import logging
import platform
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from time_ray.clip import architectures
from time_ray.clip.architectures import ARCHITECTURES, Architecture
from time_ray.clip.weights import is_known
from time_ray.core import metrics, strategies
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.home import at_home
from time_ray.core.metrics import METRICS, Metric
from time_ray.core.strategies import STRATEGIES, Strategy
from time_ray.data.importers import registry as importers
from time_ray.data.importers.registry import IMPORTERS, Importer
from time_ray.merging import TECHNIQUES, MergeError, Technique
from time_ray.merging import register as register_technique

log = logging.getLogger(__name__)


class Kind(NamedTuple):
    """A kind of extension: whatever is one joins its table."""

    name: str
    group: str  # of entry points
    of: type  # instances, or subclasses, are of this kind
    table: MutableMapping[str, Any]
    register: Callable[[Any], object]

    def has(self, value: object) -> bool:
        """Whether the value is of this kind."""
        return isinstance(value, self.of) or (inspect.isclass(value) and issubclass(value, self.of))


KINDS = (
    Kind("technique", "time_ray.techniques", Technique, TECHNIQUES, register_technique),
    Kind("strategy", "time_ray.strategies", Strategy, STRATEGIES, strategies.register),
    Kind("metric", "time_ray.metrics", Metric, METRICS, metrics.register),
    Kind("model", "time_ray.models", Architecture, ARCHITECTURES, architectures.register),
    Kind("importer", "time_ray.importers", Importer, IMPORTERS, importers.register),
)
TABLES = {kind.name: kind.table for kind in KINDS}


@dataclass(frozen=True)
class PluginFile:
    """A plugin as text, so that it can be loaded where the file is not: on another machine, or later.

    What it is called is up to its content, so that objects of its classes mean the same in every process.
    """

    path: str  # for people
    source: str = field(repr=False)

    @property
    def digest(self) -> str:
        """A name of its content: the version of what declares none."""
        return f"source:{sha256(self.source.encode()).hexdigest()[:12]}"

    @property
    def module(self) -> str:
        """The name of the module that it becomes."""
        stem = "".join(letter if letter.isalnum() else "_" for letter in Path(self.path).stem)
        return f"time_ray_plugin_{stem}_{self.digest.partition(':')[2]}"


class _Loaded(NamedTuple):
    file: PluginFile
    registered: list[tuple[str, str]]  # in which table, under which name


_LOADED: dict[str, _Loaded] = {}  # by path


def read_plugin(path: str | Path) -> PluginFile:
    """The plugin in a file. Raises UserError where there is no such text."""
    try:
        return PluginFile(str(path), at_home(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; correct the path of the plugin") from None
    except (OSError, ValueError) as error:  # no text, or a name with a null character
        raise UserError(f"{path}: cannot be read as a plugin ({error}); give a Python file") from None


def load_plugin(file: PluginFile) -> None:
    """What the file defines is in the tables. The same content again changes nothing; new content replaces the old.

    Raises:
        UserError: the file is no Python, raises, defines nothing, or takes a name that is taken; the tables are then
            as they were without it.

    """
    earlier = _LOADED.get(file.path)
    if earlier is not None and earlier.file == file:
        return
    forget(file.path)
    found = _defined(file)
    if not found:
        kinds = "technique, strategy, metric, model or importer"
        raise UserError(f"{file.path}: defines no {kinds}; give it one, or leave it out")
    with _restored_if_raised():
        registered = [_register(_versioned(one, file.digest), f"{file.path}:{_line(file, one)}") for one in found]
    _LOADED[file.path] = _Loaded(file, registered)


def forget(path: str) -> None:
    """What the plugin file of that path has registered is in no table any more."""
    if path in _LOADED:
        for kind, name in _LOADED.pop(path).registered:
            TABLES[kind].pop(name, None)


def offered_by(path: str, kind: str) -> list[str]:
    """The names that a loaded plugin file has put into the table of a kind, such as `technique`."""
    return [name for one, name in _LOADED[path].registered if one == kind]


def loaded(paths: Iterable[str]) -> tuple[PluginFile, ...]:
    """The plugin files of these paths as they were loaded, whatever has become of them since."""
    return tuple(_LOADED[path].file for path in paths)


def load_plugins(paths: Iterable[str | Path]) -> None:
    """The plugin files are loaded, and before them what is installed. Raises UserError with the faults of all."""
    load_installed()
    faults: list[str] = []
    for path in paths:
        try:
            load_plugin(read_plugin(path))
        except UserError as error:
            faults += error.faults
    UserError.unless_none(faults)


def installed_in(experiment: Experiment) -> dict[str, str]:
    """The installed plugins that cells of the experiment need, and the distribution of each."""
    named = {strategy.name for strategy in (*experiment.init, *experiment.deploy)}
    named |= {technique.name for technique in experiment.technique} | {model.name for model in experiment.model}
    return {name: owner for name, owner in load_installed().items() if name in named}


def load_job_plugins(files: Iterable[PluginFile], installed: Mapping[str, str]) -> None:
    """What a sweep's driver had loaded is loaded in this process, too. Raises UserError for what this machine lacks."""
    here = load_installed()
    UserError.unless_none(
        f"{platform.node()}: {owner}, of which '{name}' is a plugin, is not installed here; install it on every node"
        for name, owner in installed.items()
        if name not in here
    )
    for file in files:
        load_plugin(file)


@cache
def load_installed() -> dict[str, str]:
    """What installed packages offer is in the tables: by name of the object, the distribution that it comes from.

    A package that cannot be loaded is named in one line of the log; all others go on.
    """
    offers: dict[str, str] = {}
    for kind in KINDS:
        for entry in entry_points(group=kind.group):
            owner = entry.dist.name if entry.dist else entry.value
            try:
                offers[_register(_offered(entry, kind), f"{owner}: {entry.value}")[1]] = owner
            except Exception as error:  # noqa: BLE001 code of others may fail in any way
                text = " ".join(str(error).split())
                log.warning("plugin %s of %s is left out: %s", entry.value, owner, text or type(error).__name__)
    return offers


def _offered(entry: EntryPoint, kind: Kind) -> Any:
    found = entry.load()
    if not kind.has(found):
        raise UserError(f"{entry.name} is no {kind.of.__name__}")
    module = sys.modules[entry.module]
    return _versioned(found, PluginFile(entry.module, inspect.getsource(module)).digest)


def _executed(file: PluginFile) -> ModuleType:
    """The module of the file, run. Its lines are there for tracebacks, wherever the file is."""
    lines = file.source.splitlines(keepends=True)
    linecache.cache[file.path] = (len(file.source), None, lines, file.path)
    module = ModuleType(file.module)
    module.__file__ = file.path
    sys.modules[file.module] = module
    try:
        exec(compile(file.source, file.path, "exec"), vars(module))  # noqa: S102 it is what plugins are for
    except SyntaxError as error:
        raise UserError(f"{file.path}:{error.lineno or 1}: no Python: {error.msg}; correct it") from None
    except (MergeError, UserError) as error:  # they say where
        raise UserError(*error.faults) from error
    except (Exception, SystemExit) as error:
        last = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file.path]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{file.path}:{last[-1] if last else 1}: {text}; correct the plugin") from error
    return module


def _defined(file: PluginFile) -> list[Any]:
    """What the file defines for one of the tables, whether it registers them itself or not."""
    before = {kind: dict(table) for kind, table in TABLES.items()}
    try:
        module = _executed(file)
        own = [value for value in vars(module).values() if any(kind.has(value) for kind in KINDS)]
        own += [one for kind, table in TABLES.items() for name, one in table.items() if name not in before[kind]]
    finally:
        _restore(before)
    known = {id(one) for table in TABLES.values() for one in table.values()} | {id(kind.of) for kind in KINDS}
    distinct = {id(one): one for one in own if id(one) not in known}
    return [one for one in distinct.values() if not inspect.isclass(one) or one.__module__ == module.__name__]


@contextmanager
def _restored_if_raised() -> Iterator[None]:
    before = {kind: dict(table) for kind, table in TABLES.items()}
    try:
        yield
    except UserError:
        _restore(before)
        raise


def _restore(before: Mapping[str, Mapping[str, Any]]) -> None:
    for kind, table in TABLES.items():
        table.clear()
        table.update(before[kind])


def _versioned(one: Any, digest: str) -> Any:
    """The object with a version: its own, or the digest of its source. Techniques and models need none."""
    if isinstance(one, (Technique, Architecture)) or one.version is not None:
        return one
    if isinstance(one, (Metric, Importer)):
        return replace(one, version=digest)
    one.version = digest
    return one


def _register(one: Any, where: str) -> tuple[str, str]:
    """The object is in its table; the table and its name. Raises UserError if its name is taken."""
    kind = next(kind for kind in KINDS if kind.has(one))
    try:
        if one.name in kind.table or (kind.of is Architecture and is_known(one.name)):
            UserError.unless_none([f"{kind.name} '{one.name}': the name is taken; give it another"])
        kind.register(one)
    except (UserError, MergeError) as error:
        raise UserError(*(f"{where}: {fault}" for fault in error.faults)) from None
    return kind.name, one.name


def _line(file: PluginFile, one: Any) -> int:
    """The line at which an object of the file is defined."""
    names = {name for name, value in vars(sys.modules[file.module]).items() if value is one}
    names |= {getattr(one, "name", "")}
    for node in ast.parse(file.source).body:
        targets = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
        if names & {getattr(node, "name", None), *targets}:
            return node.lineno
    return 1
