"""Names of wrappers: DistributedDataParallel, torch.compile, FSDP and training modules put theirs into every name."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile

from torch import Tensor

from time_ray.merging.errors import MergeError
from time_ray.merging.models import Model, StoredModel
from time_ray.merging.pieces import TensorEntry

OF_PARTS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Of torch.compile and FSDP, which wrap any part of a model."""
ALWAYS = ("module.", *OF_PARTS)
"""Never part of a model itself."""
ANYWHERE = re.compile(rf"^(?:{'|'.join(map(re.escape, ALWAYS))})+|(?<=\.)(?:{'|'.join(map(re.escape, OF_PARTS))})+")
WITHIN_NAMES = re.compile(rf"(?<=\.)(?:{'|'.join(map(re.escape, OF_PARTS))})+")
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
        bare = [bare_name(entry.name, wrapped) for entry in own(model)]
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
        self.inner, self.label = inner, inner.label
        if isinstance(inner, StoredModel):
            self.path, self.name, self.files, self.metadata = inner.path, inner.name, inner.files, inner.metadata
        self.wrapped = {bare_name(entry.name, prefix): entry for entry in own(inner)}
        self.entries = tuple(TensorEntry(name, entry.dtype, entry.shape) for name, entry in self.wrapped.items())
        self.notes = (*inner.notes, *left_out(inner, prefix))

    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """What the wrapped model reads."""
        return self.inner.read(self.wrapped[entry.name], start, stop)

    def on_cpu(self) -> bool:
        """Whether all its tensors are in main memory."""
        return self.inner.on_cpu()


def unwrapped(model: Model, base: Model | None = None) -> Model:
    """The model without the names of known wrappers. MergeError if a tensor is there with and without them."""
    if len({ANYWHERE.sub("", entry.name) for entry in own(model)}) < len(own(model)):
        text = "holds tensors of one name with and without a wrapper's prefix; save the state dict of one model"
        raise MergeError(f"{model.label}: {text}")
    prefix = wrapper_of(model, base)
    return Unwrapped(model, prefix) if next(left_out(model, prefix), "") else model


def bare_name(name: str, prefix: str) -> str:
    """The name without the prefix, and without wrappers of parts of the model."""
    return WITHIN_NAMES.sub("", name.removeprefix(prefix))


def left_out(model: Model, prefix: str) -> Iterator[str]:
    """A note on what of the names is left out."""
    if prefix:
        yield f"{model.label}: the prefix '{prefix}' of all names is left out"
    found = {part for entry in own(model) for part in WITHIN_NAMES.findall(entry.name.removeprefix(prefix))}
    if found:
        yield f"{model.label}: {' and '.join(sorted(found))} within its names is left out"


def foreign_prefix(base: Model, expert: Model) -> Iterator[str]:
    """One line where nothing but a prefix that no known wrapper has keeps the names of two models apart."""
    wanted, given = {entry.name for entry in base.entries}, {entry.name for entry in expert.entries}
    if wanted & given:
        return
    for model, names, others, where in (
        (expert, given, wanted, "the base"),
        (base, wanted, given, expert.label),
    ):
        lead = lead_of(names, others)
        if lead:
            whole = all(name.startswith(lead) for name in names)
            text = f"{'all its' if whole else 'its'} names begin with '{lead}', and none of {where} does"
            yield f"{model.label}: {text}; save the state_dict() of the part itself, or rename its tensors"
            return


def lead_of(names: set[str], others: set[str]) -> str:
    """What stands before most of those names that end like others, up to a dot; nothing if none does."""
    leads = Counter(
        name[: place + 1]
        for name in names
        for place, letter in enumerate(name)
        if letter == "." and name[place + 1 :] in others
    )
    return min(leads, key=lambda lead: (-leads[lead], lead), default="")
