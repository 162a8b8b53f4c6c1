"""Why two models differ is told by the first field in which their recipes do, however far back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from scored_store import NO_WEIGHTS
from toy_grid import full_grid, setting, strategies, technique

from time_ray.core.errors import UserError
from time_ray.core.grid import Cell, grid
from time_ray.core.recipe import Recipe, Trained, describe
from time_ray.store.files import Files
from time_ray.store.recipe_index import RecipeIndex
from time_ray.store.store import Store
from time_ray.store.why import Difference, first_difference


def cell(init: str = "ema", deploy: str = "all", *, name: str = "blend", seed: int = 0, tasks: int = 3) -> Cell:
    (found,) = grid(strategies([init]), strategies([deploy]), [technique(name)], [setting(tasks, seed=seed)])
    return found


def recipes(*cells: Cell) -> Iterator[Recipe]:
    for one in cells:
        for step in one.walk():
            yield from (step.expert, step.deployed)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """What sweeps of some cells leave: experts, and scores of what was deployed."""
    store = Store(Files(str(tmp_path)))
    for recipe in recipes(cell(), cell(seed=1), cell(name="sum"), cell("zs"), cell("ft", "ft")):
        if isinstance(recipe, Trained):
            store.record("weights", recipe.key, {**NO_WEIGHTS, "recipe": describe(recipe)})
        else:
            store.record("scores", f"{recipe.key}-{'0' * 32}", {"recipe": describe(recipe), "accuracy": {}})
    return store


def why(store: Store, one: Recipe, other: Recipe) -> Difference | None:
    known = RecipeIndex(store)
    return first_difference({"key": known.key(one.key[:12])}, {"key": known.key(other.key)}, known.recipe)


def last(of: Cell) -> Recipe:
    return list(of.walk())[-1].deployed


def expert(of: Cell, task: int) -> Recipe:
    return list(of.walk())[task - 1].expert


def test_the_seed_is_found_behind_every_merge(store: Store) -> None:
    assert why(store, last(cell()), last(cell(seed=1))) == Difference("experts[0].seed", 0, 1)
    found = why(store, expert(cell(), 3), expert(cell(seed=1), 3))
    assert found == Difference("start.experts[0].seed", 0, 1)


def test_the_technique_is_told_before_what_it_led_to(store: Store) -> None:
    assert why(store, last(cell()), last(cell(name="sum"))) == Difference("technique", "blend", "sum")
    assert why(store, expert(cell(), 2), expert(cell(name="sum"), 2)) == Difference("start.technique", "blend", "sum")


def test_another_start_is_another_kind(store: Store) -> None:
    assert why(store, expert(cell(), 2), expert(cell("zs"), 2)) == Difference("start.kind", "running", "base")
    assert why(store, last(cell()), last(cell("ft", "ft"))) == Difference("kind", "merged", "trained")


def test_another_task_is_told(store: Store) -> None:
    found = why(store, expert(cell("zs"), 1), expert(cell("zs"), 2))
    assert found == Difference("task", 1, 2)


def test_longer_histories_are_told_by_the_first_expert_more(store: Store) -> None:
    steps = list(cell().walk())
    found = why(store, steps[1].deployed, steps[2].deployed)
    assert found == Difference("experts[2]", None, steps[2].expert.key)


def test_the_same_is_the_same(store: Store) -> None:
    assert why(store, last(cell()), last(cell())) is None


def test_of_what_is_not_there_the_key_is_told(store: Store) -> None:
    one, other = expert(cell(), 2), expert(cell(seed=1), 2)
    for recipe in (expert(cell(), 1), expert(cell(seed=1), 1)):
        for file in store.files.list("weights", recipe.key[:2], recipe.key):
            store.files.delete("weights", recipe.key[:2], recipe.key, file.base_name)
    found = why(Store(store.files), one, other)
    assert found == Difference("start.experts[0].key", expert(cell(), 1).key, expert(cell(seed=1), 1).key)


def test_every_difference_between_recipes_is_described() -> None:
    """Recipes with different keys never have the same description: the store alone can tell them apart."""
    cells = full_grid([technique(), technique("sum", weighted=False)], setting(3), setting(3, seed=1, replay=True))
    all_of_them = {recipe.key: recipe for recipe in recipes(*cells)}
    known = {key: describe(recipe) for key, recipe in all_of_them.items()}
    keys = list(known)
    for one, other in zip(keys, keys[1:] + keys[:1], strict=True):
        found = first_difference({"key": one}, {"key": other}, known.get)
        assert found is not None
        assert not found.field.endswith("key")


def test_a_beginning_that_is_none_or_several_is_refused(store: Store) -> None:
    known = RecipeIndex(store)
    with pytest.raises(UserError, match="no key begins with 'xyz'"):
        known.key("xyz")
    with pytest.raises(UserError, match=r"keys begin with '': .*; write more of it"):
        known.key("")


def test_what_is_shown_of_a_key(store: Store) -> None:
    found = RecipeIndex(store).show(expert(cell(), 3).key)
    assert list(found["parents"].values()) == ["stored", "stored"]
    assert found["recipe"]["kind"] == "trained"
    assert found["scores"] == {}
    shown = RecipeIndex(store).show(last(cell()).key)
    assert len(shown["scores"]) == 1
    assert shown["weights"] is None
