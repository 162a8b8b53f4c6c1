"""What a sweep leaves behind, as a reader finds it: equal runs leave equal values."""

import json

from time_ray import api
from time_ray.api import Opened
from time_ray.store.files import Files
from time_ray.store.store import Store


def end_state(files: Files) -> dict[str, object]:
    """What the store holds, as a reader finds it: weights by digest, scores, and how both were made."""
    store = Store(files)
    found: dict[str, object] = {}
    for kind in ("weights", "scores"):
        for key in store.keys(kind):
            entry = store.entry(kind, key) or {}
            found[f"{kind} {key}"] = [entry.get(name) for name in ("recipe", "digest", "accuracy")]
            if kind == "weights":
                assert store.get(key) is not None
    state: dict[str, object] = json.loads(json.dumps(found))
    return state


def table(opened: Opened) -> list[object]:
    """The final table, and what every cell serves at its end."""
    return [
        [
            r.cell.key,
            r.done,
            r.weights and r.weights["digest"],
            [(row.task, dict(row.scores), row.accuracy) for row in r.rows],
        ]
        for r in api.status(opened)
    ]
