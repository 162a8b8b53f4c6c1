import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import picture

from time_ray.core.errors import UserError
from time_ray.data.dataset import Dataset
from time_ray.data.importers.parquet import import_parquet


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
