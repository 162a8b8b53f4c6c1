"""Fisher merging: experts count by how sure each is of its weights, as AdamW's second moments tell.

Fisher-weighted averaging (https://arxiv.org/abs/2111.09832), and one rate a step as in BECAME
(https://arxiv.org/abs/2504.02666). Moments are no part of a model file, so no rule of weights alone can do this.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from time_ray.merging.errors import MergeError
from time_ray.merging.pieces import STATISTICS
from time_ray.merging.reductions import dot

Tensors = Mapping[str, Tensor]


def fisher_merge(
    experts: Sequence[Tensors], moments: Sequence[Tensors], *, rate: Literal["model", "element"] = "model"
) -> dict[str, Tensor]:
    """The merge of experts, oldest first, by the diagonal F of each one's Fisher information.

    By element it is θ = Σ F_i θ_i / Σ F_i, for which Σ (θ - θ_i)ᵀ F_i (θ - θ_i) is least; where no F_i tells anything,
    the mean. By model it is m_t = m_{t-1} + λ_t d from m_1 = θ_1 on, with d = θ_t - m_{t-1} and BECAME's rate
    λ_t = dᵀ F_t d / dᵀ (F_1 + ... + F_t) d. On the line between the two models this is where the loss on all tasks so
    far is least, as its Laplace approximation has it: F_1 + ... + F_{t-1} around m_{t-1}, F_t around θ_t.

    Sums are in float64, other arithmetic in float32 (float64 where the newest expert is). BatchNorm's running
    statistics are averaged; what is no floating-point tensor is the newest expert's.

    Args:
        experts: tensors by name, of the same names and shapes, on the same device.
        moments: of each expert, F of every floating-point tensor but running statistics: see `second_moments`.
        rate: one for each step, or one for each element.

    Returns:
        New tensors in the dtypes of the newest expert.

    Raises:
        MergeError: What is given does not fit together; every fault is a line.

    """
    MergeError.unless_none(_faults(experts, moments))
    weighed = [name for name, tensor in experts[-1].items() if tensor.is_floating_point() and not _is_statistic(name)]
    found = _by_element(experts, moments, weighed) if rate == "element" else _by_model(experts, moments, weighed)
    merged = {name: _result(name, tensor, experts, found) for name, tensor in experts[-1].items()}
    large = [name for name in weighed if not bool(merged[name].isfinite().all())]
    MergeError.unless_none(f"{name}: values are too large to be squared; leave out what grew so" for name in large)
    return merged


def second_moments(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What AdamW has found of the squares of gradients, by the names of weights: the diagonal of Fisher information.

    They are corrected for having begun at 0, so that trainings of any length compare; on the CPU. What was not trained
    has 0. Gradients that are clipped, or means over larger batches, have smaller squares.
    """
    betas = {parameter: group["betas"] for group in optimizer.param_groups for parameter in group["params"]}
    weights = module.state_dict(keep_vars=True)
    floats = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
    return {name: _corrected(tensor, optimizer, betas) for name, tensor in floats.items()}


def _corrected(parameter: Tensor, optimizer: torch.optim.Optimizer, betas: Mapping[Tensor, Sequence[float]]) -> Tensor:
    state = optimizer.state.get(parameter)
    if not state or not state["step"]:
        return torch.zeros_like(parameter, device="cpu", requires_grad=False)
    squares: Tensor = state["exp_avg_sq"]
    return squares.cpu() / (1 - math.pow(betas[parameter][1], state["step"]))


def _by_element(experts: Sequence[Tensors], moments: Sequence[Tensors], names: Sequence[str]) -> dict[str, Tensor]:
    found = {}
    for name in names:
        total, weighted, plain = (torch.zeros_like(experts[0][name], dtype=torch.float64) for _ in range(3))
        for expert, moment in zip(experts, moments, strict=True):
            weights, share = expert[name].double(), moment[name].double()
            total += share
            weighted.addcmul_(share, weights)
            plain += weights
        found[name] = torch.where(total > 0, weighted / total, plain / len(experts))
    return found


def _by_model(experts: Sequence[Tensors], moments: Sequence[Tensors], names: Sequence[str]) -> dict[str, Tensor]:
    precisions = {name: torch.promote_types(experts[-1][name].dtype, torch.float32) for name in names}
    merged, known = ({name: of[0][name].to(kind) for name, kind in precisions.items()} for of in (experts, moments))
    for number, (expert, moment) in enumerate(zip(experts[1:], moments[1:], strict=True), 2):
        way = {name: expert[name].to(kind) - merged[name] for name, kind in precisions.items()}
        known = {name: known[name] + moment[name].to(kind) for name, kind in precisions.items()}
        of_all = _square(way, known)
        rate = _square(way, moment) / of_all if of_all else 1 / number
        merged = {name: torch.add(merged[name], way[name], alpha=rate) for name in names}
    return merged


def _square(way: Tensors, moments: Tensors) -> float:
    """dᵀ F d."""
    return sum(dot(tensor.square().flatten(), moments[name].to(tensor.dtype).flatten()) for name, tensor in way.items())


def _result(name: str, newest: Tensor, experts: Sequence[Tensors], found: Tensors) -> Tensor:
    if name in found:
        return found[name].to(newest.dtype)
    if newest.is_floating_point():
        return torch.stack([expert[name].double() for expert in experts]).mean(0).to(newest.dtype)
    return newest.clone()


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in STATISTICS


def _faults(experts: Sequence[Tensors], moments: Sequence[Tensors]) -> Iterator[str]:
    if not experts:
        yield "experts: none is given; give at least one"
    if len(moments) != len(experts):
        yield f"moments: {len(moments)} for {len(experts)} experts; give one for each, oldest first"
        return
    for number, (expert, moment) in enumerate(zip(experts, moments, strict=True), 1):
        for name in {**experts[0], **expert}:
            wanted, found = experts[0].get(name), expert.get(name)
            if wanted is None or found is None or not _alike(found, wanted):
                yield f"expert {number}: {name} is not as in expert 1; give models of one architecture"
                continue
            if found.is_floating_point() and not bool(found.isfinite().all()):
                yield f"expert {number}: {name} holds NaN or Inf; leave this model out or train it again"
            if found.is_floating_point() and not _is_statistic(name):
                yield from _unfit(f"moments {number}: {name}", moment.get(name), found)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def _unfit(where: str, moment: Tensor | None, weights: Tensor) -> Iterator[str]:
    if moment is None or moment.shape != weights.shape:
        yield f"{where} is not there in the shape of the weights; give zeros for what was not trained"
    elif not bool((moment >= 0).all()) or not bool(moment.isfinite().all()):
        yield f"{where} has values that no square has; give finite ones of at least 0"
