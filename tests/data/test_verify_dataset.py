from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import picture, rows

from time_ray.core.errors import UserError
from time_ray.data.dataset import Dataset, write_dataset
from time_ray.data.importers import worker_processes
from time_ray.data.shards import Row
from time_ray.data.verify_dataset import verify

Make = Callable[..., Dataset]


def test_a_whole_dataset_has_no_faults(make_dataset: Make, tmp_path: Path) -> None:
    wanted = rows(12)
    make_dataset("pets", wanted, rows(5))
    found = verify(tmp_path / "pets")
    assert found == (17, sum(len(row.image) for row in (*wanted, *rows(5))), ())


def test_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "ALONE_SECONDS", 0.0)
    bad = [*rows(20), Row(picture(1)[:-1], ("x",), 0, "cut"), *rows(5)]
    write_dataset(
        tmp_path / "pets",
        name="pets",
        kind="classification",
        classes=("a", "b", "c"),
        templates=("{}",),
        splits={"train": bad},
        rows_per_shard=9,
    )
    alone = verify(tmp_path / "pets")
    assert verify(tmp_path / "pets", jobs=2) == alone
    assert alone.faults == (
        f"{tmp_path}/pets train: cut: not a readable image (its end is missing); import the dataset again",
    )


def test_labels_outside_the_classes_are_named(make_dataset: Make, tmp_path: Path) -> None:
    make_dataset("pets", [Row(picture(0), ("x",), 3, "three"), *rows(3)])
    (fault,) = verify(tmp_path / "pets").faults
    assert "three: label 3 is outside the 3 classes" in fault


def test_a_changed_byte_anywhere_is_found(make_dataset: Make, tmp_path: Path) -> None:
    make_dataset("pets", rows(6))
    (shard,) = (tmp_path / "pets").glob("train-*.parquet")
    whole = shard.read_bytes()
    for place in range(10, len(whole), len(whole) // 7):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert verify(tmp_path / "pets").faults
    shard.write_bytes(whole)
    assert not verify(tmp_path / "pets").faults


def test_rows_that_are_not_those_of_the_card_are_found(make_dataset: Make, tmp_path: Path) -> None:
    card = make_dataset("pets", rows(6)).card
    other = make_dataset("other", rows(6, first=6)).card
    for split in ("train", "test"):
        for mine, theirs in zip(card.splits[split].shards, other.splits[split].shards, strict=True):
            (tmp_path / "pets" / mine).write_bytes((tmp_path / "other" / theirs).read_bytes())
    path = tmp_path / "pets/card.json"
    unsealed = card.model_copy(
        update={"seal": "", "splits": {n: s.model_copy(update={"footers": ()}) for n, s in card.splits.items()}}
    )
    path.write_text(unsealed.model_dump_json())
    (fault,) = verify(tmp_path / "pets").faults
    assert "its content has not the digest that its card names" in fault


def test_without_a_dataset_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset here"):
        verify(tmp_path)
