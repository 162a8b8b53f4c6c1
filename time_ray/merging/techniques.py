"""The table of techniques: to add one, write its rule and add its row.

The table is there without torch: a row imports its rule when it builds it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from time_ray.merging.declaration import Technique, TechniqueLike, Use
from time_ray.merging.errors import MergeError
from time_ray.merging.matrix_techniques import MATRIX_ROWS
from time_ray.merging.parameters import (
    Parameter,
    by_layer,
    choice,
    flag,
    fraction,
    nearest,
    number,
    weights,
    whole,
)
from time_ray.merging.scaling import SCALING, SCALING_SUM, fixed_alpha, moved, own_alpha, replaced

if TYPE_CHECKING:
    from torch import Tensor

    from time_ray.merging.rule import Rule, VectorRule
    from time_ray.merging.sparsify import Sparsifier

Params = Mapping[str, Any]
AGGREGATE = {"aggregate": choice("mean", "mean", "sum", "max")}
WEIGHT = {"weight": fraction(None, null="equal shares; 0.5 for two")}
DROP = {"drop": fraction(0.7), "seed": whole(0, 0)}
RANKED = {"epsilon": number(0.15, 0, 1), "scope": choice("row", "row", "tensor")}
BAND = {
    "drop_low": fraction(0.7),
    "drop_high": fraction(0.01),
    "scope": choice("tower", "tower", "model", "tensor", "row"),
}
KEEP: dict[str, Parameter] = {
    "keep": fraction(0.2),
    "scope": choice("tower", "tower", "model", "tensor"),
    "exact_k": flag(default=False),
}


def largest(p: Params) -> "Sparsifier":
    """The trim of TIES."""
    from time_ray.merging.sparsify import Largest, Trim

    return Trim(Largest(p["keep"], p["scope"], exact=p["exact_k"]))


def middle(p: Params) -> "Sparsifier":
    """The trim of breadcrumbs."""
    from time_ray.merging.sparsify import Middle, RowTrim, Trim

    selection = Middle(p["drop_low"], p["drop_high"], p["scope"])
    return RowTrim(selection) if p["scope"] == "row" else Trim(selection)


def dropped(p: Params) -> "Sparsifier":
    """The drop of DARE."""
    from time_ray.merging.sparsify import Drop

    return Drop(p["drop"], p["seed"])


def dropped_by_rank(p: Params) -> "Sparsifier":
    """The drop of DELLA."""
    from time_ray.merging.della import RankedDrop

    return RankedDrop(p["drop"], p["epsilon"], p["scope"], p["seed"])


def average(p: Params, _: Sequence[str]) -> "Rule":
    """The average with these weights."""
    from time_ray.merging.average import average

    return average(p["weights"], p["weight"])


def slerp(p: Params, _: Sequence[str]) -> "Rule":
    """Spherical interpolation."""
    from time_ray.merging.slerp import Slerp

    return Slerp(p["weight"])


def task_arithmetic(p: Params, names: Sequence[str]) -> "VectorRule":
    """The sum of task vectors."""
    from time_ray.merging.sums import NormedSum, Sum

    return (NormedSum if p["keep_norm"] else Sum)(*moved(p, names))


def sparse_sum(p: Params, names: Sequence[str], sparsifier: "Sparsifier") -> "VectorRule":
    """The sum of sparse task vectors."""
    from time_ray.merging.sums import Sum

    return Sum(*moved(p, names), sparsifier)


def sparse_election(p: Params, names: Sequence[str], sparsifier: "Sparsifier") -> "VectorRule":
    """The sign election among sparse task vectors."""
    from time_ray.merging.elect import Elect

    return Elect(*moved(p, names), sparsifier, p["aggregate"])


def magmax(p: Params, names: Sequence[str]) -> "VectorRule":
    """The largest change."""
    from time_ray.merging.magmax import MagMax

    return MagMax(*moved(p, names))


def model_stock(_: Params, __: Sequence[str]) -> "Rule":
    """Model Stock."""
    from time_ray.merging.model_stock import ModelStock

    return ModelStock()


def karcher(_: Params, __: Sequence[str]) -> "Rule":
    """The Karcher mean."""
    from time_ray.merging.karcher import Karcher

    return Karcher()


def geometric_median(p: Params, _: Sequence[str]) -> "Rule":
    """The geometric median."""
    from time_ray.merging.geometric_median import GeometricMedian

    return GeometricMedian(p["scope"])


def consensus(p: Params, names: Sequence[str]) -> "VectorRule":
    """Consensus merging."""
    from time_ray.merging.consensus import Consensus

    return Consensus(*moved(p, names), p["min_agree"], p["mask_scale"])


def fisher(_: Params, __: Sequence[str]) -> "Rule":
    """Fisher merging has no rule of weights alone."""
    raise MergeError(
        "fisher: it needs the second moments of each expert's training, which are in no model file; "
        "name it in an experiment, or give them to time_ray.merging.fisher_merge"
    )


def fisher_by_moments(
    experts: "Sequence[Mapping[str, Tensor]]", moments: "Sequence[Mapping[str, Tensor]]", p: Params
) -> "dict[str, Tensor]":
    """Fisher merging."""
    from time_ray.merging.fisher import fisher_merge

    return fisher_merge(experts, moments, rate=p["rate"])


def not_by_row(p: Params) -> bool:
    """Rows are trimmed whole."""
    return bool(p["scope"] != "row") and fixed_alpha(p)


def idle_keep(p: Params) -> tuple[str, ...]:
    """Where all is kept, the way to count does not matter (the scope still breaks ties of the vote)."""
    return (*replaced(p), *(("exact_k",) if p["keep"] == 1 else ()))


def idle_drop(p: Params) -> tuple[str, ...]:
    """Where nothing or everything is dropped, the seed does not matter."""
    return (*replaced(p), *(("seed",) if p["drop"] in (0, 1) else ()))


def idle_ranked_drop(p: Params) -> tuple[str, ...]:
    """Where ranks do not matter, nor does the scope of ranks; then it is a drop like any other."""
    return replaced(p) if p["epsilon"] else (*idle_drop(p), "scope")


ROWS = (
    Technique(
        name="average",
        rule="θ = Σ w_i θ_i / Σ w_i, equal, listed or by a recency schedule",
        paper="https://arxiv.org/abs/2203.05482",
        parameters={"weights": by_layer(weights()), **WEIGHT},
        build=average,
        state="1 (all experts for reverse_ schedules but reverse_exp)",
        elementwise=True,
        symmetric=lambda p: p["weights"] is None and p["weight"] is None,
        faithful=True,
        alone=True,
        takes_weight=True,
        examples=(
            {"weights": "linear"},
            {"weights": "exp"},
            {"weights": {"visual.*": "exp", "*": None}},
            {"weights": "reverse_sqrt"},
            {"weights": "reverse_exp"},
        ),
    ),
    Technique(
        name="slerp",
        rule="per tensor the point on the arc between two models; of many, a running arc with share 1/t",
        paper="https://doi.org/10.1145/325165.325242",
        parameters=WEIGHT,
        build=slerp,
        state="1",
        symmetric=False,
        faithful=True,
        alone=True,
        takes_weight=True,
    ),
    Technique(
        name="task_arithmetic",
        rule="θ = θ_0 + λ Σ τ_i; keep_norm: the sum has the experts' mean norm",
        paper="https://arxiv.org/abs/2212.04089",
        parameters={**SCALING_SUM, "keep_norm": flag(default=False)},
        build=own_alpha(task_arithmetic),
        state="1",
        elementwise=lambda p: not p["keep_norm"] and fixed_alpha(p),
        faithful=lambda p: p["scaling"] is None and not p["lines"],
        examples=(
            {"keep_norm": True},
            {"scaling": {"visual.*": 0.3, "*": None}},
            {"lines": {"alpha": 0.2, "beta": 0.8, "curve": "sqrt"}},
        ),
        idle=replaced,
        same_as=lambda p: None if p["keep_norm"] or p["lines"] or p["scaling"] is not None else "average",
        version=2,
    ),
    Technique(
        name="ties",
        rule="keep each τ_i's largest magnitudes, elect each sign by the sum, aggregate what agrees",
        paper="https://arxiv.org/abs/2306.01708",
        parameters={**KEEP, **AGGREGATE, **SCALING},
        build=own_alpha(lambda p, names: sparse_election(p, names, largest(p))),
        state="4 (mean, max), 2 (sum)",
        elementwise=fixed_alpha,
        examples=(
            {"aggregate": "sum"},
            {"aggregate": "max", "scope": "model"},
            {"scope": "tensor", "exact_k": True},
            {"lines": {}},
        ),
        idle=idle_keep,
    ),
    Technique(
        name="dare",
        rule="drop a random share of each τ_i, rescale what is left, add up",
        paper="https://arxiv.org/abs/2311.03099",
        parameters={**DROP, **SCALING_SUM},
        build=own_alpha(lambda p, names: sparse_sum(p, names, dropped(p))),
        state="1",
        elementwise=fixed_alpha,
        random=True,
        examples=({"drop": 0.2, "seed": 3},),
        idle=idle_drop,
    ),
    Technique(
        name="dare_ties",
        rule="drop a random share of each τ_i, rescale what is left, elect each sign, aggregate what agrees",
        paper="https://arxiv.org/abs/2311.03099",
        parameters={**DROP, **AGGREGATE, **SCALING},
        build=own_alpha(lambda p, names: sparse_election(p, names, dropped(p))),
        state="4 (mean, max), 2 (sum)",
        elementwise=fixed_alpha,
        random=True,
        idle=idle_drop,
    ),
    Technique(
        name="della",
        rule="drop a random share of each τ_i, small magnitudes first, rescale, elect each sign, aggregate what agrees",
        paper="https://arxiv.org/abs/2406.11617",
        parameters={**DROP, **RANKED, **AGGREGATE, **SCALING},
        build=own_alpha(lambda p, names: sparse_election(p, names, dropped_by_rank(p))),
        state="4 (mean, max), 2 (sum)",
        random=True,
        examples=({"drop": 0.4, "epsilon": 0.3, "scope": "tensor"}, {"drop": 0.1, "aggregate": "sum"}),
        idle=idle_ranked_drop,
    ),
    Technique(
        name="breadcrumbs",
        rule="drop each τ_i's smallest and very largest magnitudes, add up",
        paper="https://arxiv.org/abs/2312.06795",
        parameters={**BAND, **SCALING_SUM},
        build=own_alpha(lambda p, names: sparse_sum(p, names, middle(p))),
        state="1",
        elementwise=not_by_row,
        examples=({"scope": "row", "drop_low": 0.4, "drop_high": 0.3}, {"scope": "model"}),
        idle=replaced,
    ),
    Technique(
        name="breadcrumbs_ties",
        rule="drop each τ_i's smallest and very largest magnitudes, elect each sign, aggregate what agrees",
        paper="https://arxiv.org/abs/2312.06795",
        parameters={**BAND, **AGGREGATE, **SCALING},
        build=own_alpha(lambda p, names: sparse_election(p, names, middle(p))),
        state="4 (mean, max), 2 (sum)",
        elementwise=not_by_row,
        examples=({"scope": "tensor", "aggregate": "max"},),
        idle=replaced,
    ),
    Technique(
        name="magmax",
        rule="of each element the τ_i with the largest magnitude; of equals the later",
        paper="https://arxiv.org/abs/2407.06322",
        parameters=SCALING,
        build=own_alpha(magmax),
        state="1",
        elementwise=fixed_alpha,
        symmetric=False,  # of equals the later
        faithful=lambda p: p["scaling"] == 1 and not p["lines"],
        idle=replaced,
    ),
    Technique(
        name="model_stock",
        rule="per tensor between θ_0 and the mean, as far as the τ_i point the same way",
        paper="https://arxiv.org/abs/2403.19522",
        parameters={},
        build=model_stock,
        state="2",
        faithful=True,
        alone=True,
        needs_agreement=True,
    ),
    Technique(
        name="karcher",
        rule="per tensor the direction from which the arcs to all models cancel, at their mean length",
        paper="https://doi.org/10.1002/cpa.3160300502",
        parameters={},
        build=karcher,
        faithful=True,
        alone=True,
    ),
    Technique(
        name="geometric_median",
        rule="the point with the least sum of distances to all models (not of their squares, as the average's)",
        paper="https://arxiv.org/abs/1912.13445",
        parameters={"scope": choice("model", "model", "tower", "tensor")},
        build=geometric_median,
        faithful=True,
        alone=True,
        examples=({"scope": "tensor"},),
    ),
    Technique(
        name="consensus",
        rule="Σ τ_i where at least min_agree experts have |τ_i| > mask_scale · |Σ τ − τ_i|",
        paper="https://arxiv.org/abs/2405.07813",
        parameters={"min_agree": whole(2, 0), "mask_scale": number(0.4, 0), **SCALING_SUM},
        build=own_alpha(consensus),
        state="all experts",
        elementwise=fixed_alpha,
        needs_agreement=lambda p: p["min_agree"] > 1,
        examples=({"min_agree": 1, "mask_scale": 0.2},),
        idle=lambda p: (*replaced(p), *(("mask_scale",) if not p["min_agree"] else ())),
    ),
    *MATRIX_ROWS,
    Technique(
        name="fisher",
        rule="experts count by AdamW's second moments: one rate a step (BECAME), or each element its own",
        paper="https://arxiv.org/abs/2504.02666",
        parameters={"rate": choice("model", "model", "element")},
        build=fisher,
        by_moments=fisher_by_moments,
        state="all experts, and the moments of each",
        symmetric=lambda p: p["rate"] == "element",
        faithful=True,
        alone=True,
        examples=({"rate": "element"},),
    ),
)
TECHNIQUES: dict[str, Technique] = {row.name: row for row in ROWS}


def register(technique: Technique) -> None:
    """The technique is in the table, so that experiments and commands can name it.

    Again with the same name and version changes nothing; MergeError if the name is taken by another technique.
    """
    taken = TECHNIQUES.setdefault(technique.name, technique)
    if taken is technique:
        return
    if any(taken is row for row in ROWS):
        raise MergeError(f"technique: '{technique.name}' is the name of a technique of this package; give it another")
    if taken.version != technique.version:
        versions = f"with version {taken.version!r}, and again with {technique.version!r}"
        raise MergeError(f"technique: '{technique.name}' is registered {versions}; give one another name")


def technique_named(name: TechniqueLike) -> Technique:
    """The technique, by its name or itself; MergeError names the nearest one."""
    if isinstance(name, Technique):
        return name
    if name not in TECHNIQUES:
        raise MergeError(f"technique: '{name}' is unknown; {nearest(name, TECHNIQUES)}")
    return TECHNIQUES[name]


def normalise(technique: TechniqueLike, params: Params, use: Use = "merge") -> dict[str, Any]:
    """The full parameters that determine a result, as JSON can hold them: for content keys.

    Defaults are filled in; parameters that cannot change the result in this use are left out. Given back as parameters,
    they give the same result. MergeError lists every fault.
    """
    return technique_named(technique).essential(params, use)
