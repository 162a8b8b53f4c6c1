import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from pictures import CLASSES, rows

from time_ray.core.errors import CellError, UserError
from time_ray.data import dataset, shard_reader, shards
from time_ray.data.dataset import Card, Dataset, write_dataset
from time_ray.data.shards import Row

Make = Callable[..., Dataset]


def write(folder: Path, train: list[Row], **options: object) -> Card:
    settings = {"name": "pets", "kind": "classification", "classes": CLASSES, "templates": ("a {}.",)} | options
    return write_dataset(folder, splits={"train": train, "test": train[:4]}, **settings)


def test_rows_come_back_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "GROUP_ROWS", 7)
    wanted = rows(50)
    card = write(tmp_path / "pets", wanted, rows_per_shard=20)
    found = Dataset.open(tmp_path / "pets")
    split = found.split("train")
    order = [49, 0, 20, 19, 20, 33, 6, 7]
    assert found.card == card
    assert [len(info.shards) for info in card.splits.values()] == [3, 1]
    assert len(split) == 50
    assert split.images(order) == [wanted[i].image for i in order]
    assert split.captions(order) == [wanted[i].captions for i in order]
    assert split.labels.tolist() == [row.label for row in wanted]
    assert split.rows_of(1).tolist() == [i for i in range(50) if i % 3 == 1]
    assert split.rows_of(7).tolist() == []
    assert list(split.rows()) == wanted


def test_captions_too_many_to_keep_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards, "GROUP_ROWS", 7)
    monkeypatch.setattr(dataset, "KEPT_CAPTION_BYTES", 0)
    wanted = rows(50)
    write(tmp_path / "pets", wanted, rows_per_shard=20)
    split = Dataset.open(tmp_path / "pets").split("train")
    order = [49, 0, 20, 19, 20, 33, 6, 7]
    assert split.captions(order) == [wanted[i].captions for i in order]
    assert "_captions" not in vars(split)


def test_a_big_image_ends_its_row_group(tmp_path: Path):
    big = [Row(bytes(200_000), ("x",), 0, str(i)) for i in range(5)]
    card = write(tmp_path / "big", big)
    assert pq.read_metadata(tmp_path / "big" / card.splits["train"].shards[0]).num_row_groups == 3


def test_any_parquet_reader_reads_the_shards(tmp_path: Path):
    wanted = rows(5)
    card = write(tmp_path / "pets", wanted)
    table = pq.read_table(tmp_path / "pets" / card.splits["train"].shards[0])
    assert table.to_pylist() == [row._asdict() | {"captions": list(row.captions)} for row in wanted]


def test_the_digest_names_the_content_not_the_files(tmp_path: Path):
    plain = rows(30)
    digest = write(tmp_path / "a", plain).digest
    assert write(tmp_path / "b", plain, rows_per_shard=7, name="other").digest == digest
    changed = [
        write(tmp_path / "c", plain, classes=(*CLASSES, "elk")),
        write(tmp_path / "d", plain, templates=("the {}.",)),
        write(tmp_path / "i", plain, kind="retrieval"),
        write(tmp_path / "e", plain[:-1]),
        write(tmp_path / "f", [plain[1], plain[0], *plain[2:]]),
        write(tmp_path / "g", [plain[0]._replace(label=2), *plain[1:]]),
        write(tmp_path / "h", [plain[0]._replace(captions=("cat 0 a", "cat 0 ", "b")), *plain[1:]]),
    ]
    assert len({digest, *(card.digest for card in changed)}) == 8


def test_a_dataset_can_lie_on_any_filesystem(tmp_path: Path):
    filesystem = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    write(Path("inner/pets"), rows(6), filesystem=filesystem)
    assert len(Dataset.open("inner/pets", filesystem).split("train")) == 6
    assert (tmp_path / "inner" / "pets" / "card.json").is_file()


def test_a_dataset_without_its_card_or_shards_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"pets: no dataset here \(card.json is missing\)"):
        Dataset.open(tmp_path / "pets")
    card = write(tmp_path / "pets", rows(20), rows_per_shard=10)
    gone = [tmp_path / "pets" / shard for shard in card.splits["train"].shards]
    for path in gone:
        path.unlink()
    with pytest.raises(UserError) as caught:
        Dataset.open(tmp_path / "pets")
    assert caught.value.faults == tuple(
        f"{path}: missing, though card.json lists it; import the dataset again" for path in gone
    )


def test_an_interrupted_writer_leaves_no_dataset(tmp_path: Path):
    def interrupted():
        yield from rows(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(
            tmp_path / "pets", name="pets", kind="captions", classes=(), templates=(), splits={"train": interrupted()}
        )
    with pytest.raises(UserError, match="no dataset here"):
        Dataset.open(tmp_path / "pets")


def test_every_fault_of_a_card_is_listed(tmp_path: Path):
    write(tmp_path / "pets", rows(3))
    path = tmp_path / "pets" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "film", "colour": 3}))
    with pytest.raises(UserError) as caught:
        Dataset.open(tmp_path / "pets")
    assert [fault.split(": ")[1] for fault in caught.value.faults] == ["kind", "colour"]


def test_a_card_without_a_seal_may_hold_no_odd_prompts(tmp_path: Path):
    write(tmp_path / "pets", rows(3))
    path = tmp_path / "pets" / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seal": "", "templates": ["a {}.", "{0} {1}", "{"]}))
    with pytest.raises(UserError) as caught:
        Dataset.open(tmp_path / "pets")
    places = [fault.removeprefix(f"{path}: ").split(": ")[0] for fault in caught.value.faults]
    assert places == ["templates.1", "templates.2"]
    assert all(fault.endswith("; import the dataset again") for fault in caught.value.faults)


def test_a_card_without_a_seal_that_miscounts_is_named(tmp_path: Path):
    write(tmp_path / "pets", rows(3))
    path = tmp_path / "pets" / "card.json"
    counted = {name: info | {"rows": 9} for name, info in json.loads(path.read_text())["splits"].items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seal": "", "splits": counted}))
    with pytest.raises(CellError, match="9 rows of train on its card, 3 in its shards; import it again"):
        assert len(Dataset.open(tmp_path / "pets").split("train").labels)


def test_a_parquet_file_of_others_is_no_shard(tmp_path: Path):
    card = write(tmp_path / "pets", rows(3))
    path = tmp_path / "pets" / "card.json"
    unsealed = {name: info | {"footers": []} for name, info in json.loads(path.read_text())["splits"].items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seal": "", "splits": unsealed}))
    shard = tmp_path / "pets" / card.splits["train"].shards[0]
    pq.write_table(pa.table({"image": [b""], "label": [0]}), shard)
    with pytest.raises(
        CellError, match=rf"{shard.name}: damaged \(its columns are image, label, not those of a dataset"
    ):
        assert len(Dataset.open(tmp_path / "pets").split("train").labels)


def test_a_broken_shard_is_named(tmp_path: Path):
    card = write(tmp_path / "pets", rows(3))
    path = tmp_path / "pets" / card.splits["train"].shards[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CellError, match=rf"{path.name}: damaged \(no Parquet footer\); import the dataset again"):
        Dataset.open(tmp_path / "pets").split("train").images([0])
    assert path.exists()


def content(folder: Path) -> list[object]:
    split = Dataset.open(folder).split("train")
    every = range(len(split))
    return [split.images(every), split.captions(every), split.labels.tolist()]


@pytest.mark.parametrize("kind", ["card.json", "train-*.parquet"])
def test_no_changed_byte_goes_unnoticed(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    """Each is refused, or changes nothing that is read."""
    monkeypatch.setattr(shards, "GROUP_ROWS", 3)
    write(tmp_path / "pets", [Row(bytes([i] * 40), (f"pet {i}",), i % 3, str(i)) for i in range(6)])
    whole = content(tmp_path / "pets")
    (path,) = (tmp_path / "pets").glob(kind)
    data = path.read_bytes()
    card = Dataset.open(tmp_path / "pets").card
    draw = np.random.default_rng(0)
    refused = 0
    for place in draw.permutation(len(data))[:400]:
        changed = bytearray(data)
        changed[place] ^= 1 << draw.integers(8)
        path.write_bytes(changed)
        try:
            assert Dataset.open(tmp_path / "pets").card == card
            assert content(tmp_path / "pets") == whole
        except (UserError, CellError):
            refused += 1
    assert refused > 350


@pytest.mark.parametrize("kind", ["card.json", "train-*.parquet"])
def test_no_missing_end_goes_unnoticed(tmp_path: Path, kind: str):
    write(tmp_path / "pets", rows(3))
    (path,) = (tmp_path / "pets").glob(kind)
    data = path.read_bytes()
    for size in (0, 3, 7, len(data) // 2, len(data) - 9, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises((UserError, CellError)):
            content(tmp_path / "pets")


def test_a_damaged_shard_of_a_copy_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    card = write(tmp_path / "pets", rows(3))
    path = tmp_path / "pets" / card.splits["train"].shards[0]
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))
    with pytest.raises(CellError, match="and set aside; the same command makes it again"):
        Dataset.open(tmp_path / "pets", is_copy=True).split("train").images([0])
    assert not path.exists()
    assert len(list((tmp_path / "pets").glob("damaged-*"))) == 1
    assert "set aside" in caplog.text


def test_a_shard_out_of_reach_for_a_moment_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "pets", rows(3))
    split = Dataset.open(tmp_path / "pets", is_copy=True).split("train")

    class Away:
        def __getattr__(self, _: str):
            raise OSError("timed out")

    with monkeypatch.context() as context:
        context.setattr(shard_reader, "PAUSES", (0.0, 0.0))
        context.setattr(split.shards[0], "_filesystem", Away())
        with pytest.raises(CellError, match=r"cannot be read \(timed out\); the same command goes on"):
            split.images([0])
    assert split.images([0]) == [rows(3)[0].image]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_network_that_is_back_before_anyone_looks_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
):
    """Whatever fails, opening or reading, is done again with bytes that are there."""
    write(tmp_path / "pets", rows(3))
    split = Dataset.open(tmp_path / "pets", is_copy=True).split("train")
    (shard,) = split.shards
    monkeypatch.setattr(shard_reader, "PAUSES", (0.0,) * times)
    failures = iter(range(times))

    class Flaky:
        def __getattr__(self, name: str):
            if next(failures, None) is not None:
                raise OSError("AWS Error NETWORK_CONNECTION")
            return getattr(filesystem, name)

    filesystem = shard._filesystem
    monkeypatch.setattr(shard, "_filesystem", Flaky())
    assert split.images([0, 1, 2]) == [row.image for row in rows(3)]
    assert not list((tmp_path / "pets").glob("damaged-*"))


def test_an_unknown_split_is_named(make_dataset: Make):
    with pytest.raises(UserError, match="dataset pets: no split dev; it has train, test"):
        make_dataset("pets", rows(3)).split("dev")
