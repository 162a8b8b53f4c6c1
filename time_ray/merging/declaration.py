"""A technique as the table holds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from time_ray.merging.parameters import Parameter, fill
from time_ray.merging.rule import Rule

Use = Literal["merge", "pair"]
"""A merge of any number of experts, or one step of a temporal loop."""


def none_idle(_: Mapping[str, Any]) -> tuple[str, ...]:
    """Every parameter matters."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """One row of the table: everything that the rest of the package knows of a technique."""

    name: str
    rule: str
    """What it does, in one line."""
    paper: str
    """Where it is from (a link)."""
    parameters: Mapping[str, Parameter]
    build: Callable[[Mapping[str, Any], Sequence[str]], Rule]
    """The rule for canonical parameters and the names of all tensors."""
    state: str
    """What a merge over time remembers, in models of float32 besides the base."""
    elementwise: bool = True
    """Results are equal to the bit for any chunk size; otherwise tensors are merged whole."""
    takes_weight: bool = False
    """A pairwise merge honours `weight`, the newer model's share."""
    random: bool = False
    """Draws depend on the experts' ids."""
    alone: bool = False
    """One expert alone is returned bit for bit."""
    version: int = 1
    """Raised whenever results change."""
    idle: Callable[[Mapping[str, Any]], Sequence[str]] = none_idle
    """The parameters that cannot change a result, given the others."""

    def fill(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter in canonical form, defaults filled in; MergeError lists every fault."""
        return fill(self.name, self.parameters, params)

    def essential(self, params: Mapping[str, Any], use: Use = "merge") -> dict[str, Any]:
        """The parameters that determine a result, in canonical form and sorted; those that cannot are left out.

        `merge` is of any number of experts, so it leaves out `weight`; `pair` leaves out `weights`.
        """
        filled = self.fill(params)
        if use == "pair" and "weight" in filled and filled["weight"] is None:
            filled["weight"] = 0.5
        idle = {*self.idle(filled), "weight" if use == "merge" else "weights"}
        return {name: filled[name] for name in sorted(filled) if name not in idle}

    def single_is_identity(self, params: Mapping[str, Any]) -> bool:
        """Whether merging one expert alone returns that expert bit for bit."""
        self.fill(params)
        return self.alone
