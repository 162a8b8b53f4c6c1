import json
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
