"""What a person can mend is a line that says what to do, and nobody is asked to report it."""

import errno
import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from time_ray import cli
from time_ray.clip.models import base_weights
from time_ray.commands.explain import AGAIN, MANY, SHOWN, explained, kind_of, summed_up
from time_ray.core.errors import CellError, StoreError, UserError
from time_ray.core.model import ModelSpec

EXPERIMENT = {
    "name": "tiny",
    "init": "ft",
    "deploy": "ft",
    "technique": "average",
    "model": "mini-tiny",
    "budget": "2 steps",
    "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
    "stream": {"tasks": 1},
    "run": {"workers": 0},
}
LONG = "x" * 300
TOO_LONG = "the name is too long; give a shorter one"
NO_FOLDER = "is there already, and no folder; give another path, or remove it"
PART_IS_FILE = "a part of the path is a file, not a folder; correct the path"
IN_A_CIRCLE = "its links lead in a circle; correct them"
NO_HOME = "there is no such user, or no home folder; write the path without ~"
NOT_THERE = "no such file or folder; correct the path"

MISTAKES = [
    (["plan", "e.yaml", f"data.adaptation={LONG}"], 2, TOO_LONG),
    (["plan", "e.yaml", f"model={{name: mini-tiny, weights: {LONG}}}"], 2, TOO_LONG),
    (["plan", "."], 2, ".: is a folder; give an experiment file, such as "),
    (["plan", "deep.yaml"], 2, "deep.yaml:1: not YAML: nested more than 32 deep; write it flat"),
    (["plan", "e.yaml", "stream.file=cut.json"], 2, "make it anew by time-ray stream"),
    (["sweep", "e.yaml", "storage=e.yaml"], 2, "is not writable ("),
    (["stream", "e.yaml", "--order", "random", "-o", "."], 2, "is a folder; give the path of a file"),
    (["stream", "e.yaml", "--order", "random", "-o", "/proc/x/s.json"], 2, NOT_THERE),
    (["stream", "e.yaml", "--order", "random", "-o", LONG], 2, TOO_LONG),
    (["stream", "e.yaml", "--order", "random", "-o", "e.yaml/s.json"], 2, NO_FOLDER),
    (["data", "inspect", "e.yaml"], 2, PART_IS_FILE),
    (["data", "verify", LONG], 2, TOO_LONG),
    (["data", "sheet", "mini:chess", "-o", "sheet.xyz"], 2, "give a name that ends in .png"),
    (["data", "sheet", "mini:chess", "-o", "/proc/x.png"], 2, NOT_THERE),
    (
        ["merge", "e.yaml", "--base", "e.yaml", "-o", "m"],
        2,
        "neither a safetensors file nor a torch checkpoint; give one",
    ),
    (["merge", LONG, "--base", LONG, "-o", "m"], 2, "the name is too long; give a shorter one"),
    (["store", "verify", LONG], 2, TOO_LONG),
    (["data", "inspect", "loop"], 2, IN_A_CIRCLE),
    (["data", "verify", "loop"], 2, IN_A_CIRCLE),
    (["data", "sheet", "loop"], 2, IN_A_CIRCLE),
    (["data", "import", "parquet", "loop", "-o", "out"], 2, IN_A_CIRCLE),
    (["data", "inspect", "card"], 2, "card.json: Input should be an object; import the dataset again"),
    (["plan", "e.yaml", "storage=~nobody-here"], 2, NO_HOME),
    (["plan", "e.yaml", "data.adaptation=~nobody-here/x"], 2, NO_HOME),
    (["plan", "e.yaml", "data.root=~nobody-here/x"], 2, NO_HOME),
    (["plan", "e.yaml", "stream.file=~nobody-here/x"], 2, NO_HOME),
    (["plan", "e.yaml", "plugins=~nobody-here/x.py"], 2, NO_HOME),
    (["plan", "e.yaml", "plugins=exits.py"], 2, "exits.py:1: SystemExit: 3; correct the plugin"),
    (["plan", "e.yaml", 'plugins="a\\0b"'], 2, "cannot be read as a plugin (embedded null byte); give a Python file"),
    (["plan", "e.yaml", "stream.file=deep.yaml"], 2, "make it anew by time-ray stream"),
    (["plan", "keys.yaml"], 2, "keys.yaml:2: not YAML: a key is a list or a mapping; write a word"),
    (["plan", "e.yaml", "storage=file:///tmp/a#b"], 2, "would be cut off at # or ?; write %23 or %3F"),
    (
        ["status", "e.yaml", f"storage={LONG}"],
        1,
        "); give another path: storage: in the experiment, or TIME_RAY_STORAGE",
    ),
    (["ui", "damaged.yaml"], 1, "; see that it answers and is whole, then run the same command again"),
]


@pytest.mark.parametrize(("words", "status", "expected"), MISTAKES, ids=[" ".join(row[0])[:60] for row in MISTAKES])
def test_a_mistake_is_a_line_that_says_what_to_do(
    time_ray: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.yaml").write_text(yaml.safe_dump(EXPERIMENT), encoding="utf-8")
    Path("damaged.yaml").write_text(yaml.safe_dump({**EXPERIMENT, "storage": str(tmp_path)}), encoding="utf-8")
    Path("mlflow.db").write_bytes(random.Random(0).randbytes(9000))
    Path("deep.yaml").write_text("[" * 3000, encoding="utf-8")
    Path("cut.json").write_text('["a+++b"', encoding="utf-8")
    Path("keys.yaml").write_text("name: a\n? [b]\n: c\n", encoding="utf-8")
    Path("exits.py").write_text("raise SystemExit(3)", encoding="utf-8")
    Path("loop").symlink_to("loop")
    Path("card").mkdir()
    Path("card/card.json").write_text("[]", encoding="utf-8")
    done = time_ray(*words)
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == (2 if words[:2] == ["merge", "e.yaml"] else 1)  # there the base is at fault, too
    assert all(expected in line for line in lines)
    assert "please report" not in done.err
    assert done.status == status


def of_json() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


ERRORS: list[tuple[Exception, str]] = [
    (OSError(errno.ENOSPC, "full", "/a/b"), f"/a/b: no space is left on the device; free some, {AGAIN}"),
    (OSError(errno.EDQUOT, "full", "/a/b"), f"/a/b: the disk quota is used up; free some space, {AGAIN}"),
    (PermissionError(errno.EACCES, "no", "/a/b"), "/a/b: permission denied; see to its rights, or give another path"),
    (OSError(errno.EROFS, "no", "/a/b"), "/a/b: the file system is read-only; give another path"),
    (
        OSError(errno.EMFILE, "[Errno 24] Failed to open local file '/a/b'. Detail: many"),
        f"/a/b: too many open files; raise the limit, as in ulimit -n 65536, {AGAIN}",
    ),
    (OSError(errno.EIO, "no"), f"the device or the network file system fails; see to it, {AGAIN}"),
    (
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        f"no connection ([Errno 111] refused); see that the other side runs and can be reached, {AGAIN}",
    ),
    (MemoryError(), f"no memory is left (MemoryError); use a smaller model or batch, or another machine, {AGAIN}"),
    (of_json(), "a file holds no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "a text is not in UTF-8 ('utf-8' codec can't decode"),
    (ModuleNotFoundError("no x"), f"a package is missing or broken (no x); install it, {AGAIN}"),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS)
def test_what_the_system_or_a_library_refuses(error: Exception, expected: str) -> None:
    (line,), status = explained(error)
    assert line.startswith(expected)
    assert status == 1


@pytest.mark.parametrize("kind", [CellError, StoreError])
def test_what_could_not_be_read_just_now_says_so_itself(kind: type[Exception]) -> None:
    assert explained(kind("a.parquet: damaged (no footer); import it again")) == (
        ["a.parquet: damaged (no footer); import it again"],
        1,
    )


@pytest.mark.parametrize("error", [KeyError("x"), sqlite3.Error("x"), RuntimeError("a\nb")])
def test_a_bug_is_called_one(error: Exception) -> None:
    (line,), status = explained(error)
    assert line.startswith(f"{type(error).__name__}: ")
    assert line.endswith("(time-ray --debug shows where; please report it)")
    assert status == 1


def test_ctrl_c_before_a_command_begins_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130


def many(count: int) -> list[str]:
    return [f"data/my photos/{i}.jpg: class 'a {i}': cannot be decoded ({'x' * i}); mend it" for i in range(count)]


def test_many_of_a_kind_are_summed_up() -> None:
    missing = [f"w.pt: block.{i}.weight: missing; m has [{i}, 4]" for i in range(30)]
    others = ["e.yaml:3: seed: write a number", *missing]
    told = list(summed_up([others[0], *many(200), *others[1:]]))
    assert told == [
        others[0],
        *many(SHOWN),
        f"... and {200 - SHOWN} more of this kind (time-ray --debug names all)",
        *others[1 : 1 + SHOWN],
        f"... and {30 - SHOWN} more of this kind (time-ray --debug names all)",
    ]


def test_few_of_a_kind_are_all_told() -> None:
    assert list(summed_up(many(MANY))) == many(MANY)


def test_different_faults_are_different_kinds() -> None:
    lines = ["w.pt: a.b: missing; m has [3]", "w.pt: a.b: shape [3], but m has [4]", "w.pt: a.b: m has no such tensor"]
    assert len({kind_of(line) for line in lines}) == 3


def test_weights_of_another_model_are_a_few_lines(
    time_ray: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = base_weights(ModelSpec(name="mini-large"))
    strangers = {f"other.{name}.x": torch.zeros(1) for name in names}
    safetensors.torch.save_file(strangers, "w.safetensors")
    model = {"model": {"name": "mini-tiny", "weights": "w.safetensors"}, "storage": str(tmp_path / "runs")}
    Path("e.yaml").write_text(yaml.safe_dump({**EXPERIMENT, **model}), encoding="utf-8")
    done = time_ray("sweep", "e.yaml")
    assert done.status == 2
    lines = done.err.splitlines()
    assert 2 * (SHOWN + 1) <= len(lines) <= 20
    assert sum("more of this kind" in line for line in lines) >= 2
    assert f"error: ... and {len(names) - SHOWN} more of this kind (time-ray --debug names all)" in lines
    with pytest.raises(UserError) as refused:
        base_weights(ModelSpec(name="mini-tiny", weights="w.safetensors"))
    assert len(refused.value.faults) > len(names)
