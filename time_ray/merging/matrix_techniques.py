"""The rows of techniques that see matrices in tensors: their singular values, their subspaces, their covariances."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from time_ray.merging.declaration import Technique
from time_ray.merging.parameters import choice, fraction, number
from time_ray.merging.scaling import SCALING, Params, moved, own_alpha, replaced

if TYPE_CHECKING:
    from time_ray.merging.rule import Rule, VectorRule

MATRICES = {"matrices": choice("all", "all", "linear")}


def opcm(p: Params, _: Sequence[str]) -> "Rule":
    """OPCM."""
    from time_ray.merging.opcm import Opcm

    return Opcm(p["alpha"])


def iso_c(p: Params, names: Sequence[str]) -> "VectorRule":
    """Iso-C."""
    from time_ray.merging.iso_c import IsoC

    return IsoC(*moved(p, names), p["matrices"])


def iso_cts(p: Params, names: Sequence[str]) -> "VectorRule":
    """Iso-CTS."""
    from time_ray.merging.iso_cts import IsoCts

    return IsoCts(*moved(p, names), p["matrices"], p["common"])


def tsv_m(p: Params, names: Sequence[str]) -> "VectorRule":
    """TSV-M."""
    from time_ray.merging.tsv_m import TsvM

    return TsvM(*moved(p, names), p["matrices"])


def null_space(p: Params, names: Sequence[str]) -> "VectorRule":
    """The projector of NUFILT."""
    from time_ray.merging.null_space import NullSpace

    return NullSpace(*moved(p, names), p["matrices"], p["rank"])


def wudi(p: Params, names: Sequence[str]) -> "VectorRule":
    """WUDI."""
    from time_ray.merging.wudi import Wudi

    return Wudi(*moved(p, names), p["matrices"], p["ridge"])


def ace(p: Params, names: Sequence[str]) -> "VectorRule":
    """ACE-Merging."""
    from time_ray.merging.ace import Ace

    return Ace(*moved(p, names), p["matrices"], p["ridge"])


MATRIX_ROWS = (
    Technique(
        name="opcm",
        rule="add each τ_i without its part in the main directions merged so far; keep the experts' mean norm",
        paper="https://arxiv.org/abs/2501.09522",
        parameters={"alpha": fraction(0.5)},
        build=opcm,
        state="1",
        symmetric=False,
        version=2,
    ),
    Technique(
        name="iso_c",
        rule="Σ τ_i with all singular values of a matrix made their mean; other tensors: mean τ_i",
        paper="https://arxiv.org/abs/2502.04959",
        parameters={**MATRICES, **SCALING},
        build=own_alpha(iso_c),
        state="1",
        examples=({"matrices": "linear"}, {"lines": {"alpha": 1.0, "beta": 0.0}}),
        version=2,
        idle=replaced,
    ),
    Technique(
        name="iso_cts",
        rule="as iso_c, where the least common directions make room for main ones of each τ_i alone",
        paper="https://arxiv.org/abs/2502.04959",
        parameters={"common": fraction(0.8), **MATRICES, **SCALING},
        build=own_alpha(iso_cts),
        examples=({"common": 0.5, "matrices": "linear"},),
        idle=replaced,
    ),
    Technique(
        name="tsv_m",
        rule="the main singular vectors of each τ_i, made orthogonal to the others'; other tensors: mean τ_i",
        paper="https://arxiv.org/abs/2412.00081",
        parameters={**MATRICES, **SCALING},
        build=own_alpha(tsv_m),
        state="2",
        examples=({"matrices": "linear"}, {"lines": {}}),
        idle=replaced,
    ),
    Technique(
        name="null_space",
        rule="add each τ_i without its part on the inputs that the sum so far mainly answers; other tensors: mean τ_i",
        paper="https://arxiv.org/abs/2509.21413",
        parameters={"rank": fraction(0.1667), "matrices": choice("linear", "all", "linear"), **SCALING},
        build=own_alpha(null_space),
        state="1",
        symmetric=False,
        examples=({"rank": 0.5, "matrices": "all"},),
        idle=replaced,
    ),
    Technique(
        name="wudi",
        rule="the matrix that is nearest to each τ_i on what τ_i stands for: argmin Σ ‖(τ − τ_i) τ_iᵀ‖² / ‖τ_i‖²",
        paper="https://arxiv.org/abs/2503.08099",
        parameters={"ridge": number(1e-8, 1e-12), **MATRICES, **SCALING},
        build=own_alpha(wudi),
        state="6 (5.6 for ViT-B-16)",
        examples=({"ridge": 0.01, "matrices": "linear"},),
        idle=replaced,
    ),
    Technique(
        name="ace",
        rule="τ_i weighted by covariances C_i that are read from them: (Σ τ_i C_i) (Σ C_i)⁻¹, refined where uneven",
        paper="https://arxiv.org/abs/2603.02945",
        parameters={"ridge": number(0.01, 1e-12), **MATRICES, **SCALING},
        build=own_alpha(ace),
        examples=({"ridge": 1.0, "matrices": "linear"},),
        idle=replaced,
    ),
)
