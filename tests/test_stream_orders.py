"""Streams on the command line: built, written in the benchmark's form, read back, cut into tasks."""

import json
import pickle
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from time_ray import api
from time_ray.data.dataset import Row, write_dataset
from time_ray.data.mini.world import WORLD
from time_ray.study import resolve

Make = Callable[..., Path]
Command = Callable[..., Any]
CHESS = {f"chess+++{name}" for name in WORLD["chess"].classes}


@pytest.fixture
def experiment(new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment on mini:chess, with a pool whose captions name some pieces."""
    monkeypatch.chdir(tmp_path)
    pieces = sorted(WORLD["chess"].classes)
    captions = [f"a {piece}" for number, piece in enumerate(pieces) for _ in range(number % 3)]
    rows = [Row(b"", (caption,), -1, "") for caption in captions]
    write_dataset(tmp_path / "pool", name="pool", kind="captions", classes=(), templates=(), splits={"train": rows})
    return new_experiment(tmp_path, data={"adaptation": ["mini:chess"], "pretraining": "pool"})


def built(time_ray: Command, experiment: Path, *words: str) -> list[str]:
    done = time_ray("stream", experiment, "-o", "out.json", *words)
    assert (done.status, done.out) == (0, "out.json\n")
    entries: list[str] = json.loads(Path("out.json").read_text(encoding="utf-8"))
    return entries


@pytest.mark.parametrize("order", ["random", "datasets", "similarity", "performance", "frequency"])
def test_a_stream_holds_every_class_once_and_its_command_makes_it_again(
    time_ray: Command, experiment: Path, order: str
) -> None:
    entries = built(time_ray, experiment, "--order", order, "--seed", "3")
    assert sorted(entries) == sorted(CHESS)
    recipe = json.loads(Path("out.recipe.json").read_text(encoding="utf-8"))
    bytes_before = Path("out.json").read_bytes()
    Path("out.json").unlink()
    assert time_ray(*shlex.split(recipe["command"])[1:]).status == 0
    assert Path("out.json").read_bytes() == bytes_before
    backwards = built(time_ray, experiment, "--order", order, "--seed", "3", "--reverse")
    assert backwards == entries[::-1]


def test_a_seed_decides_a_random_stream(time_ray: Command, experiment: Path) -> None:
    one, other = (built(time_ray, experiment, "--order", "random", "--seed", seed) for seed in ("0", "1"))
    assert one != other


def test_rare_classes_come_first(time_ray: Command, experiment: Path) -> None:
    entries = built(time_ray, experiment, "--order", "frequency")
    number = {f"chess+++{piece}": place % 3 for place, piece in enumerate(sorted(WORLD["chess"].classes))}
    assert [number[entry] for entry in entries] == sorted(number.values())


def test_datasets_come_as_the_experiment_names_them(time_ray: Command, new_experiment: Make, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    path = new_experiment(tmp_path, data={"adaptation": ["mini:chess"]})
    folder = tmp_path / "mine"
    rows = [Row(b"", ("x",), label, "") for label in (0, 1)]
    write_dataset(folder, name="aaa", kind="classification", classes=("y", "x", "untrained"), templates=("{}",),
                  splits={"train": rows})  # fmt: skip
    done = time_ray("stream", path, "data.adaptation=[mini:chess, mine]", "--order", "datasets", "-o", "out.json")
    assert "1 without training images are left out" in done.err
    entries = json.loads(Path("out.json").read_text())
    assert set(entries[:-2]) == CHESS
    assert set(entries[-2:]) == {"aaa+++x", "aaa+++y"}


def test_a_stream_without_a_pool_has_no_frequencies(time_ray: Command, experiment: Path) -> None:
    done = time_ray("stream", experiment, "data.pretraining=null", "--order", "frequency", "-o", "out.json")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: data.pretraining: frequency is counted in the captions of a pool")


def test_a_stream_file_decides_the_tasks(experiment: Path, tmp_path: Path) -> None:
    order = sorted(CHESS, reverse=True)
    (tmp_path / "s.json").write_text(json.dumps(order))
    opened = api.open_experiment(experiment, ["stream={tasks: 4, file: s.json}"])
    tasks = [training.task for training in opened.study.settings[0].trainings]
    assert [len(task.concepts) for task in tasks] == [2, 2, 1, 1]
    assert ["+++".join(concept) for task in tasks for concept in task.concepts] == order
    shuffled = api.open_experiment(experiment, ["stream={tasks: 4, file: s.json, order: random}"])
    plain = api.open_experiment(experiment, ["stream={tasks: 4}"])
    assert [cell.key for cell in shuffled.study.cells] == [cell.key for cell in plain.study.cells]


def test_workers_need_no_stream_file(experiment: Path, tmp_path: Path) -> None:
    """They are told what it lists: where they run there may be no such file."""
    (tmp_path / "s.json").write_text(json.dumps(sorted(CHESS)))
    study = api.open_experiment(experiment, ["stream.file=s.json"]).study
    (tmp_path / "s.json").unlink()
    told = pickle.loads(pickle.dumps((study.experiment, study.datasets)))  # noqa: S301
    assert [cell.key for cell in resolve(*told).cells] == [cell.key for cell in study.cells]


def test_what_a_stream_leaves_out_is_scored_and_never_learned(
    time_ray: Command, experiment: Path, tmp_path: Path
) -> None:
    (tmp_path / "s.json").write_text(json.dumps(sorted(CHESS)[:4]))
    words = ("stream={tasks: 2, file: s.json}", "data.adaptation=[mini:chess, mini:flags]")
    plan = json.loads(time_ray("plan", experiment, *words, "-f", "json").out)
    assert plan["stream"] == {"tasks": 2, "classes": 4, "datasets_never_learned": 1}
    assert "1 datasets scored, never learned" in time_ray("plan", experiment, *words).out


def test_every_fault_of_a_stream_file_has_its_place(time_ray: Command, experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(["chess+++kign", "CIFAR100+++apple", "chess+++pawn", "chess+++pawn"]))
    values = yaml.safe_load(experiment.read_text())
    experiment.write_text(yaml.safe_dump({**values, "stream": {"file": "s.json", "tasks": 9}}, sort_keys=False))
    done = time_ray("plan", experiment)
    rest = "add it, or leave it out here"
    line = next(i for i, text in enumerate(experiment.read_text().splitlines(), 1) if "file: s.json" in text)
    assert [text.removeprefix(f"error: {experiment}:") for text in done.err.splitlines()] == [
        f"{line}: stream.file: 's.json': dataset 'chess' has no class 'kign'; did you mean 'king'?",
        f"{line}: stream.file: 's.json': dataset 'cifar100' (1 entries) is not in data.adaptation; {rest}",
        f"{line}: stream.file: 's.json': entry 4 'chess+++pawn' repeats entry 3; a class arrives once",
        f"{line + 1}: stream.tasks: 9 tasks, but the stream's file has only 4 classes; ask for fewer",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [(None, "no such file"), ("[", "no readable JSON"), ("[]", "no list with entries"), ("[3]", "entry 1 is 3")],
)
def test_a_stream_file_that_is_none(
    time_ray: Command, experiment: Path, tmp_path: Path, text: str | None, fault: str
) -> None:
    if text is not None:
        (tmp_path / "s.json").write_text(text)
    done = time_ray("plan", experiment, "stream.file=s.json")
    assert done.status == 2
    assert f"stream.file: 's.json': {fault}" in done.err
