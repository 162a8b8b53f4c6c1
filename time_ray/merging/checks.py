"""What every technique is tested for. A check returns why a technique fails it, in one line; nothing if it passes."""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from time_ray.merging.declaration import Technique, Use, holds
from time_ray.merging.errors import MergeError
from time_ray.merging.in_memory import ema, merge, pair
from time_ray.merging.incremental import fold
from time_ray.merging.streaming import merge_files
from time_ray.merging.toy_models import SHAPES, Weights, same, same_bits, world

Params = Mapping[str, Any]


def anything(_: Technique, __: Params) -> bool:
    """Every technique is tested for this."""
    return True


def claimed(name: str) -> Callable[[Technique, Params], bool]:
    """Techniques are tested for what they claim."""
    return lambda technique, params: holds(getattr(technique, name), technique.fill(params))


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that techniques are tested for."""

    find_fault: Callable[[Technique, Params], str | None]
    applies: Callable[[Technique, Params], bool] = anything

    @property
    def name(self) -> str:
        """Its name."""
        return self.find_fault.__name__

    @property
    def about(self) -> str:
        """What must hold, in one line."""
        return (self.find_fault.__doc__ or "").strip()


def difference(found: Weights, wanted: Weights, tolerance: float | None = None) -> str | None:
    """The first tensor in which two models differ by more than a tolerance; by any bit if it is None."""
    for name, value in wanted.items():
        left, right = found[name].double(), value.double()
        equal = same_bits(found[name], value) if tolerance is None else torch.allclose(left, right, 0, tolerance)
        if not equal:
            return f"{name} differs by up to {(left - right).abs().max().item():.1e}"
    return None


def because(reason: str, fault: str | None) -> str | None:
    """A fault with its occasion in front."""
    return fault and f"{reason}: {fault}"


def is_described(technique: Technique, params: Params) -> str | None:
    """Its rule is told in words, and so is what each parameter allows."""
    del params
    if not technique.rule:
        return "it has no rule in words; write it into the row, or the function's documentation"
    silent = [name for name, parameter in technique.parameters.items() if not parameter.allowed]
    return f"parameters {', '.join(silent)} do not say what they allow" if silent else None


def has_stable_parameters(technique: Technique, params: Params) -> str | None:
    """The full parameters survive JSON, stay as they are when given back, and give the same bits."""
    base, (older, newer) = world(2)

    def merged(use: Use, given: Params) -> Weights:
        if use == "merge":
            return merge(base, [older, newer], technique, **given)
        return pair(base, older, newer, technique, ids=(None, "x"), **given)

    uses: tuple[Use, ...] = ("merge", "pair")
    for use in uses:
        full = technique.essential(params, use)
        if technique.essential(json.loads(json.dumps(full)), use) != full:
            return f"{full} is not the same when it is given back"
        fault = difference(merged(use, full), merged(use, params))
        if fault:
            return because(f"a {use} with {full}", fault)
    return None


def leaves_inputs_alone(technique: Technique, params: Params) -> str | None:
    """Base and experts are untouched; the result is new memory with the base's names, order, shapes and dtypes."""
    base, experts = world()
    before = copy.deepcopy([base, *experts])
    merged = merge(base, experts, technique, **params)
    form = [[(name, value.shape, value.dtype) for name, value in model.items()] for model in (merged, base)]
    if form[0] != form[1]:
        return f"the result has {form[0]} where the base has {form[1]}"
    for value in merged.values():
        value.zero_()
    changed = [number for number, old in enumerate(before) if not same([base, *experts][number], old)]
    return f"{'the base' if changed[0] == 0 else f'expert {changed[0]}'} has changed" if changed else None


def is_repeatable(technique: Technique, params: Params) -> str | None:
    """The same call gives the same bits, and draws nothing from torch's global generator."""
    base, experts = world()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)  # a state that no technique leaves behind by chance
        before = torch.get_rng_state()
        first, second = (merge(base, experts, technique, **params) for _ in range(2))
        untouched = torch.equal(before, torch.get_rng_state())
    fault = because("a second time", difference(second, first))
    return fault or (None if untouched else "it moves torch's global generator; draw from tensor.keep_mask")


def rounds_once(technique: Technique, params: Params) -> str | None:
    """Models of float16 and bfloat16 are merged in float32 and rounded once; float64 agrees with float32."""
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        base, experts = world(3, dtype)
        wide = [
            {name: value.float() if value.is_floating_point() else value for name, value in model.items()}
            for model in (base, *experts)
        ]
        merged, wanted = merge(base, experts, technique, **params), merge(wide[0], wide[1:], technique, **params)
        rounded = {name: wanted[name].to(dtype) for name in SHAPES}
        fault = difference(merged, rounded, 1e-5 if dtype == torch.float64 else None)
        if fault:
            return because(str(dtype).removeprefix("torch."), fault)
    return None


def folds(technique: Technique, params: Params) -> str | None:
    """Experts added over time give, at any time, the bits of a merge of all so far."""
    base, experts = world()
    running = fold(technique, base, **params)
    for count, expert in enumerate(experts, 1):
        running.add(expert)
        fault = difference(running.result(), merge(base, experts[:count], technique, **params))
        if fault:
            return because(f"after {count} experts", fault)
    return None


def streams(technique: Technique, params: Params) -> str | None:
    """From file to file the merge is that in memory, for any cut and any threads: to the bit if it is elementwise."""
    base, experts = world(3)
    tolerance = None if holds(technique.elementwise, technique.fill(params)) else 1e-6
    with tempfile.TemporaryDirectory(prefix="time-ray-") as name:
        paths = [Path(name, str(number)) for number in range(len(experts) + 1)]
        for model, path in zip([base, *experts], paths, strict=True):
            save_file(model, path)
        in_order = {name: base[name] for name in load_file(paths[0])}
        wanted = merge(in_order, experts, technique, **params)
        for chunk, threads in ((3, 2), (20, 1)):
            merge_files(paths[0], paths[1:], Path(name, "out"), technique, chunk=chunk, threads=threads, **params)
            fault = difference(load_file(Path(name, "out")), wanted, tolerance)
            if fault:
                return because(f"{chunk} elements at a time, {threads} threads", fault)
    return None


def knows_tensors_by_name(technique: Technique, params: Params) -> str | None:
    """Each tensor has the same bits wherever it stands in the model."""
    base, experts = world()
    turned = [dict(reversed(model.items())) for model in (base, *experts)]
    return difference(merge(turned[0], turned[1:], technique, **params), merge(base, experts, technique, **params))


def refuses_nan(technique: Technique, params: Params) -> str | None:
    """A NaN in an expert is an error that names it, and never lost."""
    base, experts = world(3)
    experts[1]["visual.proj"][0, 0] = torch.nan
    try:
        merge(base, experts, technique, **params)
    except MergeError as error:
        return None if error.faults[0].startswith("expert 2: visual.proj holds NaN") else "; ".join(error.faults)
    return "visual.proj of an expert holds NaN, and is merged all the same"


def stays_at_the_base(technique: Technique, params: Params) -> str | None:
    """Experts that did not move from the base give the base."""
    base, _ = world()
    return difference(merge(base, [base] * 3, technique, **params), base, 1e-6)


def is_faithful(technique: Technique, params: Params) -> str | None:
    """Copies of one expert give that expert (it claims to be faithful)."""
    base, (expert, *_) = world()
    return difference(merge(base, [expert] * 3, technique, ids=["a", "b", "c"], **params), expert, 1e-6)


def returns_one_expert(technique: Technique, params: Params) -> str | None:
    """One expert alone is returned bit for bit (it claims so with `alone`)."""
    base, (expert, *_) = world()
    return difference(merge(base, [expert], technique, **params), expert)


def stays_with_the_base(technique: Technique, params: Params) -> str | None:
    """A pair of the base and an expert is the base, but for what is 0-d (it claims to need agreement)."""
    base, (expert, *_) = world()
    merged = pair(base, base, expert, technique, **params)
    return difference({name: merged[name] if base[name].dim() else base[name] for name in base}, base)


def is_symmetric(technique: Technique, params: Params) -> str | None:
    """The order of the experts does not matter, if each keeps its id (it claims to be symmetric)."""
    base, experts = world()
    ids = ["a", "b", "c", "d"]
    wanted = merge(base, experts, technique, ids=ids, **params)
    for order in ([3, 2, 1, 0], [1, 2, 3, 0]):
        turned = merge(base, [experts[i] for i in order], technique, ids=[ids[i] for i in order], **params)
        fault = difference(turned, wanted, 1e-5)
        if fault:
            return because(f"with the experts in the order {order}", fault)
    return None


def ignores_ids(technique: Technique, params: Params) -> str | None:
    """The experts' ids do not matter (it does not claim to be random)."""
    base, experts = world(3)
    found = merge(base, experts, technique, ids=["x", "a", "2"], **params)
    return because("with other ids", difference(found, merge(base, experts, technique, **params)))


def draws_by_id(technique: Technique, params: Params) -> str | None:
    """Other ids, or another seed, give other draws (it claims to be random)."""
    base, experts = world(3)
    merged = merge(base, experts, technique, ids=["a", "b", "c"], **params)
    for ids in (["c", "a", "b"], ["x", "y", "z"]):
        if not difference(merge(base, experts, technique, ids=ids, **params), merged, 1e-6):
            return f"ids {ids} give what a, b, c give; draw by the id of an expert, not by its place"
    seed = technique.fill(params).get("seed")
    if seed is None:
        return None
    reseeded = merge(base, experts, technique, ids=["a", "b", "c"], **{**params, "seed": seed + 1})
    return None if difference(reseeded, merged, 1e-6) else f"seed {seed + 1} gives what seed {seed} gives"


def draws_stay_with_their_expert(technique: Technique, params: Params) -> str | None:
    """Which elements an expert changes does not depend on how many others come before it (it claims to be random)."""
    base, (expert, *_) = world(1)
    changed = []
    for place in range(3):
        ids, models = ["p", "q"], [base, base]
        ids.insert(place, "x")
        models.insert(place, expert)
        merged = merge(base, models, technique, ids=ids, **params)
        changed.append({name: (merged[name] != base[name]).float() for name in SHAPES})
    for place in (1, 2):
        if not same(changed[place], changed[0]):
            return f"an expert changes other elements when {place} experts come before it"
    return None


def runs_as_pairs(technique: Technique, params: Params) -> str | None:
    """A running merge is its steps one after another; of one expert it is that expert."""
    base, experts = world(3)
    if not same(ema(base, experts[:1], technique, start="expert", **params), experts[0]):
        return "of one expert alone it is another model"
    for start in ("base", "expert"):
        running, older = (base, None) if start == "base" else (experts[0], "1")
        for number in range(1 if start == "base" else 2, 4):
            ids = (older, str(number))
            running, older = pair(base, running, experts[number - 1], technique, weight=0.3, ids=ids, **params), None
        fault = difference(ema(base, experts, technique, start=start, weight=0.3, **params), running)
        if fault:
            return because(f"from the {start}", fault)
    return None


def takes_weight(technique: Technique, params: Params) -> str | None:
    """In a pair, `weight` is the newer model's share; with more models it is refused (it takes a weight)."""
    base, (older, newer, third) = world(3)
    given = {name: value for name, value in params.items() if name not in ("weight", "weights")}
    for share, wanted in ((0.0, older), (1.0, newer)):
        found = pair(base, older, newer, technique, weight=share, ids=(None, "2"), **given)
        fault = difference(found, wanted, 1e-6)
        if fault and not technique.random:
            return because(f"weight {share:g}", fault)
    whole = merge(base, [older, newer], technique, weight=0.3, **given)
    fault = difference(pair(base, older, newer, technique, weight=0.3, ids=("1", "2"), **given), whole)
    try:
        merge(base, [older, newer, third], technique, weight=0.3, **given)
    except MergeError:
        return because("a merge of the two", fault)
    return "three models are merged with a weight, which is a share of two"


def edges_of(technique: Technique) -> Iterator[dict[str, Any]]:
    """Settings with one parameter at an edge of what it allows, then with all numbers at the same edge."""
    numbers: dict[str, Sequence[Any]] = {}
    for name, parameter in technique.parameters.items():
        for value in parameter.edges:
            yield {name: value}
        if parameter.edges and type(parameter.edges[0]) in (int, float):
            numbers[name] = parameter.edges
    for place in (0, -1) if len(numbers) > 1 else ():
        yield {name: edges[place] for name, edges in numbers.items()}


def works_at_the_edges(technique: Technique, params: Params) -> str | None:
    """At the edges of what its parameters allow, alone and together, the result is finite."""
    del params
    base, experts = world(2)
    for setting in edges_of(technique):
        for name, value in merge(base, experts, technique, **setting).items():
            if not value.isfinite().all():
                return f"{setting}: {name} holds NaN or Inf"
    return None


def once(_: Technique, params: Params) -> bool:
    """The setting does not matter, so it is tested with the defaults alone."""
    return not params


CHECKS = (
    Check(is_described, once),
    Check(has_stable_parameters),
    Check(works_at_the_edges, once),
    Check(leaves_inputs_alone),
    Check(is_repeatable),
    Check(rounds_once),
    Check(folds),
    Check(streams),
    Check(knows_tensors_by_name),
    Check(refuses_nan),
    Check(stays_at_the_base),
    Check(is_faithful, claimed("faithful")),
    Check(returns_one_expert, claimed("alone")),
    Check(stays_with_the_base, claimed("needs_agreement")),
    Check(is_symmetric, claimed("symmetric")),
    Check(ignores_ids, lambda technique, _: not technique.random),
    Check(draws_by_id, claimed("random")),
    Check(draws_stay_with_their_expert, claimed("random")),
    Check(runs_as_pairs),
    Check(takes_weight, claimed("takes_weight")),
)
