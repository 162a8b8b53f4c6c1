"""What strangers' files may ask for: a few bytes that stand for gigabytes are refused in one line, at once."""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import picture
from PIL import Image

from time_ray import api, config
from time_ray.core.errors import CellError, UserError
from time_ray.core.preprocessing import Resizing
from time_ray.data.dataset import CARD, Dataset, SplitInfo, seal_card, write_dataset
from time_ray.data.images import fit
from time_ray.data.importers.parquet import import_parquet
from time_ray.data.importers.sample_faults import read_report
from time_ray.data.shards import Row
from time_ray.data.stream_file import read_stream
from time_ray.limits import IMAGE_PIXELS, IMAGE_RATIO, JSON_BYTES, YAML_BYTES, TooMuchError

BLOB = 8 << 20
COPIES = 64
GROWTH_MB = 300  # of BLOB, some copies; all of COPIES are 537 MB


@pytest.fixture
def bounded() -> Iterator[None]:
    """What runs takes no more memory and time than the blob itself."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - started < 10
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < GROWTH_MB


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "more than 10000 values, with those that aliases stand for"),
        ("name: &a [*a]", "nested more than 32 deep"),
        ("name: &a {b: *a}", "nested more than 32 deep"),
        ("name: " + "[" * 5000 + "]" * 5000, "nested more than 32 deep"),
        ("\n".join("  " * depth + "a:" for depth in range(500)), "nested more than 32 deep"),
        ("seed: " + "9" * 5000, "a number of 5000 letters"),
        ("seed: 0x" + "f" * 9000, "a number of 9002 letters"),
        ("seed: !!int 1" + ":59" * 50_000, "a number of 150001 letters"),
        ("# " + "x" * YAML_BYTES, f"it has more than {YAML_BYTES} bytes"),
    ],
)
def test_yaml_is_refused_before_it_grows(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=why) as caught:
        config.load(path)
    (line,) = caught.value.faults
    assert line.startswith(str(path))


def test_an_alias_is_what_it_stands_for(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "name: tiny\ndata: mini\ninit: &both [zs, ft]\ndeploy: *both\ntechnique: average\nmodel: mini-tiny\n"
    )
    assert config.read(path).values["deploy"] == ["zs", "ft"]


def test_an_override_has_the_same_limits(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text("name: tiny\n")
    _, document = config.draft(path, ["seed=&a [*a]"])
    assert any("nested more than 32 deep" in fault for fault in document.faults)


@pytest.mark.parametrize(
    "template", ["{:>3000000000}", "{1}", "{x}", "{!r}", "{.__class__}", "{[0]}", "{:{}}", "{{}}", "{", "{} {}", "a"]
)
def test_a_template_of_a_card_names_the_class_and_no_more(tmp_path: Path, template: str) -> None:
    write_dataset(tmp_path, name="d", kind="classification", classes=["a"], templates=["a {}."], splits={})
    card = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps(card | {"templates": [template], "seal": ""}))
    with pytest.raises(UserError, match=r"templates\.0.*must name the class by \{\}"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["../x.parquet", "/etc/passwd", "a/b.parquet", "..", ".x", "a\0", "", "a.b.c", "a" * 300]
)
def test_names_on_a_card_stay_in_its_folder(tmp_path: Path, name: str) -> None:
    write_dataset(tmp_path, name="d", kind="captions", classes=[], templates=[], splits={})
    card = json.loads((tmp_path / CARD).read_text()) | {"seal": ""}
    for change in (
        {"splits": {"train": {"shards": [name], "rows": 1}}},
        {"splits": {name: {"shards": [], "rows": 0}}},
        {"digest": f"{name}/{'0' * 64}"},
    ):
        (tmp_path / CARD).write_text(json.dumps(card | change))
        with pytest.raises(UserError, match=r"card\.json: (splits|digest)"):
            Dataset.open(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[1e999999", "1" * 5000])
def test_json_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    (tmp_path / "stream.json").write_text(text)
    for read in (lambda: Dataset.open(tmp_path), lambda: read_stream(tmp_path / "stream.json")):
        with pytest.raises(UserError) as caught:
            read()
        assert all("\n" not in fault and len(fault) < 400 for fault in caught.value.faults)


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    for name in ("stream.json", CARD):
        with (tmp_path / name).open("wb") as file:
            file.truncate(JSON_BYTES * 100)
    for read in (lambda: Dataset.open(tmp_path), lambda: read_stream(tmp_path / "stream.json")):
        with pytest.raises(UserError, match=f"more than {JSON_BYTES} bytes"):
            read()


def test_an_image_is_refused_that_would_grow_when_it_is_resized() -> None:
    assert fit(Image.new("RGB", (4, 800)), Resizing(224)).size == (224, 224)
    with pytest.raises(TooMuchError, match=r"would be resized to 1024 × 204800"):
        fit(Image.new("RGB", (4, 800)), Resizing(1024))
    assert IMAGE_PIXELS < 1024 * 204800


def repeated(values: list[object], kind: pa.DataType) -> pa.DictionaryArray:
    """The first value again and again, which is written once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * COPIES, pa.int32()), pa.array(values, kind))


def write_small(path: Path, columns: dict[str, pa.Array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    pq.write_table(pa.table(columns), path, **settings)
    assert path.stat().st_size < 10_000


@pytest.mark.usefixtures("bounded")
def test_images_that_are_one_again_and_again_are_read_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time_ray.data.parquet_size.PARQUET_BYTES", 24 << 20)
    blobs, labels = repeated([b"\0" * BLOB], pa.binary()), pa.array([0] * COPIES)
    columns = {"image": pa.StructArray.from_arrays([blobs], ["bytes"]), "label": labels}
    write_small(tmp_path / "in" / "train.parquet", columns)
    (tmp_path / "in" / "classes.json").write_text('["a"]')
    with pytest.raises(UserError, match="not one sample"):
        import_parquet(tmp_path / "in", tmp_path / "out", strict=False)
    assert {fault.kind for fault in read_report(tmp_path / "out")} == {"unreadable image"}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("column", ["captions", "caption", "label"])
def test_texts_that_are_one_again_and_again_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    monkeypatch.setattr("time_ray.data.parquet_size.PARQUET_BYTES", 24 << 20)
    texts: pa.Array = repeated(["x" * BLOB], pa.string())
    images, given = pa.array([picture(1)] * COPIES), {"caption": pa.array(["a"] * COPIES), column: texts}
    if column == "captions":
        texts = pa.ListArray.from_arrays(pa.array([0, COPIES]), texts)
        images, given = pa.array([picture(1)]), {"captions": texts}
    write_small(tmp_path / "in" / "train.parquet", {"image": images, **given})
    with pytest.raises(UserError, match=r"train\.parquet.*once decoded, more than 25\.2 MB") as caught:
        import_parquet(tmp_path / "in", tmp_path / "out", strict=False)
    assert len(caught.value.faults) == 1


def forged(folder: Path, captions: pa.Array) -> Dataset:
    """A dataset of one row, well sealed, whose captions somebody has put there."""
    splits = {"train": [Row(picture(1), ("a",), -1, "k")]}
    card = write_dataset(folder, name="d", kind="captions", classes=[], templates=[], splits=splits)
    columns = {"image": [picture(1)], "captions": captions, "label": pa.array([-1], pa.int32()), "key": ["k"]}
    (shard,) = card.splits["train"].shards
    write_small(folder / shard, columns)
    sealed = card.model_copy(update={"splits": {"train": SplitInfo(shards=(shard,), rows=1)}})
    (folder / CARD).write_text(seal_card(str(folder), pa.fs.LocalFileSystem(), sealed).model_dump_json())
    return Dataset.open(folder)


@pytest.mark.usefixtures("bounded")
def test_shards_that_are_small_on_the_disk_alone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time_ray.data.parquet_size.PARQUET_BYTES", 24 << 20)
    captions = pa.ListArray.from_arrays(pa.array([0, COPIES], pa.int32()), repeated(["x" * BLOB], pa.string()))
    with pytest.raises(CellError, match="once decoded, more than"):
        forged(tmp_path, captions).split("train").captions([0])


def test_a_caption_that_is_no_text_is_damage(tmp_path: Path) -> None:
    offsets, letters = pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")
    text = pa.StringArray.from_buffers(1, offsets, letters)
    dataset = forged(tmp_path, pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), text))
    with pytest.raises(CellError, match=r"damaged .*UTF8"):
        dataset.split("train").captions([0])


def test_a_dataset_behind_a_link_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    write_dataset(
        folder,
        name="d",
        kind="captions",
        classes=[],
        templates=[],
        splits={"train": [Row(picture(1), ("a",), -1, "k")]},
    )
    (shard,) = folder.glob("*.parquet")
    shard.write_bytes(b"years of work")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "d").symlink_to(folder)
    before = sorted(path.name for path in folder.iterdir())
    assert [item for item in api.store_verify(tmp_path) if item.fault] == []
    copy = Dataset.open(str(tmp_path / "data" / "d"), pa.fs.LocalFileSystem(), is_copy=True)
    with pytest.raises(CellError, match="damaged"):
        copy.split("train").captions([0])
    assert sorted(path.name for path in folder.iterdir()) == before


def test_what_serves_a_model_has_the_same_limits() -> None:
    source = (Path(config.__file__).parent / "serving" / "predictor.py").read_text(encoding="utf-8")
    assert f"MOST_PIXELS = {IMAGE_PIXELS:_}\nMOST_RATIO = {IMAGE_RATIO} " in source
