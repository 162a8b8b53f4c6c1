"""A headless Chromium, driven through Playwright: tests that need one are skipped where it is not installed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from time_ray.tools.pictures.mlflow_page import BROWSERS, QUIET


@contextmanager
def browser_page(width: int = 1400, height: int = 900) -> Iterator[Any]:
    """A Playwright page, whose errors of scripts are in its `errors`; at the end there must be none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile, sync_api.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=found,
            headless=True,
            args=list(QUIET),
            viewport={"width": width, "height": height},
            accept_downloads=True,
        )
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        context.close()
