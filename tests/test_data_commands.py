"""`time-ray data`: import, list, inspect, verify, sheet; stdout is data, stderr is talk."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fomo_root import Root, build_root
from PIL import Image

from time_ray.data.dataset import Card
from time_ray.data.importers.imagefolder import import_imagefolder
from time_ray.data.importers.registry import IMPORTERS, Importer, Option
from time_ray.report import import_progress

Run = Callable[..., Any]


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        path = tmp_path / f"pets/{('ant', 'bee')[number % 2]}/{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "pets"


@pytest.fixture
def fomo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    monkeypatch.chdir(tmp_path)
    return build_root(tmp_path / "fomo", None, names=("fscoco", "monkeys10"))


@pytest.fixture(autouse=True)
def _quick_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_progress, "LINE_SECONDS", 1000.0)


def test_where_stderr_is_piped_progress_is_lines(time_ray: Run, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_progress, "LINE_SECONDS", 0.0)
    done = time_ray("data", "import", "imagefolder", "pets", "-o", "out")
    assert [line.partition(" images,")[0] for line in done.err.splitlines()[:2]] == ["pets: 80%, 16", "pets: 100%, 20"]


def test_an_import_says_what_it_left_out(time_ray: Run, pets: Path) -> None:
    (pets / "ant/00.png").write_bytes(png(0)[:-1])
    (pets / "bee/01.png").write_bytes(b"what")
    done = time_ray("data", "import", "imagefolder", "pets", "-o", "out")
    assert (done.status, done.out) == (0, "out\n")
    assert done.err.splitlines() == [
        "pets: 14 train, 4 test; 2 classes; classification",
        "  1 × truncated image: left out",
        "  1 × unreadable image: left out",
        "  out/report.jsonl names each",
    ]


def test_strict_names_everything_and_makes_nothing_whole(time_ray: Run, pets: Path) -> None:
    for name in ("ant/00.png", "bee/01.png"):
        (pets / name).write_bytes(b"what")
    done = time_ray("data", "import", "imagefolder", "pets", "-o", "out", "--strict", "--jobs", "1")
    assert (done.status, done.out) == (2, "")
    assert [line.split(": ")[1] for line in done.err.splitlines()] == ["pets/ant/00.png", "pets/bee/01.png"]
    listed = json.loads(time_ray("data", "list", ".", "-f", "json").out)
    assert [(row["dataset"], row["state"]) for row in listed] == [("out", "unfinished: the same import goes on")]


def test_datasets_of_the_benchmark_are_imported_by_name(time_ray: Run, fomo: Root) -> None:
    done = time_ray(
        "data", "import", "fomo", "fomo", "fomo/info", "--dataset", "FSCOCO", "--dataset", "monkeys10", "-o", "out"
    )
    assert (done.status, done.out) == (0, "out/fscoco\nout/monkeys10\n")
    rows = json.loads(time_ray("data", "list", "out", "-f", "json").out)
    assert [(row["dataset"], row["kind"], row["train"], row["test"], row["state"]) for row in rows] == [
        ("out/fscoco", "retrieval", 12, 6, "whole"),
        ("out/monkeys10", "classification", None, 6, "whole"),
    ]


def test_what_is_there_of_the_benchmark_is_imported_and_the_rest_is_named(time_ray: Run, fomo: Root) -> None:
    done = time_ray("data", "import", "fomo", "fomo", "fomo/info", "--dataset", "all", "-o", "out")
    assert (done.status, done.out) == (2, "out/fscoco\nout/monkeys10\n")
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: fomo/info: no AI2DIAGRAMS_classnames.json; ")
    summed_up = [line for line in errors if "more of this kind" in line]
    assert sum(int(line.split()[3]) for line in summed_up) > 3 * 50  # three files a dataset


def test_shards_and_parquet_files_are_imported(time_ray: Run, pets: Path) -> None:
    done = time_ray("data", "import", "webdataset", "pool/{0..1}.tar", "-o", "out")
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines() == [f"error: pool/{number}.tar: no such file; correct the path" for number in range(2)]
    assert time_ray("data", "import", "imagefolder", "pets", "-o", "first").status == 0
    (Path("first/classes.json")).write_text('["ant", "bee"]')
    done = time_ray("data", "import", "parquet", "first", "-o", "second")
    assert (done.status, done.out) == (0, "second\n")
    assert "first: 16 train, 4 test; 2 classes; classification" in done.err


def test_what_is_registered_has_a_command_of_its_own(
    time_ray: Run, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(source: str, folder: Path, *, kind: str, **settings: Any) -> Card:
        return import_imagefolder(Path(source, kind), folder, **settings)

    own = Importer(name="zoo", about="Import a zoo.", source="A zoo.", load=load, options=(Option("kind", "Whose."),))
    monkeypatch.setitem(IMPORTERS, "zoo", own)
    assert "Import a zoo." in time_ray("data", "import", "-h").out
    assert "--kind" in time_ray("data", "import", "zoo", "-h").out
    assert time_ray("data", "import", "zoo", ".", "-o", "out").status == 2
    done = time_ray("data", "import", "zoo", ".", "-o", "out", "--kind", "pets")
    assert (done.status, done.out) == (0, "out\n")
    assert "pets: 16 train, 4 test; 2 classes; classification" in done.err


def test_a_dataset_is_inspected_without_its_images(time_ray: Run, pets: Path) -> None:
    (pets / "ant/00.png").write_bytes(b"what")
    time_ray("data", "import", "imagefolder", "pets", "-o", "out")
    found = json.loads(time_ray("data", "inspect", "out", "-f", "json").out)
    assert (found["name"], found["kind"], found["classes"], found["first classes"]) == (
        "pets",
        "classification",
        2,
        "ant, bee",
    )
    assert found["splits"]["train"] | {"MB": 0} == {"images": 15, "classes": 2, "captions": 15, "shards": 1, "MB": 0}
    assert found["faults"] == {"unreadable image (left out)": 1}
    assert "a photo of a {}." in time_ray("data", "inspect", "out").out
    missing = time_ray("data", "inspect", "nowhere")
    assert (missing.status, missing.out) == (2, "")
    assert "no dataset here" in missing.err


def test_verify_reads_everything_again(time_ray: Run, pets: Path) -> None:
    time_ray("data", "import", "imagefolder", "pets", "-o", "out")
    done = time_ray("data", "verify", "out", "-f", "json")
    found = json.loads(done.out)
    assert done.status == 0
    assert (found["images"], found["faults"]) == (20, 0)
    assert found["bytes"] == sum(path.stat().st_size for path in pets.rglob("*.png"))
    assert found["images/s"] > 0
    shard = next(Path("out").glob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes().replace(png(0)[40:60], png(1)[40:60]))
    done = time_ray("data", "verify", "out", "-f", "json")
    assert (done.status, json.loads(done.out)["faults"]) == (1, 1)
    assert "damaged" in done.err


def test_a_dataset_of_the_mini_world_is_looked_at_by_name(time_ray: Run, pets: Path) -> None:
    assert json.loads(time_ray("data", "verify", "mini:chess", "-f", "json").out)["faults"] == 0
    done = time_ray("data", "sheet", "mini:chess", "--rows", "2", "-o", "chess.png", "--split", "test")
    assert (done.status, done.out) == (0, "chess.png\n")
    assert "mini:chess" in time_ray("data", "list").out
    unknown = time_ray("data", "inspect", "mini:ches")
    assert unknown.status == 2
    assert "no dataset of the mini world" in unknown.err
    assert not list(Path().glob("*chess*/"))
