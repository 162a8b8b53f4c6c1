import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import picture

from time_ray.core.errors import UserError
from time_ray.data.dataset import Dataset
from time_ray.data.importers.parquet import import_parquet, parquet_files
from time_ray.data.importers.registry import IMPORTERS, recognised
from time_ray.data.importers.sample_faults import noted, read_report


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pets").mkdir()
    return tmp_path / "pets"


def save(path: Path, metadata: dict[str, str] | None = None, **columns: list[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


def test_a_hub_dataset_is_read_with_its_class_names(root: Path, tmp_path: Path):
    names = {"info": {"features": {"label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}}
    images = [{"bytes": picture(i), "path": None} for i in range(3)]
    for file, count in (("train-00000-of-00001.parquet", 3), ("test-00000-of-00001.parquet", 2)):
        save(root / "data" / file, {"huggingface": json.dumps(names)}, image=images[:count], label=[1, 0, 1][:count])
    card = import_parquet(root, tmp_path / "out")
    train = Dataset.open(tmp_path / "out").split("train")
    assert (card.name, card.classes, card.splits["test"].rows) == ("pets", ("ant", "bee"), 2)
    assert train.images([2]) == [picture(2)]
    assert train.labels.tolist() == [1, 0, 1]
    assert train.captions([0]) == [("a photo of a bee.",)]


def test_captions_and_labels_that_are_names(root: Path, tmp_path: Path):
    save(
        root / "interval.parquet",
        image=[picture(i) for i in range(10)],
        caption=["one", None, *"abcdefgh"],
        label=["bee", "ant"] * 5,
    )
    card = import_parquet(root, tmp_path / "out")
    train = Dataset.open(tmp_path / "out").split("train")
    assert card.classes == ("ant", "bee")
    assert {name: info.rows for name, info in card.splits.items()} == {"train": 8, "test": 2}
    assert train.captions([0, 1]) == [("one",), ("a photo of a ant.",)]


def test_captions_alone_make_a_pool(root: Path, tmp_path: Path):
    save(root / "x.parquet", image=[picture(i) for i in range(10)], captions=[["a", "b"]] * 10)
    card = import_parquet(root, tmp_path / "out")
    assert (card.kind, card.classes) == ("captions", ())
    assert {name: info.rows for name, info in card.splits.items()} == {"train": 10}
    assert Dataset.open(tmp_path / "out").split("train").captions([3]) == [("a", "b")]


def test_every_bad_row_is_named(root: Path, tmp_path: Path):
    (root / "classes.json").write_text('["ant", "bee", "cow"]')
    save(root / "x.parquet", image=[picture(0), picture(1)[:-100], None, picture(3)], label=[2, 0, 3, None])
    with pytest.raises(UserError) as caught:
        import_parquet(root, tmp_path / "out")
    where = root / "x.parquet"
    assert [fault.partition(" (")[0].partition(";")[0] for fault in caught.value.faults] == [
        f"{where}: row 1: not a readable image",
        f"{where}: row 2: not a readable image",
        f"{where}: row 2: label 3 is outside the 3 classes",
        f"{where}: row 3: no label, though there are classes",
    ]
    assert not (tmp_path / "out/card.json").exists()


def test_numbers_need_class_names(root: Path, tmp_path: Path):
    save(root / "x.parquet", image=[picture(0)], label=[2])
    with pytest.raises(UserError, match=r"row 0: label 2, but there are no class names; add classes.json"):
        import_parquet(root, tmp_path / "out")


def test_unfit_files_are_all_named(root: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no Parquet files here"):
        import_parquet(root, tmp_path / "out")
    (root / "a.parquet").write_bytes(b"nothing")
    save(root / "b.parquet", picture=[b""], label=[0])
    save(root / "c.parquet", image=[b""])
    with pytest.raises(UserError) as caught:
        import_parquet(root, tmp_path / "out")
    assert [fault.split(": ", 1)[1].partition(";")[0] for fault in caught.value.faults] == [
        "not a readable Parquet file",
        "no column image, only picture, label",
        "no column label, captions or caption",
    ]


@pytest.mark.parametrize("content", ["[", "{}", "[]", "[1]", '["ant", "ant"]'])
def test_a_class_list_must_be_one(root: Path, tmp_path: Path, content: str):
    save(root / "x.parquet", image=[picture(0)], label=[0])
    (root / "classes.json").write_text(content)
    with pytest.raises(UserError, match=r"classes\.json|class ant is listed 2 times"):
        import_parquet(root, tmp_path / "out")


def test_only_test_files_are_not_enough(root: Path, tmp_path: Path):
    save(root / "test.parquet", image=[picture(0)], caption=["x"])
    with pytest.raises(UserError, match="only test files"):
        import_parquet(root, tmp_path / "out")


def hub(*names: str) -> dict[str, str]:
    return {"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})}


@pytest.mark.parametrize(
    ("first", "second"), [("pets/train", "fruit/train"), ("train", "test"), ("train-0", "train-1")]
)
@pytest.mark.parametrize("other", [hub("apple", "pear"), hub("bee", "ant"), hub("ant"), None])
@pytest.mark.parametrize("is_listed", [False, True])
def test_files_of_other_class_names_are_refused(
    root: Path, tmp_path: Path, first: str, second: str, other: dict[str, str] | None, is_listed: bool
):
    for name, metadata in ((first, hub("ant", "bee")), (second, other)):
        save(root / f"{name}.parquet", metadata, image=[picture(0), picture(1)], label=[0, 1])
    if is_listed:
        (root / "classes.json").write_text('["ant", "bee"]')
    with pytest.raises(UserError, match=r"class names of its files differ .* one at a time") as caught:
        import_parquet(root, tmp_path / "out")
    assert len(caught.value.faults) == 1
    assert recognised(str(root)) is IMPORTERS["parquet"]


@pytest.mark.parametrize(
    ("files", "rows"),
    [
        (("TRAIN", "Validation"), (2, 2)),
        (("train", "validation", "test"), (2, 2)),
        (("test_v2/train", "test_v2/dev"), (2, 2)),
        (("training/0", "Eval/0"), (2, 2)),
    ],
)
def test_splits_are_told_as_in_folders(root: Path, tmp_path: Path, files: tuple[str, ...], rows: tuple[int, int]):
    for name in files:
        save(root / f"{name}.parquet", hub("ant", "bee"), image=[picture(0), picture(1)], label=[0, 1])
    (root / ".cache").mkdir()
    (root / ".cache/x.parquet").write_bytes(b"")
    (root / "README.md").write_text("")
    card = import_parquet(root, tmp_path / "out")
    assert (card.splits["train"].rows, card.splits["test"].rows) == rows
    said = set(noted(read_report(tmp_path / "out")))
    assert {"hidden or system file or folder, not read", "file ending in .md, not read"} <= said
    assert any("validation split" in kind for kind in said) == any("alid" in name or "dev" in name for name in files)


def test_files_behind_links_are_read_and_seen(root: Path, tmp_path: Path):
    save(tmp_path / "real/x.parquet", hub("ant"), image=[picture(i) for i in range(5)], label=[0] * 5)
    (root / "data").symlink_to(tmp_path / "real")
    assert import_parquet(root, tmp_path / "out").splits["train"].rows == 4
    assert parquet_files(root) == [root / "data/x.parquet"]


@pytest.mark.parametrize("labels", [[True, False], [0.0, 1.0], ["0", "1"], [[0], [1]]])
def test_labels_of_another_kind_are_named(root: Path, tmp_path: Path, labels: list[Any]):
    (root / "classes.json").write_text('["ant", "bee"]')
    save(root / "train.parquet", image=[picture(0), picture(1)], label=labels)
    with pytest.raises(UserError, match=r"row 0: label .* is outside the 2 classes; correct it"):
        import_parquet(root, tmp_path / "out")


@pytest.mark.parametrize("given", ["a.png", 5, [1, 2]])
def test_an_image_that_is_no_bytes_is_named_for_what_it_is(root: Path, tmp_path: Path, given: Any):
    save(root / "train.parquet", image=[given], caption=["x"])
    with pytest.raises(UserError, match=rf"a {type(given).__name__}, where its bytes should be"):
        import_parquet(root, tmp_path / "out")


def test_shards_that_names_speak_of_and_nobody_has_are_named(root: Path, tmp_path: Path):
    for name in ("train-00001-of-00003-ab12.parquet", "test-00000-of-00001.parquet"):
        save(root / name, image=[picture(0)], caption=["x"])
    with pytest.raises(UserError) as caught:
        import_parquet(root, tmp_path / "out")
    missing = [str(root / f"train-{number:05d}-of-00003.parquet") for number in (0, 2)]
    assert [fault.split(": ")[0] for fault in caught.value.faults] == missing
    assert import_parquet(root, tmp_path / "loose", strict=False).splits["train"].rows == 1


def test_a_file_named_after_no_split_is_said(root: Path, tmp_path: Path):
    for name in ("train.parquet", "extra.PARQUET", "test.parquet"):
        save(root / name, image=[picture(0)], caption=["x"])
    card = import_parquet(root, tmp_path / "out")
    assert {name: info.rows for name, info in card.splits.items()} == {"train": 2, "test": 1}
    assert noted(read_report(tmp_path / "out")) == {"file that is named after no split, used for training": 1}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["caf\u00e9", "cafe\u0301"], r"'cafe\\u0301' and 'caf\\xe9' are both class 'caf\u00e9'"),
        (["ant", "ant "], "'ant' and 'ant ' are both class 'ant'"),
        (["ant", " "], "' ' is no name of a class"),
    ],
)
def test_class_names_that_nobody_tells_apart_are_refused(root: Path, tmp_path: Path, names: list[str], said: str):
    save(root / "train.parquet", image=[picture(0), picture(1)], label=names)
    with pytest.raises(UserError, match=said):
        import_parquet(root, tmp_path / "out")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_class_list_may_be_in_any_encoding_of_json(root: Path, tmp_path: Path, encoding: str):
    save(root / "train.parquet", image=[picture(0)], label=[0])
    (root / "classes.json").write_bytes('["café"]'.encode(encoding))
    assert import_parquet(root, tmp_path / "out").classes == ("café",)


@pytest.mark.parametrize("kind", ["pipe", "circle"])
def test_a_table_that_is_no_plain_file_is_named_and_not_waited_for(root: Path, tmp_path: Path, kind: str):
    path = root / "x.parquet"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(path.name)
    with pytest.raises(UserError, match=r"x\.parquet: no plain file, or a link to none"):
        import_parquet(root, tmp_path / "out")


def test_tables_without_a_row_are_no_dataset(root: Path, tmp_path: Path):
    table = pa.table({"image": pa.array([], pa.binary()), "caption": pa.array([], pa.string())})
    pq.write_table(table, root / "train.parquet")
    with pytest.raises(UserError, match="pets: holds not one sample"):
        import_parquet(root, tmp_path / "out")
