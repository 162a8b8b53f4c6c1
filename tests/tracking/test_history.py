"""Records of sweeps in a store that others may write: what is none is passed over, whatever it holds."""

import logging
from pathlib import Path
from typing import Any

import pytest

from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.tracking.history import started

AXES = "init: [zs]\ndeploy: [ft]\ntechnique: [average]\nmodel: [mini-tiny]\nbudget: [2 steps]\nseed: [0]\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def record(**changes: Any) -> dict[str, Any]:
    return {
        "experiment": "tiny",
        "about": "",
        "written": AXES,
        "cells": ["a" * 32],
        "varying": ["seed"],
        "versions": {},
        "seconds": 1.0,
        **changes,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"written": AXES + BOMB},
        {"written": "[" * 5000},
        {"written": "a: &a [*a]\n" + AXES},
        {"written": "- no keys"},
        {"written": AXES.replace("model: [mini-tiny]\n", "")},
    ],
)
def test_what_is_no_record_of_a_sweep_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    store = Store(Files(str(tmp_path)))
    store.record("sweeps", "0" * 32, record())
    store.record("sweeps", "1" * 32, record(**changes))
    with caplog.at_level(logging.WARNING):
        (found,) = started("tiny", store)
    assert found.key == "0" * 32
    assert found.values["budget"] == ["2 steps"]
    assert f"sweeps/{'1' * 32} is no record of a sweep" in caplog.text
