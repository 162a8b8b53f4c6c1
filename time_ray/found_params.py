"""Parameters that were found by tuning, as the store keeps them: first write wins, so that they never change again."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from time_ray.core.tuning import Candidate, Params, Tuning, best_of
from time_ray.store.store import Store

KIND = "tunings"


def read_found(store: Store, tunings: Sequence[Tuning]) -> dict[str, Params]:
    """The best parameters by the key of a search, of those that are over."""
    entries: dict[str, Any] = {tuning.key: store.entry(KIND, tuning.key) for tuning in tunings}
    return {key: dict(entry["params"]) for key, entry in entries.items() if entry is not None}


def read_candidates(store: Store, tuning: Tuning) -> list[Candidate]:
    """All that were tried, in order; none as long as the search is not over."""
    entry: Any = store.entry(KIND, tuning.key)
    return [] if entry is None else [Candidate(**one) for one in entry["candidates"]]


def write_found(store: Store, tuning: Tuning, candidates: Sequence[Candidate]) -> Params | None:
    """The store knows the best of all candidates of a search, which is given back; None if all have failed."""
    best = best_of(candidates)
    if best is None:
        return None
    about = {"name": tuning.name, "technique": tuning.label, "by": tuning.by, "params": best.params}
    entry: Any = store.record(KIND, tuning.key, {**about, "candidates": [asdict(one) for one in candidates]})
    return dict(entry["params"])
