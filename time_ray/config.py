"""The experiment file: YAML with line numbers, overrides from the command line, every fault at once."""

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from time_ray.core import strategies
from time_ray.core.errors import UserError, closest, nearest, some_of, unknown
from time_ray.core.experiment import AXES, WORLDS, Experiment
from time_ray.core.home import at_home
from time_ray.key_hints import hint_for
from time_ray.limits import YAML_BYTES, YAML_DEPTH, YAML_NUMBER_LETTERS, YAML_VALUES, TooMuchError, read_at_most
from time_ray.plugins import load_plugins
from time_ray.study import Fault, StudyError

Place = tuple[str | int, ...]
EXPERIMENTS = "experiments"  # where experiment files lie
_COMMAND_LINE = "command line"  # where an override stands, in place of a file and its line


_COLLECTIONS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Document:
    """A YAML document as plain values, and the file and line of every part of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[str, Any] = {}
        self.lines: dict[Place, str] = {(): f"{name}:1"}
        self.faults: list[str] = []
        self.broken: set[str] = set()  # keys of the experiment with a fault somewhere in them

    def where(self, place: Place) -> str:
        """`file:line` of a part, or of the nearest part around it that was written."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]

    def fault(self, place: Place, text: str) -> str:
        """The one line that a person reads: where, what, what to do."""
        path = ".".join(str(part) for part in place)
        return f"{self.where(place)}: {path}: {text}" if path else f"{self.where(place)}: {text}"


class _Loader(yaml.SafeLoader):
    """Safe YAML within limits, with numbers as in YAML 1.2: 1e-3 is one, 010 and 1:30 are words."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node. Raises ComposerError if it lies too deep."""
        self._depth += 1
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        self.check_depth(self._depth, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def check_depth(self, depth: int, mark: Any) -> None:
        """Raises ComposerError for what is nested more deeply than any experiment."""
        if depth > YAML_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {YAML_DEPTH} deep; write it flat", mark)

    def count(self, node: yaml.Node) -> None:
        """Raises ComposerError once there are more values than any experiment has, those of aliases among them."""
        self._values += 1
        if self._values > YAML_VALUES:
            problem = f"more than {YAML_VALUES} values, with those that aliases stand for; write fewer"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_DIGITS, _EXPONENT = "[0-9][0-9_]*", "[eE][-+]?[0-9]+"
for _kind, _form in (
    ("int", "[-+]?(0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)"),
    ("float", rf"[-+]?(({_DIGITS}\.[0-9_]*|\.{_DIGITS})({_EXPONENT})?|{_DIGITS}{_EXPONENT})"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^({_form})$"), list("-+.0123456789"))


class _Dumper(yaml.SafeDumper):
    """YAML in which words that the loader would take for numbers have quotes."""


_Dumper.yaml_implicit_resolvers = {
    letter: [*yaml.SafeDumper.yaml_implicit_resolvers.get(letter, ()), *_Loader.yaml_implicit_resolvers.get(letter, ())]
    for letter in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def dumped(values: Mapping[str, Any]) -> str:
    """The YAML of an experiment, or of a part of one, that says these values."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def plain_value(text: str, name: str) -> Any:
    """What a value of that name says as YAML. Raises UserError for what is none, or is beyond the limits."""
    found = _parse(text, document := Document(name), source=name)
    UserError.unless_none(document.faults)
    return found


def plain_values(text: str, name: str) -> dict[str, Any]:
    """What YAML of that name says. Raises UserError for what is none, says no keys, or is beyond the limits."""
    found = _parse(text, document := Document(name))
    UserError.unless_none(document.faults)
    if not isinstance(found, dict):
        raise UserError(f"{name}: no keys and values")
    return found


def load(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Experiment, Document]:
    """The experiment in a file, with `key=value` overrides on top. Raises UserError with every fault."""
    experiment, document = draft(path, overrides)
    UserError.unless_none(document.faults)
    return experiment, document


def draft(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Experiment, Document]:
    """The experiment, and the document with every fault of it.

    What is broken has a stand-in in the experiment, so that the rest can be resolved and its faults be told as well.
    """
    document = read(Path(path))
    for text in overrides:
        try:
            _override(document, text)
        except UserError as error:
            document.faults += error.faults
    _load_plugins(document, Path(path).parent)
    try:
        return Experiment.model_validate(document.values), document
    except ValidationError as error:
        found = error.errors()
    document.faults += dict.fromkeys(document.fault(*fault) for fault in _faults(found, document))
    document.broken |= {str(error["loc"][0]) for error in found}
    whole = {k: v for k, v in document.values.items() if k in Experiment.model_fields and k not in document.broken}
    return Experiment.model_validate({**_STAND_IN, **whole}), document


def _load_plugins(document: Document, folder: Path) -> None:
    """What plugins offer can be named in the experiment. Raises UserError: without them its names mean nothing.

    Paths start from the file's folder, those of the command line from the current one; both are absolute afterwards.
    """
    given = document.values.get("plugins", [])
    listed = given if isinstance(given, list) else [given]
    if not all(isinstance(path, str) and path for path in listed):
        return  # the experiment's own check says so
    place: Place = ("plugins",)
    start = Path() if document.where(place).startswith(_COMMAND_LINE) else folder
    try:
        paths = [str((start / at_home(path)).absolute()) for path in listed]
        load_plugins(paths)
    except UserError as error:
        raise UserError(*document.faults, *(document.fault(place, fault) for fault in error.faults)) from None
    if paths:
        document.values["plugins"] = paths


_STAND_IN: dict[str, Any] = {
    "name": "stand-in",
    "init": "zs",
    "deploy": "ft",
    "technique": "average",
    "model": "mini-tiny",
    "budget": "1 steps",
    "data": "mini",
}


_RESTS_ON = (("data", "stream"), ("experts", "data"))  # the first decides what may be wrong with the second


def placed(document: Document, error: StudyError) -> UserError:
    """Every fault of the document, those found while resolving it among them, each with its file and line."""
    unsure = document.broken | {place for whole, place in _RESTS_ON if whole in document.broken}
    found = [document.fault(*fault) for fault in error.found if fault[0][0] not in unsure]
    return UserError(*document.faults, *found)


def read(path: Path) -> Document:
    """The document in a YAML file. UserError if it is missing, empty or no YAML."""
    document = Document(str(path))
    try:
        text = _text(read_at_most(path, YAML_BYTES))
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "is a folder" if isinstance(error, IsADirectoryError) else "no such file"
        raise UserError(f"{path}: {what}{_file_meant(path)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8 ({error}); save it as UTF-8") from None
    except TooMuchError as error:
        raise UserError(f"{path}: {error}; an experiment file is short") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    values = _parse(text, document)
    if values is None:
        raise UserError(f"{path}:1: the file is empty; an experiment needs name, data and the axes {', '.join(AXES)}")
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: an experiment is a mapping of keys to values, not a {type(values).__name__}")
    document.values = values
    return document


def _file_meant(path: Path) -> str:
    """The experiment file that was meant, by its name with or without `.yaml`: beside the path, or in `experiments`."""
    folders = dict.fromkeys((path, path.parent, path.parent / EXPERIMENTS))
    files = [file for folder in folders for file in sorted(folder.glob("[!.]*.y*ml"))]
    by_name = {name: str(file) for file in reversed(files) for name in (file.name, file.stem)}
    if name := closest(path.name, by_name):
        return f"; did you mean '{by_name[name]}'?"
    return f"; give an experiment file, such as {some_of(map(str, files))}" if files else "; check the path"


def _text(data: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it says so. Raises UnicodeDecodeError for any other."""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_utf16 else "utf-8-sig")


def _parse(text: str, document: Document, place: Place = (), *, source: str | None = None) -> Any:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, document, place, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = source or f"{document.name}:{mark.line + 1 if mark else 1}"
        raise UserError(f"{where}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source or document.name}: not YAML: {str(error).splitlines()[0]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _value(loader: _Loader, node: yaml.Node, document: Document, place: Place, source: str | None) -> Any:
    """Plain values of a node, its lines noted on the way; a key given twice is a fault, not a silent choice."""
    loader.check_depth(len(place), node.start_mark)  # aliases may lead back
    loader.count(node)
    document.lines.setdefault(place, source or f"{document.name}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
        raise yaml.constructor.ConstructorError(None, None, f"unknown tag {node.tag}; leave it out", node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, document, (*place, i), source) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(loader, node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = _key(loader, key_node)
        inner = (*place, key if isinstance(key, str) else str(key))
        if key in result:
            where = source or f"{document.name}:{key_node.start_mark.line + 1}"
            document.faults.append(f"{where}: {'.'.join(map(str, inner))}: given twice; keep one")
        document.lines[inner] = source or f"{document.name}:{key_node.start_mark.line + 1}"
        result[key] = _value(loader, value_node, document, inner, source)
    return result


def _key(loader: _Loader, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        problem = "a key is a list or a mapping; write a word"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    if node.tag == "tag:yaml.org,2002:merge":
        problem = "a mapping is not merged into another by <<; write its keys"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return _scalar(loader, node)


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    if node.tag in _NUMBERS and len(node.value) > YAML_NUMBER_LETTERS:
        problem = f"a number of {len(node.value)} letters; put quotes around it"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    try:
        value = loader.construct_object(node, deep=True)
        return _whole(value) if isinstance(value, str) else value
    except UnicodeDecodeError:
        problem = "half of a character, a surrogate alone; write the character itself"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None
    except (ValueError, AttributeError):  # 2026-02-30 looks like a date and is none
        problem = f"'{node.value}' is no {node.tag.rpartition(':')[2]}; put quotes around it"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _whole(text: str) -> str:
    """The text with escapes of two surrogates, as JSON writes them, as the character they stand for."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16")


def _override(document: Document, text: str) -> None:
    """One `key=value` of the command line takes the place of what the file says."""
    dotted, equals, raw = text.partition("=")
    source = f"{_COMMAND_LINE} '{text}'"
    if not equals or not dotted:
        raise UserError(f"{source}: write overrides as key=value, for example seed=[0,1,2] or training.lr=1e-4")
    place = tuple(dotted.split("."))
    for known in [known for known in document.lines if known[: len(place)] == place]:
        del document.lines[known]
    value = _parse(raw, document, place, source=source)
    if place[0] in AXES and isinstance(value, str) and "," in value:
        value = [_parse(part, document, place, source=source) for part in value.split(",")]
    target = document.values
    for depth, part in enumerate(place[:-1], 1):
        inner = _spelled_out(place[:depth], target.get(part))
        if not isinstance(inner, dict):
            path = ".".join(place[:depth])
            what = f"is a list; give the whole of it, as in {path}=[...]"
            raise UserError(f"{source}: {path} {what if isinstance(inner, list) else f'is {inner!r} and has no keys'}")
        target[part] = inner
        target = inner
    target[place[-1]] = value
    for depth in range(1, len(place) + 1):
        document.lines.setdefault(place[:depth], source)


def _spelled_out(place: Sequence[str], value: object) -> object:
    """`data: mini` as the section it stands for, and likewise other short forms, so that a part can be overridden."""
    if value is None:
        return {}
    match place:
        case ("data",) if value in WORLDS:
            return {"adaptation": value, "evaluation": value, "pretraining": value}
        case ("data",) if isinstance(value, str):
            return {"adaptation": value}
        case ("init" | "deploy" | "technique" | "model",) if isinstance(value, str):
            return {"name": value}
        case ("training", "average_within") if isinstance(value, int):
            return {"last": value}
    return value


def _faults(errors: Sequence[ErrorDetails], document: Document) -> Iterator[Fault]:
    for error in errors:
        place = tuple(error["loc"])
        kind, given = error["type"], error["input"]
        if kind == "too_short" and given:
            continue  # it is only short of those that are at fault themselves
        if kind == "extra_forbidden":
            yield place, f"unknown key{_meant(place, given, document)}"
        elif kind == "missing":
            yield place[:-1], f"'{place[-1]}' is missing; add it"
        elif kind == "literal_error":
            known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            yield place, unknown("value", str(given), known)
        elif kind == "value_error":
            yield place, str(error["ctx"]["error"])
        elif kind == "model_type":
            yield place, f"a section with keys {', '.join(_keys_at(place)) or 'and values'} is needed, not {given!r}"
        else:
            yield place, f"{error['msg'][0].lower()}{error['msg'][1:]}, not {given!r}"


def _meant(place: Place, given: object, document: Document) -> str:
    """What an unknown key was meant to be."""
    if len(place) > 1:
        return nearest(str(place[-1]), _keys_at(place[:-1]))
    on_command_line = document.where(place).startswith(_COMMAND_LINE)
    return hint_for(str(place[0]), given, document.values, on_command_line=on_command_line)


def _keys_at(place: Place) -> list[str]:
    """The keys that may stand at a place of an experiment."""
    model: Any = Experiment
    is_name = False  # of a model, in `run.by_model`: any may stand there
    for part in place:
        if isinstance(part, int) or is_name:
            is_name = False
            continue
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            return []
        model = next(iter(_models_in(field.annotation)), None)
        is_name = get_origin(field.annotation) is dict
    if model is strategies.Strategy:
        return list(strategies.keys())
    return list(model.model_fields) if model is not None else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)
    if hasattr(annotation, "__origin__") and not getattr(annotation, "__args__", ()):
        yield from _models_in(annotation.__origin__)
