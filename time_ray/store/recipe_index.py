"""Recipes in a store, by the beginning of their key, as people give it."""

from collections.abc import Mapping
from typing import Any

from time_ray.core.errors import UserError, some_of
from time_ray.store.entry_files import PROGRESS, Entry
from time_ray.store.store import Store


class RecipeIndex:
    """The recipes that a store knows: of weights that it holds, and of models that it holds scores of."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._weights = store.keys("weights")
        self._scores: dict[str, list[str]] = {}  # by the key of what was scored
        for name in sorted(store.keys("scores")):
            self._scores.setdefault(name.partition("-")[0], []).append(name)

    def key(self, prefix: str) -> str:
        """The one key that begins so. UserError if none does, or several."""
        known = self._weights | self._scores.keys() | self.store.keys(PROGRESS)
        found = [prefix] if prefix in known else sorted(key for key in known if key.startswith(prefix))
        if len(found) == 1:
            return found[0]
        where = self.store.files.shown
        if not found:
            raise UserError(f"{where}: no key begins with '{prefix}'; `time-ray store ls` counts what is there")
        names = some_of(key[: len(prefix) + 4] for key in found)
        raise UserError(f"{where}: {len(found)} keys begin with '{prefix}': {names}; write more of it")

    def recipe(self, key: str) -> Mapping[str, Any] | None:
        """How weights were made; None if the store holds neither them nor their scores."""
        entry = self.store.entry("weights", key)
        for name in self._scores.get(key, ()):
            entry = entry or self.store.entry("scores", name)
        found: Any = entry and entry.get("recipe")
        return found or None

    def show(self, key: str) -> dict[str, object]:
        """All that is known under a key: its recipe, what it was made from, its weights, scores and progress."""
        weights = self.store.entry("weights", key)
        recipe = self.recipe(key)
        return {
            "key": key,
            "recipe": recipe,
            "parents": {parent: self._state(parent) for parent in parents(recipe or {})},
            "weights": weights and {name: value for name, value in weights.items() if name != "recipe"},
            "scores": {name: _plain(self.store.entry("scores", name)) for name in self._scores.get(key, ())},
            "progress": [at.step for at in self.store.checkpoints(key)],
        }

    def _state(self, key: str) -> str:
        if key in self._weights:
            return "stored"
        return "scored" if key in self._scores else "not here"


def parents(recipe: Mapping[str, Any]) -> list[str]:
    """Keys of the experts that a recipe names, each once, in order."""
    found: list[str] = []
    for name, value in recipe.items():
        if name == "experts" and isinstance(value, list):
            found += map(str, value)
        elif isinstance(value, Mapping) and value.get("kind") == "trained":
            found.append(str(value.get("key")))
        elif isinstance(value, Mapping):
            found += parents(value)
    return list(dict.fromkeys(found))


def _plain(entry: Entry | None) -> object:
    return entry and entry["accuracy"]
