"""What surrounds the code: one version, and the licences of what is shipped."""

import re
import tomllib
from pathlib import Path

import time_ray

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place_and_the_changelog_has_it() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "time_ray.__version__"
    released = re.findall(r"^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == time_ray.__version__


def test_clips_vocabulary_is_shipped_with_its_licence() -> None:
    (vocabulary,) = (ROOT / "time_ray").rglob("merges.txt.gz")
    notice = vocabulary.parent / "merges.LICENSE.txt"
    assert "Copyright (c) 2021 OpenAI" in notice.read_text(encoding="utf-8")
    shipped = PYPROJECT["tool"]["setuptools"]["package-data"]["time_ray"]
    assert any(notice in (ROOT / "time_ray").glob(pattern) for pattern in shipped)
    assert any(notice in ROOT.glob(pattern) for pattern in PYPROJECT["project"]["license-files"])
