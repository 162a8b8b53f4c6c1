"""The conformance suite finds what is planted: each fault is the one of a technique that looks right at first sight."""

import itertools

import pytest
import torch

from time_ray.merging import Technique, technique
from time_ray.merging.conformance import cases, result_of, run
from time_ray.merging.parameters import fraction
from time_ray.merging.rule import Rule

DROP = fraction(0.5)


def mean(base, vectors):
    return base + sum(vectors) / len(vectors)


def seeded_mask(base, *key):
    """A mask that depends on the key, and on nothing else."""
    generator = torch.Generator().manual_seed(hash(key) % 1000)
    return torch.rand(base.shape, generator=generator).gt(0.5).to(base.dtype)


def masks_by_place(base, experts, *, seed: int = 0):
    """Drops at random, by the expert's place."""
    return mean(base, [(one - base) * seeded_mask(base, seed, place) for place, one in enumerate(experts)])


def masks_by_id_and_place(base, experts, *, seed: int = 0, tensor):
    """Drops at random, by the expert's id and place."""
    keys = enumerate(map(str, tensor.expert_ids))
    masks = [seeded_mask(base, seed, place, len(key), *key.encode()) for place, key in keys]
    return mean(base, [(one - base) * mask for one, mask in zip(experts, masks, strict=True)])


def masks_by_place_in_the_chunk(base, experts):
    """Keeps every other element."""
    return mean(base, [(one - base) * (torch.arange(len(base)) % 2) for one in experts])


def hidden_draws(base, experts):
    """Drops at random, from the global generator."""
    return mean(base, [(one - base) * torch.rand(base.shape, dtype=base.dtype).round() for one in experts])


def reseeds_the_global_generator(base, experts):
    """Drops the same elements always."""
    torch.manual_seed(0)
    return mean(base, [(one - base) * torch.rand(base.shape, dtype=base.dtype).round() for one in experts[:1]] * 2)


def unused_seed(base, experts, *, drop=DROP, seed: int = 0, tensor):
    """Drops at random, always alike."""
    masks = [tensor.keep_mask(one, drop) for one in tensor.expert_ids]
    return mean(base, [(one - base) * mask for one, mask in zip(experts, masks, strict=True)])


def undeclared_draws(base, experts, *, tensor):
    """Drops at random, and says nothing of it."""
    masks = [tensor.keep_mask(one, 0.5) for one in tensor.expert_ids]
    return mean(base, [(one - base) * mask for one, mask in zip(experts, masks, strict=True)])


def changes_the_base(base, experts):
    """The mean."""
    return base.mul_(0).add_(sum(experts) / len(experts))


def changes_an_expert_behind_torch(base, experts):
    """The mean, and half of an expert for those who look again."""
    merged = mean(base, [one - base for one in experts])
    experts[0].data.mul_(0.5)
    return merged


def flattens(base, experts):
    """The mean, flat."""
    return mean(base, [one - base for one in experts]).view(-1)


def forgets_float64(base, experts):
    """The mean, in float32."""
    return mean(base, [one - base for one in experts]).float()


def prefers_the_newest(base, experts):
    """More of the newest."""
    return base + sum(0.5**age * (one - base) for age, one in enumerate(experts[::-1]))


def divides_by_nothing(base, experts):
    """The mean direction at the mean norm."""
    vectors = [one - base for one in experts]
    return base + sum(one / one.norm() for one in vectors) * sum(one.norm() for one in vectors) / len(vectors) ** 2


def divides_by_nothing_at_the_edge(base, experts, *, drop=DROP):
    """The mean of what is left."""
    return mean(base, [(one - base) * (1 - drop) / torch.tensor(1 - drop, dtype=base.dtype) for one in experts])


def overshoots(base, experts):
    """Twice the mean change."""
    return mean(base, [2 * (one - base) for one in experts])


def rounds(base, experts):
    """The mean, with a detour."""
    return mean(base, [(one - base) / 3 * 3 for one in experts])


def weighs_the_older(base, experts, *, weight: float | None = None):
    """The share of the older."""
    shares = [1 / len(experts)] * len(experts) if weight is None else [weight, 1 - weight]
    return base + sum(share * (one - base) for share, one in zip(shares, experts, strict=True))


def scales_by_the_norm(base, experts):
    """The mean at the mean norm, as far as it is known."""
    vectors = [one - base for one in experts]
    return base + sum(vectors) * sum(one.norm() for one in vectors) / (1e-9 + len(vectors) * sum(vectors).norm())


CALLS = itertools.count(1)


def remembers_calls(base, experts):
    """A little more each time."""
    return mean(base, [(one - base) * (1 + 1e-4 * next(CALLS)) for one in experts])


FAULTS = [
    (masks_by_place, {"random": True}, "draws_by_id"),
    (masks_by_place, {}, "is_symmetric"),
    (masks_by_id_and_place, {"random": True}, "is_symmetric"),
    (masks_by_id_and_place, {"random": True, "symmetric": False}, "draws_stay_with_their_expert"),
    (masks_by_place_in_the_chunk, {"elementwise": True}, "streams"),
    (hidden_draws, {"random": True}, "is_repeatable"),
    (reseeds_the_global_generator, {}, "is_repeatable"),
    (unused_seed, {"random": True}, "draws_by_id"),
    (undeclared_draws, {}, "ignores_ids"),
    (changes_the_base, {}, "leaves_inputs_alone"),
    (changes_an_expert_behind_torch, {}, "folds"),
    (flattens, {}, "leaves_inputs_alone"),
    (forgets_float64, {}, "rounds_once"),
    (prefers_the_newest, {}, "is_symmetric"),
    (divides_by_nothing, {}, "stays_at_the_base"),
    (divides_by_nothing_at_the_edge, {}, "works_at_the_edges"),
    (overshoots, {"faithful": True}, "is_faithful"),
    (overshoots, {"needs_agreement": True}, "stays_with_the_base"),
    (rounds, {"alone": True}, "returns_one_expert"),
    (weighs_the_older, {"symmetric": False}, "takes_weight"),
    (scales_by_the_norm, {"elementwise": True}, "streams"),
    (remembers_calls, {}, "is_repeatable"),
]


def reason_of(row, name):
    """Why a technique fails a check that it has to pass."""
    (found,) = [result_of(check, row, params) for check, params in cases(row) if check.name == name]
    return found.reason


@pytest.mark.parametrize(("function", "claims", "check"), FAULTS)
def test_a_planted_fault_is_found(function, claims, check):
    reason = reason_of(technique(version=1, **claims)(function), check)
    assert reason
    assert "\n" not in reason


@technique(version=1, random=True, elementwise=True, examples=[{"drop": 0.2, "seed": 3}])
def honest(base, experts, *, drop=DROP, seed: int = 0, tensor):
    """Drops at random, by the expert's id."""
    masks = [tensor.keep_mask(one, drop, seed, rescale=True) for one in tensor.expert_ids]
    return mean(base, [(one - base) * mask for one, mask in zip(experts, masks, strict=True)])


@technique(version=1, faithful=True, symmetric=lambda p: p["weight"] is None)
def honest_share(base, experts, *, weight: float | None = None):
    """The share of the newer."""
    shares = [1 / len(experts)] * len(experts) if weight is None else [1 - weight, weight]
    return base + sum(share * (one - base) for share, one in zip(shares, experts, strict=True))


@pytest.mark.parametrize("row", [honest, honest_share])
def test_an_honest_technique_passes(row):
    results = list(run(row))
    assert {result.check: result.reason for result in results if not result.passed} == {}
    assert all(result.about for result in results)


class Remembered(Rule):
    """The mean, added to the first expert itself."""

    def add(self, state, new):
        return [new.expert_values] if state is None else [state[0].add_(new.expert_values)]

    def finish(self, state, context):
        return state[0] / context.num_experts


def test_a_rule_that_adds_to_an_expert_is_found():
    row = Technique(name="remembered", rule="The mean.", parameters={}, build=lambda _, __: Remembered())
    assert "keeps the expert as its state" in reason_of(row, "leaves_inputs_alone")


class Hides(Rule):
    """The newest, and a false word on NaN."""

    carries = True

    def add(self, _, new):
        return [new.expert_values.nan_to_num()]

    def finish(self, state, _):
        return state[0] * 1


def test_a_rule_that_loses_nan_is_found():
    row = Technique(name="hides", rule="The newest.", parameters={}, build=lambda _, __: Hides())
    assert "merged all the same" in reason_of(row, "refuses_nan")


def test_a_technique_without_words_is_told_so():
    row = Technique(name="mute", rule="", parameters={}, build=honest.build)
    assert "no rule in words" in reason_of(row, "is_described")
