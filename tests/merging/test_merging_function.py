"""Techniques from outside: one plain function, or a rule in a row of its own."""

import importlib.util
import math
import re
from pathlib import Path
from typing import Literal

import pytest
import torch
from merging_toys import near, same, world
from safetensors.torch import load_file, save_file

from time_ray import merging
from time_ray.merging import (
    TECHNIQUES,
    MergeError,
    Technique,
    TechniqueError,
    ema,
    fold,
    merge,
    merge_files,
    normalise,
    pair,
    register,
    technique,
    techniques,
)
from time_ray.merging.conformance import run
from time_ray.merging.parameters import fraction
from time_ray.merging.rule import Rule

HERE = re.escape(__file__)


@technique
def clipped(base, experts, *, clip: float = 0.05, mode: Literal["mean", "sum"] = "mean"):
    """Mean or sum of clipped task vectors.

    More is not of interest.
    """
    total = sum((expert - base).clamp(-clip, clip) for expert in experts)
    return base + (total / len(experts) if mode == "mean" else total)


@technique(elementwise=True, faithful=True)
def share(base, experts, *, weight: float | None = None):
    """Mean, or the share of the newer."""
    if weight is None:
        return sum(experts) / len(experts)
    return (1 - weight) * experts[0] + weight * experts[1]


DROP = fraction(0.7)


def dropped(base, experts, *, drop=DROP, seed: int = 0, tensor):
    """Randomly dropped task vectors."""
    masks = [tensor.keep_mask(one, drop, seed, rescale=True) for one in tensor.expert_ids]
    return base + sum(mask * (expert - base) for mask, expert in zip(masks, experts, strict=True)) / len(experts)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(techniques, "TECHNIQUES", dict(TECHNIQUES))
    return techniques.TECHNIQUES


def without_scalars(model):
    return {name: value for name, value in model.items() if value.shape != ()}


def on_disk(folder, base, experts):
    paths = [folder / f"{number}.safetensors" for number in range(len(experts) + 1)]
    for model, path in zip([base, *experts], paths, strict=True):
        save_file(model, path)
    return paths


def test_a_function_merges_every_tensor_in_its_shape(tmp_path):
    base, experts = world(3)
    merged = merge(base, experts, clipped, clip=0.02)
    for name, value in merged.items():
        vectors = [(expert[name] - base[name]).clamp(-0.02, 0.02) for expert in experts]
        assert torch.equal(value, base[name] + sum(vectors) / 3 if value.is_floating_point() else base[name])
    running = fold(clipped, base, clip=0.02)
    for expert in experts:
        running.add(expert)
    assert same(running.result(), merged)
    paths = on_disk(tmp_path, base, experts)
    recipe = merge_files(paths[0], paths[1:], tmp_path / "out", clipped, clip=0.02)
    assert recipe["versions"]["clipped"] == clipped.version
    assert near(load_file(tmp_path / "out"), merged, 0)


def test_a_row_says_what_the_function_says():
    assert clipped.rule == "Mean or sum of clipped task vectors."
    assert normalise(clipped, {"clip": 1}) == {"clip": 1.0, "mode": "mean"}
    with pytest.raises(MergeError) as caught:
        normalise(clipped, {"clip": "much", "mode": "max", "clop": 1})
    assert caught.value.faults == (
        "clipped: unknown parameter 'clop'; did you mean 'clip'?",
        "clipped: clip is 'much'; give a number",
        "clipped: mode is 'max'; give one of mean, sum",
    )


def test_every_kind_of_parameter_comes_from_the_signature():
    @technique(name="kinds", version=3, paper="https://example.org")
    def function(
        base, experts, *, a=True, b=2, c=0.5, d: float = 1, e: int | None = None, f: "float | None" = None, g=DROP
    ): ...

    assert (function.name, function.version, function.paper) == ("kinds", 3, "https://example.org")
    assert normalise(function, {}) == {"a": True, "b": 2, "c": 0.5, "d": 1.0, "e": None, "f": None, "g": 0.7}
    assert normalise(function, {"d": 2, "e": -3.0, "f": 1})["e"] == -3
    with pytest.raises(MergeError) as caught:
        normalise(function, {"a": 1, "b": 1.5, "c": None, "g": 2})
    assert [fault.split(";")[0] for fault in caught.value.faults] == [
        "kinds: a is 1",
        "kinds: b is 1.5",
        "kinds: c is None",
        "kinds: g is 2",
    ]


def test_every_fault_of_a_signature_is_a_line():
    too_much = fraction(2)

    def function(base, experts, *, a, b="word", c: "Unknown" = 1, weight=3, weights=1, g=too_much): ...  # noqa: F821

    with pytest.raises(MergeError) as caught:
        technique(function)
    found = [re.sub(rf"{HERE}:\d+: function: ", "", fault) for fault in caught.value.faults]
    assert [fault.split(";")[0] for fault in found] == [
        "a: its default is missing",
        "b: its default is 'word'",
        "c: its annotation cannot be read (name 'Unknown' is not defined)",
        "weight is 3",
        "g is 2",
        "weights: in a pair the weight is all that counts",
    ]

    def positional(base, experts, clip=0.1): ...

    def open_ended(base, experts, **rest): ...

    for unfit in (positional, open_ended, lambda base: base):
        with pytest.raises(MergeError, match=rf"{HERE}:\d+: .* is no technique; write it as \(base, experts, \*, "):
            technique(unfit)


def test_a_row_that_does_not_add_up_is_refused():
    parameters = {"ids": fraction(0), "weight": fraction(2)}
    with pytest.raises(MergeError) as caught:
        Technique(name="my rule", rule="", parameters=parameters, build=clipped.build, examples=[{"ids": 3}])
    assert [fault.partition(": ")[2].split(";")[0] for fault in caught.value.faults] == [
        "parameter 'ids': the name is taken",
        "the name is none",
        "takes_weight and a parameter 'weight' belong together",
        "weight is 2",
        "ids is 3",
        "weight is 2",
    ]


SOURCE = """
from time_ray.merging import technique
SCALE = {scale}
@technique
def scaled(base, experts):
    return base + SCALE * (experts[-1] - base)
"""


def imported(path, source):
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_of_the_readme_conforms(tmp_path):
    readme = Path(merging.__file__).with_name("README.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "@technique" in block]
    row = imported(tmp_path / "my_rules.py", code).thinned_mean
    assert [result for result in run(row) if not result.passed] == []


def test_the_version_follows_the_whole_module(tmp_path):
    def version(scale, file="rules.py"):
        return imported(tmp_path / file, SOURCE.format(scale=scale)).scaled.version

    first = version(1)
    assert re.fullmatch("source:[0-9a-f]{12}", first)
    assert version(22) != first
    assert version(1, "moved.py") == first
    names = {}
    with pytest.raises(MergeError, match="scaled: its source cannot be read; declare a version"):
        exec(SOURCE.format(scale=1), names)  # noqa: S102 - as in an interpreter


def test_a_weight_is_the_share_of_the_newer():
    base, experts = world(3)
    for weight in (0.0, 0.3, 1.0):
        assert near(pair(base, *experts[:2], share, weight=weight), pair(base, *experts[:2], "average", weight=weight))
    assert near(ema(base, experts, share, weight=0.3), ema(base, experts, "average", weight=0.3))
    assert near(merge(base, experts, share), merge(base, experts, "average"))
    newest = technique(name="newest", version=1)(lambda _, experts: experts[-1])
    assert same(merge(base, experts, newest), experts[-1])
    assert near(ema(base, experts, clipped, weight=0.3), ema(base, experts, clipped, weight=0.9))  # it has none
    assert normalise(share, {"weight": 0.4}, use="pair") == {"weight": 0.4}
    assert normalise(share, {"weight": 0.4}) == {}
    with pytest.raises(MergeError, match="share of the newer of two models, and 3 are given"):
        merge(base, experts, share, weight=0.4)


@pytest.mark.parametrize("elementwise", [False, True])
def test_masks_are_those_of_dare_and_spare_the_running_merge(elementwise):
    random = technique(random=True, elementwise=elementwise)(dropped)
    base, experts = world(3)
    how = {"ids": ["a", "b", "c"], "drop": 0.6, "seed": 5}
    assert near(*(without_scalars(merge(base, experts, one, **how)) for one in (random, "dare")))
    assert near(*(without_scalars(ema(base, experts, one, start="expert", **how)) for one in (random, "dare")))
    for drop in (0, 1):
        assert near(*(without_scalars(merge(base, experts, one, drop=drop)) for one in (random, "dare")))
    with pytest.raises(MergeError, match="dropped: its random draws need names"):
        pair(base, *experts[:2], random)


def raises(base, experts):
    if base.dim() == 2:
        raise RuntimeError("two\nlines")
    return base


def returns_nothing(base, experts): ...


def flattens(base, experts):
    return base.reshape(-1)


def widens(base, experts):
    return base.double()


def changes_the_base(base, experts):
    base += 1
    return base.clone()


def changes_an_expert(base, experts):
    experts[1][...] = 0
    return base


FAULTS = [
    (raises, r"raises on \S+: RuntimeError: two lines; correct"),
    (returns_nothing, r"returns_nothing on \S+: returned a NoneType, and the base is float32\[.*; return a"),
    (flattens, r"flattens on \S+: returned float32\[\d+\], and the base is float32\[.*\]; return a"),
    (widens, r"widens on \S+: returned float64\[.*\], and the base is float32\[.*; return a"),
    (changes_the_base, r"changes_the_base on \S+: changed the base in place; change a copy"),
    (changes_an_expert, r"changes_an_expert on \S+: changed expert 2 in place; change a copy"),
]


@pytest.mark.parametrize(("function", "message"), FAULTS)
@pytest.mark.parametrize("inference", [False, True])
def test_a_function_that_misbehaves_is_named_in_one_line(function, message, inference, tmp_path):
    wrong = technique(version=1)(function)
    with torch.inference_mode(inference):
        base, experts = world(2)
        before = world(2)
        running = fold(wrong, base)
        running.add(experts[0])
        running.add(experts[1])
        paths = on_disk(tmp_path, base, experts)
        for attempt in (
            lambda: merge(base, experts, wrong),
            lambda: pair(base, *experts, wrong),
            running.result,
            lambda: running.add(experts[0], id="3"),  # it has failed before
            lambda: merge_files(paths[0], paths[1:], tmp_path / "out", wrong, threads=2),
        ):
            with pytest.raises(TechniqueError) as caught:
                attempt()
            (fault,) = caught.value.faults
            assert re.match(rf"{HERE}:\d+: {message}", fault)
            assert "\n" not in fault
        assert same(base, before[0])
        assert all(same(*models) for models in zip(experts, before[1], strict=True))
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_an_error_names_the_line_at_which_it_was_raised():
    with pytest.raises(TechniqueError) as caught:
        merge(*world(2), technique(version=1)(raises))
    line = raises.__code__.co_firstlineno + 2
    assert caught.value.faults[0].startswith(f"{__file__}:{line}: ")


class Last(Rule):
    """The newest expert."""

    def add(self, _, new):
        return [new.expert_values.clone()]

    def finish(self, state, _):
        return state[0] * 1


class ChangesTheExpert(Last):
    def add(self, _, new):
        return [new.expert_values.mul_(2).clone()]


class KeepsTheExpert(Last):
    def add(self, _, new):
        return [new.expert_values]


class ForgetsToReturn(Last):
    def add(self, _, new):
        self.state = [new.expert_values.clone()]


class ChangesItsState(Last):
    def finish(self, state, _):
        return state[0].mul_(2).clone()


class Shortens(Last):
    def finish(self, state, _):
        return state[0][1:]


class Raises(Last):
    def partial_totals(self, *_):
        return "norms", [1 / 0]


class FailsAtOnce(Last):
    def __init__(self):
        math.sqrt(-1)


def row(rule, **claims):
    return Technique(name=rule.__name__, rule="", parameters={}, build=lambda _, __: rule(), **claims)


def test_a_rule_needs_no_more_than_a_row():
    base, experts = world(3)
    assert same(merge(base, experts, row(Last)), experts[-1])
    assert same(ema(base, experts, row(Last, elementwise=True)), experts[-1])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (ChangesTheExpert, r"ChangesTheExpert\.add on \S+: changed the expert in place"),
        (KeepsTheExpert, r"KeepsTheExpert\.add on \S+: keeps the expert as its state; keep a copy"),
        (ForgetsToReturn, r"ForgetsToReturn\.add on \S+: returned a NoneType; return a list of tensors"),
        (ChangesItsState, r"ChangesItsState\.finish on \S+: changed state\[0\] in place"),
        (Shortens, r"Shortens\.finish on \S+: returned float32\[\d+\], and the base is float32\[\d+\]"),
        (Raises, r"Raises\.partial_totals on \S+: ZeroDivisionError: division by zero; correct"),
        (FailsAtOnce, "FailsAtOnce: ValueError: .*; correct"),
        (dict, "dict: build returned a dict; return a Rule"),
    ],
)
def test_a_rule_that_misbehaves_is_named_in_one_line(rule, message, tmp_path):
    base, experts = world(2)
    paths = on_disk(tmp_path, base, experts)

    def by_fold():
        running = fold(row(rule), base)
        running.add(experts[0])
        running.result()

    for attempt in (
        lambda: merge(base, experts, row(rule)),
        lambda: merge_files(paths[0], paths[1:], tmp_path / "out", row(rule)),
        by_fold,
    ):
        with pytest.raises(MergeError) as caught:
            attempt()
        (fault,) = caught.value.faults
        assert re.match(rf"{HERE}:\d+: {message}", fault)
    assert not (tmp_path / "out").exists()


def test_a_fold_that_failed_midway_refuses_further_work():
    class Picky(Last):
        def add(self, state, new):
            if new.expert.number == 2 and new.piece.order:
                raise RuntimeError("not this one")
            return super().add(state, new)

    base, experts = world(3)
    running = fold(row(Picky), base)
    running.add(experts[0])
    for attempt in (lambda: running.add(experts[1]), lambda: running.add(experts[2]), running.result):
        with pytest.raises(TechniqueError, match="not this one"):
            attempt()


def test_a_registered_technique_goes_by_its_name(table):
    base, experts = world(2)
    register(clipped)
    register(clipped)
    assert same(merge(base, experts, "clipped", clip=0.01), merge(base, experts, clipped, clip=0.01))
    assert normalise("clipped", {})["clip"] == 0.05
    same_again = technique(version=clipped.version, name="clipped")(returns_nothing)
    register(same_again)
    assert table["clipped"] is clipped
    with pytest.raises(MergeError, match=r"'clipped' is registered with version .*, and again with 2; give"):
        register(technique(version=2, name="clipped")(returns_nothing))
    with pytest.raises(MergeError, match="'ties' is the name of a technique of this package; give it another"):
        register(technique(version=1, name="ties")(returns_nothing))
