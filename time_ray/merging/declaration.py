"""What a technique says of itself: the whole package, and the suite that tests it, know no more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

from time_ray.merging.errors import MergeError, collecting
from time_ray.merging.parameters import Parameter, fill

if TYPE_CHECKING:
    from torch import Tensor

    from time_ray.merging.rule import Rule

Use = Literal["merge", "pair"]
"""A merge of any number of experts, or one step of a temporal loop."""

TAKEN = {
    *("base", "experts", "older", "newer", "technique", "ids", "start"),  # arguments of `merge`, `pair` and `ema`
    *("output", "progress", "threads", "chunk", "sidecars", "dtype", "say"),  # and of `merge_files`
    *("name", "params"),  # beside a technique's parameters in an experiment
    *("tensor",),  # what a function may ask for
}
"""What parameters may not be called."""

Claim = bool | Callable[[Mapping[str, Any]], bool]
"""Something that a technique says of itself: always, never, or depending on its canonical parameters."""


ByMoments = Callable[
    [Sequence[Mapping[str, "Tensor"]], Sequence[Mapping[str, "Tensor"]], Mapping[str, Any]], dict[str, "Tensor"]
]
"""A merge of experts, oldest first, by the second moments of each; with canonical parameters."""

TechniqueLike = Union[str, "Technique"]
"""What the public functions take for a technique: its name in the table, or itself."""


def holds(claim: Claim, parameters: Mapping[str, Any]) -> bool:
    """Whether a claim is made for these canonical parameters."""
    return claim if isinstance(claim, bool) else claim(parameters)


def none_idle(_: Mapping[str, Any]) -> tuple[str, ...]:
    """Every parameter matters."""
    return ()


def none_else(_: Mapping[str, Any]) -> None:
    """It is no other technique."""
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """One row of the table. What it claims is what `conformance` tests it for."""

    name: str
    rule: str
    """What it does, in one line."""
    paper: str = ""
    """Where it is from (a link)."""
    parameters: Mapping[str, Parameter]
    build: "Callable[[Mapping[str, Any], Sequence[str]], Rule]"
    """The rule for canonical parameters and the names of all tensors."""
    by_moments: ByMoments | None = None
    """It merges by second moments, too, which no model file holds: so it has this, and `build` raises MergeError."""
    state: str = "all experts"
    """What a merge over time remembers, in models of float32 besides the base."""
    elementwise: Claim = False
    """Tensors may be cut anywhere, and results are equal to the bit for any cut; otherwise they are merged whole."""
    symmetric: Claim = True
    """The order of the experts does not matter (but for rounding); ids stay with their experts."""
    faithful: Claim = False
    """Copies of one expert are merged into that expert (but for rounding)."""
    alone: bool = False
    """One expert alone is returned bit for bit."""
    needs_agreement: Claim = False
    """A tensor moves only as far as several models did: a pair of the base and an expert is the base (but for 0-d)."""
    random: bool = False
    """Draws depend on the experts' ids."""
    takes_weight: bool = False
    """It has a parameter `weight`, null by default: the newer model's share in a pair (which leaves out `weights`)."""
    examples: Sequence[Mapping[str, Any]] = ()
    """Other settings of the parameters to test, each good for any number of experts."""
    version: int | str = 1
    """Another one whenever results change: it is part of content keys."""
    idle: Callable[[Mapping[str, Any]], Sequence[str]] = none_idle
    """The parameters that cannot change a result, given the others."""
    same_as: Callable[[Mapping[str, Any]], str | None] = none_else
    """The technique that it is, but for rounding, with these canonical parameters: in a merge, and with weight 0.5."""

    def __post_init__(self) -> None:
        """MergeError lists what is wrong with names, defaults and examples."""
        faults = [f"parameter '{name}': the name is taken; give another" for name in self.parameters if name in TAKEN]
        if not self.name.isidentifier():
            faults.append("the name is none; give one of letters, digits and _")
        if self.takes_weight != ("weight" in self.parameters):
            faults.append("takes_weight and a parameter 'weight' belong together; declare both or neither")
        faults = [f"technique '{self.name}': {fault}" for fault in faults]
        for settings in ({}, *self.examples):
            with collecting(faults):
                self.fill(settings)
        MergeError.unless_none(faults)

    @property
    def needs_moments(self) -> bool:
        """Whether it merges by the second moments of experts, too: then `merge_by_moments` alone can."""
        return self.by_moments is not None

    def fill(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter in canonical form, defaults filled in; MergeError lists every fault."""
        return fill(self.name, self.parameters, params)

    def essential(self, params: Mapping[str, Any], use: Use = "merge") -> dict[str, Any]:
        """The parameters that determine a result, in canonical form and sorted; those that cannot are left out.

        `merge` is of any number of experts, so it leaves out `weight`; `pair` leaves out `weights`.
        """
        filled, idle = self.fill(params), set[str]()
        if self.takes_weight and use == "pair" and filled["weight"] is None:
            filled["weight"] = 0.5
        if self.takes_weight:
            idle.add("weight" if use == "merge" else "weights")
        idle |= {*self.idle(filled)}
        return {name: filled[name] for name in sorted(filled) if name not in idle}

    def single_is_identity(self, params: Mapping[str, Any]) -> bool:
        """Whether merging one expert alone returns that expert bit for bit."""
        self.fill(params)
        return self.alone
