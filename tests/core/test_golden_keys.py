"""Keys never move by accident: stored work would be done again."""

import json
from pathlib import Path

from toy_grid import full_grid, setting, technique

from time_ray.core.grid import EVALUATION_VERSION
from time_ray.core.plan import needs
from time_ray.core.recipe import TRAINING_VERSION

GOLDEN = Path(__file__).parents[1] / "golden" / "keys.json"


def current() -> dict[str, object]:
    """Versions, and keys of every kind that depend on them."""
    found: dict[str, object] = {"training_version": TRAINING_VERSION, "evaluation_version": EVALUATION_VERSION}
    cells = full_grid([technique(scaling=0.5, lines={"alpha": 0.1})], setting(2), setting(2, seed=1, replay=True))
    for cell in cells:
        need = needs(cell)
        found[f"{cell.name} {cell.setting.key[:4]}"] = [cell.key, *need.experts, *need.merges, *need.scores]
    return found


def test_no_key_moved() -> None:
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = current()
    moved = sorted(name for name in {*stored, *found} if stored.get(name) != found.get(name))
    assert not moved, (
        f"keys moved: {moved[:5]}: everybody's stored experts would be trained again. If results really change, "
        "raise TRAINING_VERSION, EVALUATION_VERSION or the technique's version; then write the golden file anew: "
        "PYTHONPATH=tests:tests/core python -m test_golden_keys"
    )


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(current(), indent=1) + "\n", encoding="utf-8")
