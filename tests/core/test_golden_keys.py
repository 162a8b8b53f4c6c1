"""Keys never move by accident: stored work would be done again."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from toy_grid import full_grid, setting, technique

from time_ray import merging
from time_ray.core import grid, recipe
from time_ray.core.experiment import TechniqueSpec
from time_ray.study.techniques import resolved_technique

GOLDEN = Path(__file__).parents[1] / "golden" / "keys.json"
VERSION_OF = {
    "experts": "training",
    "moments": "moments",
    "merges": "training",
    "cells": "training",
    "scores": "evaluation",
}
_KINDS = ("techniques", *VERSION_OF)
Keys = Mapping[str, Mapping[str, object]]


def current() -> dict[str, dict[str, object]]:
    """Versions, and the key of a recipe of every kind: what goes into each of them shows here."""
    found: dict[str, dict[str, object]] = {
        "versions": {
            "training": recipe.TRAINING_VERSION,
            "moments": recipe.MOMENTS_VERSION,
            "evaluation": grid.EVALUATION_VERSION,
        },
        **{kind: {} for kind in _KINDS},
    }
    for name, row in merging.TECHNIQUES.items():
        real = resolved_technique(TechniqueSpec(name=name))
        found["versions"][name] = row.version
        found["techniques"] |= {name: real.key, f"{name} of a pair": real.pair_key}
    one = technique(scaling=0.5, lines={"alpha": 0.1})
    for cell in full_grid([one], setting(2), setting(2, seed=1, replay=True)):
        found["cells"][cell.name] = cell.key
        for step in cell.walk():
            task = f"task {step.training.task.number} seed {cell.setting.seed}"
            found["experts"][f"{cell.init.label} {task}"] = step.expert.key
            found["moments"][f"{cell.init.label} {task}"] = recipe.Moments(step.expert).key
            found["merges"][f"{cell.init.label}/{cell.deploy.label} {task}"] = step.deployed.key
            found["scores"][f"{cell.init.label}/{cell.deploy.label} {task}"] = cell.setting.scores_key(step.deployed)
    return found


def orphaned(stored: Keys, found: Keys) -> list[str]:
    """What is stored under keys that nothing asks for any more, though no version says so: one line a kind."""
    lines = []
    for kind in _KINDS:
        names = [name for name in stored.get(kind, {}) if stored[kind][name] != found[kind].get(name)]
        lost = [name for name in names if not _is_said(kind, name, stored, found)]
        if lost:
            lines.append(f"{len(lost)} of {len(stored[kind])} {kind}, such as {', '.join(lost[:3])}")
    return sorted(lines)


def _is_said(kind: str, name: str, stored: Keys, found: Keys) -> bool:
    """Whether a version was raised that the key depends on; scores and cells are of experts, too."""
    raised = {which for which, version in stored["versions"].items() if found["versions"].get(which) != version}
    if kind == "techniques":
        return name.removesuffix(" of a pair") in raised
    return VERSION_OF[kind] in raised or (kind in ("moments", "scores", "cells") and "training" in raised)


def test_no_key_moves_without_a_version() -> None:
    lines = orphaned(json.loads(GOLDEN.read_text(encoding="utf-8")), current())
    assert not lines, (
        f"keys moved, and no version was raised. Orphaned in every store: {'; '.join(lines)}. They would all be made "
        "again. If results really change, raise TRAINING_VERSION, EVALUATION_VERSION or the technique's version"
    )


def test_the_golden_file_is_up_to_date() -> None:
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == current(), (
        "keys or versions are not those of the golden file; if that is meant, write it anew: "
        "PYTHONPATH=tests/support:tests/core python -m test_golden_keys"
    )


def test_what_a_moved_key_orphans_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    before = current()
    assert orphaned(before, before) == []
    monkeypatch.setattr(recipe, "key_of", lambda *parts: grid.key_of("moved", *parts))
    lines = orphaned(before, current())
    assert {line.split(",")[0] for line in lines} == {f"{len(before[k])} of {len(before[k])} {k}" for k in _KINDS}
    assert "48 of 48 scores, such as zs/ft task 1 seed 0, zs/ft task 2 seed 0, zs/ema task 1 seed 0" in lines


def test_a_raised_version_orphans_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    before = current()
    monkeypatch.setattr(recipe, "TRAINING_VERSION", recipe.TRAINING_VERSION + 1)
    after = current()
    assert after["experts"] != before["experts"]
    assert orphaned(before, after) == []


def test_only_preprocessing_that_is_not_the_usual_is_in_a_key() -> None:
    usual = recipe.Base("m", "digest")
    assert recipe.Base("m", "digest", {}).key == usual.key == grid.key_of("base", "m", "digest")
    others = ({"resize": "squash"}, {"resize": "longest"}, {"mean": [0.5, 0.5, 0.5]}, {"quick_gelu": True})
    assert len({usual.key, *(recipe.Base("m", "digest", one).key for one in others)}) == 5
    assert recipe.describe(recipe.Base("m", "digest", others[0]))["preprocessing"] == others[0]
    assert "preprocessing" not in recipe.describe(usual)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
