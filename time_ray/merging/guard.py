"""Code from outside this package: what it does wrong becomes an error of one line that names it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from time_ray.merging.declaration import Technique
from time_ray.merging.errors import TechniqueError, origin_of
from time_ray.merging.pieces import Piece, State
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule

OWN = __name__.rpartition(".")[0] + "."


def build_rule(technique: Technique, parameters: Mapping[str, Any], names: Sequence[str]) -> Rule:
    """The rule for canonical parameters and the names of all tensors; guarded where it is from outside."""
    try:
        rule = technique.build(parameters, names)
    except Exception as error:
        if technique.build.__module__.startswith(OWN):
            raise
        raise TechniqueError.from_exception(origin_of(technique.build), technique.name, error) from error
    if not isinstance(rule, Rule):
        fault = f"{technique.name}: build returned {described(rule)}; return a Rule"
        raise TechniqueError(f"{origin_of(technique.build)}: {fault}")
    return rule if type(rule).__module__.startswith(OWN) else GuardedRule(rule)


@contextmanager
def guarded(origin: str, where: str, unchanged: Mapping[str, Tensor]) -> Iterator[None]:
    """What is raised inside becomes a TechniqueError, and so does an in-place change of one of these tensors.

    Inside, tensors count their changes, or refuse them, even if the caller is in inference mode.
    """
    before = [num_changes(values) for values in unchanged.values()]
    try:
        with torch.inference_mode(mode=False):
            yield
    except Exception as error:
        raise TechniqueError.from_exception(origin, where, error) from error
    after = [num_changes(values) for values in unchanged.values()]
    changed = [name for name, old, new in zip(unchanged, before, after, strict=True) if old != new]
    if changed:
        raise TechniqueError(f"{origin}: {where}: changed {' and '.join(changed)} in place; change a copy (x.clone())")


def num_changes(values: Tensor) -> int:
    """How often a tensor was changed in place; those made in inference mode do not count."""
    return 0 if values.is_inference() else values._version  # noqa: SLF001 - torch has no public name for it


def like_base(origin: str, where: str, merged: object, base: Tensor) -> Tensor:
    """The result of a technique on the base's device; TechniqueError if it is no tensor like the base."""
    if not isinstance(merged, Tensor) or (merged.shape, merged.dtype) != (base.shape, base.dtype):
        fault = f"returned {described(merged)}, and the base is {described(base)}"
        raise TechniqueError(f"{origin}: {where}: {fault}; return a tensor of the base's shape and dtype")
    return merged.detach().to(base.device)


def described(value: object) -> str:
    """What a value is, for a message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return f"a {type(value).__name__}"


class GuardedRule(Rule):
    """A rule from outside."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.origin = origin_of(type(rule))
        self.scalars = GuardedRule(rule.scalars) if rule.scalars else None
        self.retain = rule.retain
        self.carries = rule.carries
        self.selection = rule.selection

    def where(self, method: str, piece: Piece) -> str:
        """What a message calls a method at work on a piece."""
        return f"{type(self.rule).__name__}.{method} on {piece.name}"

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """The rule's; the state is a list of tensors, none of which is the expert or the base itself."""
        where, inputs = self.where("add", new.piece), {"the expert": new.expert_values, "the base": new.base_values}
        with guarded(self.origin, where, inputs):
            state = self.rule.add(state, new)
        if not isinstance(state, list) or not all(isinstance(one, Tensor) for one in state):
            raise TechniqueError(f"{self.origin}: {where}: returned {described(state)}; return a list of tensors")
        for name, values in inputs.items():
            if any(one.untyped_storage().data_ptr() == values.untyped_storage().data_ptr() for one in state):
                raise TechniqueError(f"{self.origin}: {where}: keeps {name} as its state; keep a copy (x.clone())")
        return state

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The rule's; a tensor like the base."""
        where = self.where("finish", context.piece)
        kept = {f"state[{number}]": values for number, values in enumerate(state)}
        with guarded(self.origin, where, {"the base": context.base_values, **kept}):
            merged = self.rule.finish(state, context)
        return like_base(self.origin, where, merged, context.base_values)

    def partial_totals(self, state: State, piece: Piece) -> tuple[str, list[float]] | None:
        """The rule's."""
        with guarded(self.origin, self.where("partial_totals", piece), {}):
            return self.rule.partial_totals(state, piece)

    def needs_totals(self, state: State) -> bool:
        """The rule's."""
        with guarded(self.origin, f"{type(self.rule).__name__}.needs_totals", {}):
            return self.rule.needs_totals(state)

    def faults(self, num_experts: int) -> Iterator[str]:
        """The rule's."""
        with guarded(self.origin, f"{type(self.rule).__name__}.faults", {}):
            yield from self.rule.faults(num_experts)
