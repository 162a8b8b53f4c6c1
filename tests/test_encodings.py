"""No letter ends a command: every one that prints does so where only ASCII can be written, names in Unicode or not."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from time_ray.cli import main
from time_ray.clip.cost import Operations

Run = Callable[..., str]
NAME = "größe-日本-🙂"


@pytest.fixture
def ascii_only(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line on streams like those of PYTHONIOENCODING=ascii; what it prints, if it ends well."""

    def call(*words: str | Path) -> str:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True) for _ in range(2))
        with monkeypatch.context() as context:
            context.setattr(sys, "argv", ["time-ray", *map(str, words)])
            context.setattr(sys, "stdout", out)
            context.setattr(sys, "stderr", err)
            status = 0
            try:
                main()
            except SystemExit as ended:
                status = int(ended.code or 0)
        assert status == 0, (words, err.buffer.getvalue())  # type: ignore[attr-defined]
        both: bytes = out.buffer.getvalue() + err.buffer.getvalue()  # type: ignore[attr-defined]
        return both.decode("ascii")

    return call


def test_every_printing_command(
    new_experiment: Callable[..., Path], tmp_path: Path, ascii_only: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # counting those of large models takes seconds
    monkeypatch.setattr("time_ray.clip.cost.operations", lambda *_: Operations(1.0, 1.0, 6.0))
    folder = tmp_path / NAME
    for word, colour in (("röd", (255, 0, 0)), ("青い", (0, 0, 255))):
        for split in ("train", "test"):
            (folder / NAME / split / word).mkdir(parents=True)
            Image.new("RGB", (32, 32), colour).save(folder / NAME / split / word / "0.png")
    data = {"adaptation": [str(folder / NAME)], "evaluation": "mini:textures"}
    small = {"init": "ft", "deploy": ["ft", "ema"], "technique": "average", "stream": {"tasks": 1}, "about": NAME}
    path = new_experiment(folder, **small, data=data)
    escaped = NAME.encode("ascii", "backslashreplace").decode()

    assert escaped in ascii_only("sweep", path)
    for verb in ("show", "plan", "budget", "status", "best"):
        ascii_only(verb, path)
    for form in ("json", "csv"):
        ascii_only("status", path, "-f", form)
    for table in ("strategies", "techniques", "metrics", "models", "datasets"):
        ascii_only("list", table)
    for verb in ("sync", "sweep"):
        ascii_only(verb, path)
    assert escaped in ascii_only("export", path, "--cell", "deploy=ft", "-o", folder / "best")
    assert escaped in ascii_only("stream", path, "--order", "random", "-o", folder / "s.json")
    (imported,) = (folder / "runs" / "data").glob(f"{NAME}-*")
    for words in (("inspect", imported), ("verify", imported), ("list", imported.parent)):
        ascii_only("data", *words)
    ascii_only("data", "sheet", imported, "-o", folder / "sheet.png")
    ascii_only("data", "import", "imagefolder", folder / NAME, "-o", folder / "new")
    for verb in ("ls", "verify"):
        ascii_only("store", verb, path)
    ascii_only("store", "gc", path)


def test_an_error_with_any_letter(ascii_only: Run, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"gr\\+xf6\\+xdfe-"):
        ascii_only("plan", tmp_path / f"{NAME}.yaml")


def test_the_package_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "time_ray", "list", "datasets"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(words, env=ascii_only, capture_output=True, check=True)
    assert b"chess" in done.stdout
