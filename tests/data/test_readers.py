"""Others read our datasets without us: they are plain Parquet."""

from pathlib import Path

import pyarrow.dataset
import pytest
from pictures import rows

from time_ray.data.dataset import write_dataset

ROWS = rows(25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    card = write_dataset(
        tmp_path / "pets",
        name="pets",
        kind="classification",
        classes=("cat", "dog", "owl"),
        templates=("a {}.",),
        splits={"train": ROWS, "test": ROWS[:4]},
        rows_per_shard=10,
    )
    assert len(card.splits["train"].shards) == 3
    return tmp_path / "pets"


def test_pyarrow_reads_a_dataset(folder: Path) -> None:
    shards = [str(path) for path in sorted(folder.glob("train-*.parquet"))]
    table = pyarrow.dataset.dataset(shards).to_table()
    assert table.to_pylist() == [row._asdict() | {"captions": list(row.captions)} for row in ROWS]


def test_pandas_reads_a_dataset(folder: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.concat(map(pandas.read_parquet, sorted(folder.glob("train-*.parquet"))))
    assert frame["image"].tolist() == [row.image for row in ROWS]
    assert [tuple(captions) for captions in frame["captions"]] == [row.captions for row in ROWS]
    assert frame["label"].tolist() == [row.label for row in ROWS]


@pytest.mark.filterwarnings("default")  # theirs
def test_hugging_face_datasets_reads_a_dataset(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets (Hugging Face) is not installed")
    loaded = datasets.load_dataset("parquet", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(found) for split, found in loaded.items()} == {"train": 25, "test": 4}
    assert [row["image"] for row in loaded["train"]] == [row.image for row in ROWS]
    assert loaded["train"][7]["captions"] == list(ROWS[7].captions)
    streamed = datasets.load_dataset("parquet", data_dir=str(folder), split="test", streaming=True)
    assert [row["key"] for row in streamed] == [row.key for row in ROWS[:4]]
