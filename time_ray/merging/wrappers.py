"""Prefixes of wrappers: DistributedDataParallel, torch.compile and training modules put theirs before every name."""

from collections.abc import Iterator
from itertools import takewhile

from torch import Tensor

from time_ray.merging.models import Model, StoredModel
from time_ray.merging.pieces import TensorEntry

ALWAYS = ("module.", "_orig_mod.")
"""Never part of a model itself."""
COUNT_OF_AVERAGES = "n_averaged"
PERHAPS = "model."
"""A wrapper's, or a part of the model: the other names decide."""


def common_prefix(model: Model) -> str:
    """What the names of all its tensors begin with, up to a dot."""
    names = [entry.name.split(".")[:-1] for entry in own(model)] or [[]]
    first, last = min(names), max(names)  # what these two share, all between them share
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(f"{part}." for part, _ in shared)


def wrapper_of(model: Model, base: Model | None = None) -> str:
    """What wrappers have put before the names of a model; of an expert, as its base is named."""
    shared, parts = common_prefix(model), list[str]()
    while found := next((one for one in (*ALWAYS, PERHAPS) if shared.startswith(one)), ""):
        shared = shared.removeprefix(found)
        parts.append(found)
    for count in range(len(parts), 0, -1):
        wrapped = "".join(parts[:count])
        bare = [entry.name.removeprefix(wrapped) for entry in own(model)]
        if PERHAPS not in parts[:count] or is_wrapper(bare, base):
            return wrapped
    return ""


def is_wrapper(names: list[str], base: Model | None) -> bool:
    """Whether the names are whole without their prefix: as in the base, or else as in CLIP."""
    if base is not None:
        return any(name in base.by_name() for name in names)
    return any(name.startswith("visual.") for name in names)


def own(model: Model) -> list[TensorEntry]:
    """The tensors of the model itself: torch's AveragedModel counts beside the module that it wraps."""
    return [entry for entry in model.entries if entry.name != COUNT_OF_AVERAGES]


class Unwrapped(StoredModel):
    """A model under the names that it had before it was wrapped."""

    def __init__(self, inner: Model, prefix: str) -> None:
        self.inner, self.prefix = inner, prefix
        self.label = inner.label
        if isinstance(inner, StoredModel):
            self.path, self.name, self.files, self.metadata = inner.path, inner.name, inner.files, inner.metadata
        self.entries = tuple(
            TensorEntry(entry.name.removeprefix(prefix), entry.dtype, entry.shape) for entry in own(inner)
        )
        self.notes = (*inner.notes, f"{inner.label}: the prefix '{prefix}' of all names is left out")

    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """What the wrapped model reads."""
        return self.inner.read(TensorEntry(self.prefix + entry.name, entry.dtype, entry.shape), start, stop)

    def on_cpu(self) -> bool:
        """Whether all its tensors are in main memory."""
        return self.inner.on_cpu()


def unwrapped(model: Model, base: Model | None = None) -> Model:
    """The model without the prefixes of known wrappers."""
    prefix = wrapper_of(model, base)
    return Unwrapped(model, prefix) if prefix else model


def foreign_prefix(base: Model, expert: Model) -> Iterator[str]:
    """One line where nothing but a prefix that no known wrapper has keeps the names of two models apart."""
    wanted, given = {entry.name for entry in base.entries}, {entry.name for entry in expert.entries}
    if wanted & given:
        return
    for model, prefix, others, names in (
        (expert, common_prefix(expert), wanted, given),
        (base, common_prefix(base), given, wanted),
    ):
        parts = prefix.split(".")[:-1]
        for count in range(len(parts), 0, -1):
            lead = ".".join(parts[:count]) + "."
            if {name.removeprefix(lead) for name in names} & others:
                where = "the base" if model is expert else expert.label
                text = f"all its names begin with '{lead}', and none of {where} does"
                yield f"{model.label}: {text}; save the state_dict() of the part itself, or rename its tensors"
                return
