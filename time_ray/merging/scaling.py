"""How far a merged task vector moves the base: `scaling`, and LiNeS in its place."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from time_ray.merging.lines import has_own_alpha, layer_factors
from time_ray.merging.parameters import are_pairs, by_layer, lines, number, of_layer

if TYPE_CHECKING:
    from time_ray.merging.rule import Rule, VectorRule

Params = Mapping[str, Any]
Build = Callable[[Params, Sequence[str]], "VectorRule"]
SCALING = {"scaling": by_layer(number(1.0)), "lines": lines()}
SCALING_SUM = {"scaling": by_layer(number(None, null="1 / number of experts")), "lines": lines()}


def moved(p: Params, names: Sequence[str]) -> tuple[float | None, Mapping[str, float | None] | None]:
    """The scaling of merged task vectors, and the factors that replace it."""
    if p["lines"]:
        return None, layer_factors(names, p["lines"])
    if are_pairs(p["scaling"]):
        return None, {name: of_layer(p["scaling"], name) for name in names}
    return p["scaling"], None


def fixed_alpha(p: Params) -> bool:
    """Nothing is asked of the whole model, so tensors may be cut."""
    return not has_own_alpha(p)


def own_alpha(build: Build) -> Callable[[Params, Sequence[str]], "Rule"]:
    """The same, with the α of LiNeS from the norms where none is given."""

    def built(p: Params, names: Sequence[str]) -> "Rule":
        rule = build(p, names)
        if fixed_alpha(p):
            return rule
        from time_ray.merging.lines_alpha import OwnAlpha

        return OwnAlpha(rule)

    return built


def replaced(p: Params) -> tuple[str, ...]:
    """LiNeS replaces the scaling."""
    return ("scaling",) if p["lines"] else ("lines",)
