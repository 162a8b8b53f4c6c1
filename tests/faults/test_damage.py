"""Bytes that change on the disk: always noticed, never used, and made again; the tables stay what they were."""

import logging
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kept import end_state, table
from PIL import Image
from small import open_small
from untracked import Untracked

from time_ray import api
from time_ray.api import Opened
from time_ray.core.errors import UserError
from time_ray.results import unfinished
from time_ray.store.store import Store

KINDS = {
    "entries of weights": "weights/*/*/*.json",
    "entries of scores": "scores/*/*/*.json",
    "rates": "rates/*/*/*.json",
    "notes of what is tracked": "tracked/*/*/*.json",
    "weights": "payloads/*/*/*.safetensors",
    "step checkpoints": "progress/*/*/*.safetensors",
    "leases": "leases/*/*.json",
    "cards": "data/*/card.json",
    "shards": "data/*/*.parquet",
}


class Whole(NamedTuple):
    """A storage after an undisturbed sweep of imported pictures, and what it holds."""

    folder: Path
    state: dict[str, object]
    table: list[object]

    def copy(self, folder: Path) -> Path:
        shutil.copytree(self.folder / "runs", folder / "runs", copy_function=os.link)  # no file is written twice
        return folder / "runs"

    def open(self, folder: Path) -> Opened:
        """The experiment on a copy; what must be imported again is."""
        return open_small(folder, self.folder / "pictures")


def paint(folder: Path, classes: tuple[str, str], shade: int) -> None:
    for split, count in (("train", 4), ("test", 3)):
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                colour = (shade + 40 * number, 10 * i, 99)
                Image.new("RGB", (32, 32), colour).save(folder / split / name / f"{i}.png")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    paint(folder / "pictures" / "learnt", ("dark", "light"), 20)
    paint(folder / "pictures" / "kept", ("dull", "bright"), 90)
    opened = open_small(folder, folder / "pictures")
    with pytest.MonkeyPatch.context() as context:
        context.setattr("time_ray.cluster.sweep.MlflowSync", Untracked)
        assert api.sweep(opened).exit_code == 0
    store = Store(opened.files)
    store.put_checkpoint("ab" * 16, 3, dict(store.get(min(store.keys("weights"))) or {}))
    opened.files.write(b"", "leases", "small", "0.json")
    return Whole(folder, end_state(opened.files), table(opened))


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes after one of the things that happen to disks."""
    place = draw.randrange(len(data)) if data else 0
    length = draw.randint(1, 4096)
    return draw.choice(
        [
            data[:place],
            b"",
            data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :] if data else b"x",
            data[:place] + bytes(len(data[place : place + length])) + data[place + length :],
            data + bytes(length),
            data[:place] + draw.randbytes(len(data[place : place + length])) + data[place + length :],
        ]
    )


def strike(root: Path, kind: str, draw: random.Random) -> tuple[Path, bytes]:
    """A file of that kind has other bytes now."""
    path = draw.choice(sorted(root.glob(KINDS[kind])))
    before = path.read_bytes()
    while (after := damaged(before, draw)) == before:
        pass
    path.unlink()
    path.write_bytes(after)
    return path, after


def swept(whole: Whole, folder: Path) -> Opened:
    """The storage after the same command, typed again until nothing is left to do: at most thrice."""
    for _ in range(3):
        try:
            opened = whole.open(folder)
            if api.sweep(opened).exit_code == 0:
                table(opened)  # damaged outcomes are noticed, and set aside, by whoever looks at what follows from them
                if not unfinished(opened.study.everything, opened.store):
                    return opened
        except UserError as error:
            logging.warning("%s", error)
    raise AssertionError("it does not heal")


def anywhere(root: Path, data: bytes) -> Iterator[Path]:
    """Where those bytes would still be read."""
    for path in root.rglob("*"):
        is_aside = path.name.startswith("damaged-") or path.parent.name == "damaged"
        if path.is_file() and not is_aside and path.read_bytes() == data:
            yield path


def survives(whole: Whole, folder: Path, kind: str, seed: int, *, computed: bool) -> None:
    """Damage, the same command, a look at everything, the same command."""
    root, draw = whole.copy(folder), random.Random(f"{kind} {seed}")
    if not computed:
        for name in ("weights", "scores", "payloads", "tracked", "rates"):
            shutil.rmtree(root / name)
    _, bad = strike(root, kind, draw)
    assert table(swept(whole, folder)) == whole.table
    faults = [item for item in api.store_verify(root) if item.fault]
    assert all(item.path for item in faults)
    opened = swept(whole, folder)
    assert end_state(opened.files) == whole.state
    assert table(opened) == whole.table
    assert list(anywhere(root, bad)) == [] or not bad


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_any_kind_changes_nothing(whole: Whole, kind: str, tmp_path: Path) -> None:
    survives(whole, tmp_path, kind, 0, computed=kind not in ("cards", "shards"))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_hundredfold_damage_changes_nothing(whole: Whole, kind: str, tmp_path: Path) -> None:
    for seed in range(1, 101):
        folder = tmp_path / str(seed)
        folder.mkdir()
        survives(whole, folder, kind, seed, computed=kind not in ("cards", "shards") or bool(seed % 2))
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_reported_once(whole: Whole, kind: str, tmp_path: Path) -> None:
    root = whole.copy(tmp_path)
    strike(root, kind, random.Random(kind))
    faults = [[item for item in api.store_verify(root) if item.fault] for _ in range(2)]
    assert faults[1] == []


@pytest.mark.parametrize("kind", ["entries of weights", "entries of scores", "weights", "step checkpoints", "shards"])
def test_every_bit_of_damage_is_noticed(whole: Whole, kind: str, tmp_path: Path) -> None:
    root, draw = whole.copy(tmp_path), random.Random(kind)
    for _ in range(2):
        path, _ = strike(root, kind, draw)
        faults = [item.path for item in api.store_verify(root) if item.fault]
        assert str(path.relative_to(root)) in faults
        shutil.rmtree(tmp_path / "runs")
        whole.copy(tmp_path)
