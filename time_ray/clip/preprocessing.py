"""Which images a model's weights want, and which activation they have: the one place that decides it.

What the experiment says goes first, then the tag of the weights, then an `open_clip_config.json` beside their file,
then what open_clip assumes of any architecture. Tags apart, nothing here needs torch.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from time_ray.clip.architecture_match import PARTS, differences, image_size, name_of, side
from time_ray.clip.architectures import ARCHITECTURES
from time_ray.clip.weights import architecture_config, first_line, is_tag, open_clip_with_ours
from time_ray.core.errors import UserError, some_of, unknown
from time_ray.core.model import ModelSpec
from time_ray.core.preprocessing import Preprocessing, PreprocessSpec, Resizing

CONFIG = "open_clip_config.json"
ACTIVATIONS = {True: "QuickGELU", False: "GELU"}
THEIRS = {"resize": "resize_mode", "fill": "fill_color"}  # open_clip's words, where ours are others
VALUES = ("size", "mean", "std", "resize", "interpolation", "fill")


class Resolved(NamedTuple):
    """A model's preprocessing and activation; who says so; what had to be assumed; and what makes it another model.

    `identity` has what differs from OpenAI's preprocessing and from the activation of the architecture.
    """

    preprocessing: Preprocessing
    quick_gelu: bool
    source: str
    assumed: str
    identity: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, named as in an experiment."""
        return {**self.preprocessing.as_dict(), "quick_gelu": self.quick_gelu}

    def __str__(self) -> str:
        return f"{self.preprocessing}, {ACTIVATIONS[self.quick_gelu]}"


class _Source(NamedTuple):
    """Who says what: values in our words, and the architecture that they are for, if they are for one alone."""

    name: str
    values: Mapping[str, Any]
    config: Mapping[str, Any] | None = None


def resolve(spec: ModelSpec) -> Resolved:
    """The preprocessing and the activation of a model of a known architecture. Raises UserError with every fault."""
    config = _plain_config(spec.name)
    said = _Source("the experiment", spec.preprocess.said if spec.preprocess else {})
    faults = [*_unknown_tag(spec), *_not_square(spec.name, config)]
    try:
        sources = list(_sources(spec, config))
    except UserError as error:
        sources, faults = [], [*faults, *error.faults]
    found = _resolved(said, sources, config)
    built = {**config, "quick_gelu": found.quick_gelu}
    UserError.unless_none(dict.fromkeys([*faults, *_faults(spec.name, said, sources, found, built)]))
    return found


def _resolved(said: _Source, sources: Sequence[_Source], config: Mapping[str, Any]) -> Resolved:
    """What the experiment says, and for the rest what the first source says."""
    values = {**(sources[0].values if sources else {}), **said.values}
    size = image_size(config)
    preprocessing = _preprocessing(values, size[0] if isinstance(size, list) else size)
    own = config.get("quick_gelu", False)
    quick_gelu = bool(values.get("quick_gelu", own))
    names = [*([said.name] if said.values else []), sources[0].name if sources else "OpenAI's defaults"]
    return Resolved(
        preprocessing,
        quick_gelu,
        " over ".join(names),
        "" if sources else _assumed(said.values),
        {**preprocessing.changed(), **({} if quick_gelu == own else {"quick_gelu": quick_gelu})},
    )


def _faults(
    name: str, said: _Source, sources: Sequence[_Source], found: Resolved, built: Mapping[str, Any]
) -> Iterator[str]:
    """Where those who say something contradict the architecture, or the experiment itself."""
    for source in sources:
        if source.config is not None:
            yield from _contradictions(name, source.name, source.config, built)
    for source in (said, *sources[:1]):
        size, own = source.values.get("size"), found.preprocessing.resizing.size
        if size not in (None, own):
            remedy = "leave it out, or name an architecture of that size"
            yield f"model {name}: {source.name} says size {size}, but the architecture takes {own}; {remedy}"
    if "fill" in said.values and found.preprocessing.resizing.mode != "longest":
        yield f"model {name}: fill is of resize: longest alone; leave it out"


def open_clip_config(spec: ModelSpec) -> dict[str, Any]:
    """The architecture and the preprocessing of a model, as open_clip reads them from a file beside weights."""
    found = resolve(spec)
    preprocess_cfg = {THEIRS.get(name, name): value for name, value in found.preprocessing.as_dict().items()}
    return {
        "model_cfg": {**_plain_config(spec.name), "quick_gelu": found.quick_gelu},
        "preprocess_cfg": {"mode": "RGB", **preprocess_cfg},
    }


def _plain_config(name: str) -> dict[str, Any]:
    """The architecture's configuration as a JSON file has it."""
    return dict(json.loads(json.dumps(architecture_config(name))))


def _sources(spec: ModelSpec, config: Mapping[str, Any]) -> Iterator[_Source]:
    """Who knows the weights' preprocessing: the first of them decides, and none may contradict the architecture."""
    tag = spec.preprocess.tag if spec.preprocess else None
    if tag is not None and not list(_unknown_tag(spec)):
        yield _of_tag(spec.name, tag, config)
    if spec.weights is not None and is_tag(spec):
        yield _of_tag(spec.name, spec.weights, config)
    elif tag is not None:
        return
    elif spec.weights is None:
        yield _Source("the shipped base", {}, config)
    elif beside := _beside(Path(spec.weights)):
        yield _of_file(beside)
    elif spec.name in ARCHITECTURES and ARCHITECTURES[spec.name].preprocess_cfg:
        name = f"architecture {spec.name}"
        yield _Source(name, _values(ARCHITECTURES[spec.name].preprocess_cfg, f"{name}: preprocess_cfg"))


def _unknown_tag(spec: ModelSpec) -> Iterator[str]:
    tag = spec.preprocess.tag if spec.preprocess else None
    if tag is None:
        return
    open_clip = open_clip_with_ours()
    if not open_clip.is_pretrained_cfg(spec.name, tag):
        tags = open_clip.list_pretrained_tags_by_model(spec.name)
        text = unknown("tag", tag, tags) if tags else f"no tag '{tag}', it has none; give mean, std, resize and so on"
        yield f"model {spec.name}: {text}"


def _of_tag(name: str, tag: str, config: Mapping[str, Any]) -> _Source:
    found = open_clip_with_ours().get_pretrained_cfg(name, tag)
    quick_gelu = found.get("quick_gelu", False)
    return _Source(f"tag {tag}", _values(found, f"tag {tag}"), {**config, "quick_gelu": quick_gelu})


def _beside(weights: Path) -> Path | None:
    """open_clip's configuration beside a file of weights, or beside what a link to it leads to."""
    folders = (weights.parent, weights.resolve().parent)
    return next((folder / CONFIG for folder in folders if (folder / CONFIG).is_file()), None)


def _of_file(path: Path) -> _Source:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as JSON ({first_line(error)}); correct it, or move it away from the weights"
        raise UserError(msg) from error
    model, images = (_mapping(_mapping(found).get(key, {})) for key in ("model_cfg", "preprocess_cfg"))
    if not all(_mapping(model.get(part)) for part in PARTS):
        msg = f"{path}: is not as open_clip writes it: model_cfg with {' and '.join(PARTS)}, and preprocess_cfg"
        raise UserError(f"{msg}; correct it, or move it away from the weights")
    return _Source(str(path), _values(images, f"{path}: preprocess_cfg"), model)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _values(cfg: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The values of a preprocessing configuration of open_clip in our words. Raises UserError for every bad one."""
    named = {name: cfg.get(THEIRS.get(name, name)) for name in VALUES}
    given = {name: _our_form(name, value) for name, value in named.items() if value is not None}
    faults = [f"{where}.mode: {cfg['mode']} is not supported; RGB is"] if cfg.get("mode", "RGB") != "RGB" else []
    said: Mapping[str, Any] = {}
    try:
        said = PreprocessSpec.model_validate(given).said
    except ValidationError as error:
        for fault in error.errors():
            place = ".".join(THEIRS.get(part, part) for part in map(str, fault["loc"]))
            text = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{where}.{place}: {text[0].lower()}{text[1:]}, not {fault['input']!r}; correct it")
    UserError.unless_none(faults)
    return said


def _our_form(name: str, value: Any) -> Any:
    """open_clip takes one number for three channels, two equal sides for a square, and draws filters in training."""
    if name in ("mean", "std") and isinstance(value, (int, float)):
        return [value] * 3
    if name == "size":
        return side(value)
    return "bicubic" if (name, value) == ("interpolation", "random") else value


def _contradictions(name: str, source: str, config: Mapping[str, Any], built: Mapping[str, Any]) -> Iterator[str]:
    """One line where a source is about another architecture than the one that would be built."""
    found = differences(config, built)
    if not found:
        return
    if found.keys() == {"quick_gelu"}:
        wanted, got = map(bool, found["quick_gelu"])
        what = f"{source} is for {ACTIVATIONS[wanted]}, but the model would have {ACTIVATIONS[got]}"
        remedy = f"set preprocess.quick_gelu: {str(wanted).lower()}"
    else:
        texts = some_of(f"{key} {theirs} (here {ours})" for key, (theirs, ours) in found.items())
        what, remedy = f"{source} is for another architecture: {texts}", "name the architecture of the weights"
    right = name_of(config, like=name)
    if right is not None:
        remedy = f"name {right}" if right != name else "leave preprocess.quick_gelu out"
    yield f"model {name}: {what}; {remedy}"


def _not_square(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    sides = image_size(config)
    if isinstance(sides, list):
        yield f"model {name}: takes images of {' by '.join(map(str, sides))} pixels; choose one that takes squares"


def _preprocessing(values: Mapping[str, Any], size: int) -> Preprocessing:
    default = Resizing(size)
    mode = values.get("resize", default.mode)
    fill = values.get("fill", default.fill) if mode == "longest" else default.fill
    resizing = Resizing(size, mode, values.get("interpolation", default.interpolation), fill)
    return Preprocessing(resizing, **{name: values[name] for name in ("mean", "std") if name in values})


def _assumed(said: Mapping[str, Any]) -> str:
    """What is taken from OpenAI's models, as nobody says it; empty if everything is said."""
    statistics = [name for name in ("mean", "std") if name not in said]
    words = [f"OpenAI's {' and '.join(statistics)}"] if statistics else []
    words += [word for name, word in (("resize", "shortest"), ("interpolation", "bicubic")) if name not in said]
    given = f"{'not all of the' if said.keys() & set(VALUES[1:]) else 'no'} preprocessing"
    return f"{given} given: {', '.join(words)} assumed" if words else ""
