"""The table behind the init and deploy axes, and the normalisations that let equal weights share a key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_grid import setting, technique

from time_ray.core.recipe import Experts, Merged, Recipe, ResolvedTechnique, Running, Trained
from time_ray.core.strategies import All, Ema, Ft, Strategy, Window, Zs

BLEND = technique()  # one alone is itself
SUM = technique("sum", weighted=False, alone=False)
MEAN_STOCK = technique("stock", weighted=False)


def history(num_tasks: int, start: Recipe | None = None) -> Experts:
    """Experts that all began at the same weights."""
    toys = setting(num_tasks)
    experts = None
    for training in toys.trainings:
        experts = Experts.add(experts, Trained(start or toys.base, training))
    assert experts is not None
    return experts


BASE = setting().base
THREE = history(3)
FIRST, SECOND, THIRD = THREE


def test_zs_is_the_base() -> None:
    assert Zs().recipe(BASE, THREE, BLEND).key == BASE.key


def test_ft_is_the_newest_expert() -> None:
    assert Ft().recipe(BASE, THREE, BLEND).key == THIRD.key


def test_all_merges_every_expert_oldest_first() -> None:
    merged = All().recipe(BASE, THREE, BLEND)
    assert isinstance(merged, Merged)
    assert [e.key for e in merged.experts] == [FIRST.key, SECOND.key, THIRD.key]
    assert merged.base.key == BASE.key


def test_ema_folds_the_newest_into_what_was_there() -> None:
    merged = Ema(weight=0.25).recipe(BASE, THREE, BLEND)
    for newest in (THIRD, SECOND, FIRST):
        assert isinstance(merged, Running)
        assert merged.newer.key == newest.key
        assert merged.weight == 0.25
        merged = merged.older
    assert merged.key == BASE.key


def test_ema_from_the_first_expert_has_the_base_as_anchor_only() -> None:
    merged = Ema(start="expert").recipe(BASE, THREE, BLEND)
    assert isinstance(merged, Running)
    assert isinstance(merged.older, Running)
    assert merged.older.older.key == FIRST.key
    assert merged.base.key == BASE.key


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("of", [BLEND, SUM], ids=["itself alone", "a merge alone"])
def test_window_merges_the_newest_experts_oldest_first(size: int, of: ResolvedTechnique) -> None:
    merged = Window(size=size).recipe(BASE, THREE, of)
    if size == 1 and of is BLEND:
        assert merged.key == THIRD.key
        return
    assert isinstance(merged, Merged)
    assert [e.key for e in merged.experts] == [FIRST.key, SECOND.key, THIRD.key][-size:]
    assert merged.base.key == BASE.key


@pytest.mark.parametrize("size", [3, 4])
def test_a_window_over_the_whole_history_is_the_merge_of_all(size: int) -> None:
    assert Window(size=size).recipe(BASE, THREE, BLEND).key == All().recipe(BASE, THREE, BLEND).key


def test_a_window_is_known_by_its_experts_and_not_by_what_came_before() -> None:
    """Two histories with the same experts in the end: to train each of them from the base needs no earlier one."""
    other = Experts.add(None, Trained(THIRD, setting(3).trainings[0]))
    for expert in (SECOND, THIRD):
        other = Experts.add(other, expert)
    assert other.key != THREE.key
    assert Window(size=2).recipe(BASE, other, BLEND).key == Window(size=2).recipe(BASE, THREE, BLEND).key
    assert Window(size=3).recipe(BASE, other, BLEND).key != Window(size=3).recipe(BASE, THREE, BLEND).key


def test_one_expert_alone_is_that_expert_where_the_technique_says_so() -> None:
    one = history(1)
    assert All().recipe(BASE, one, BLEND).key == one.newest.key
    assert isinstance(All().recipe(BASE, one, SUM), Merged)
    assert Ema(start="expert").recipe(BASE, one, SUM).key == one.newest.key


@pytest.mark.parametrize("start", ["base", "expert"])
def test_a_weight_of_one_is_ft_and_of_zero_what_was_there_first(start: str) -> None:
    assert Ema(weight=1, start=start).recipe(BASE, THREE, BLEND).key == THIRD.key
    first = BASE.key if start == "base" else FIRST.key
    assert Ema(weight=0, start=start).recipe(BASE, THREE, BLEND).key == first


def test_a_weight_does_not_count_where_the_technique_takes_none() -> None:
    one, other = (Ema(weight=w).recipe(BASE, THREE, SUM) for w in (0.2, 0.9))
    assert one.key == other.key


def test_parameters_count_only_where_they_can_change_a_result() -> None:
    plain, listed = technique(), technique(weights=[1.0, 2.0])
    assert plain.key != listed.key
    pairs = [Ft().recipe(BASE, THREE, t).key for t in (plain, listed)]
    assert pairs[0] == pairs[1]


def test_a_technique_with_another_version_makes_other_keys() -> None:
    newer = type(BLEND)("blend", "blend", 2, {}, {}, weighted=True, identity_of_one=True)
    assert newer.key != BLEND.key
    assert newer.pair_key != BLEND.pair_key


@given(st.sampled_from([Ema(weight=0.25), Ema(), All(), Window(size=2)]), st.integers(1, 5))
def test_a_merge_of_a_shorter_history_is_a_part_of_the_longer(strategy: Strategy, length: int) -> None:
    longer = history(6)
    shorter: Experts | None = longer
    while shorter is not None and shorter.length > length:
        shorter = shorter.previous
    alone = strategy.recipe(BASE, history(length), BLEND)
    assert strategy.recipe(BASE, shorter, BLEND).key == alone.key


def test_labels_name_what_was_set() -> None:
    assert Ema().label == "ema"
    assert Ema(weight=0.3, start="expert").label == "ema(weight=0.3,start=expert)"
    assert [Window(size=size).label for size in (2, 3)] == ["window(size=2)", "window"]


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_is_a_share(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        Ema(weight=weight)
