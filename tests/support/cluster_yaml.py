"""cluster.yaml, and what the documentation lays over it for machines of one's own."""

import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parent.parent.parent
FILE = REPOSITORY / "cluster.yaml"
_SECTION = re.compile(r"^## Machines of your own$.*?```yaml\n(.*?)```", re.MULTILINE | re.DOTALL)


def cluster() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return values


def overlay() -> dict[str, Any]:
    """By key of cluster.yaml, what replaces its value; None: the key is left out."""
    found = _SECTION.search((REPOSITORY / "time_ray/docs/cluster.md").read_text(encoding="utf-8"))
    assert found is not None
    values: dict[str, Any] = yaml.safe_load(found[1])
    return values


def laid_over(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**values, **over}.items() if value is not None}
