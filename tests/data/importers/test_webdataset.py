import gzip
import json
import os
from pathlib import Path

import pytest
from archives import tar
from pictures import picture

from time_ray.core.errors import UserError
from time_ray.data.dataset import Dataset
from time_ray.data.importers.registry import IMPORTERS, recognised
from time_ray.data.importers.sample_faults import noted, read_report
from time_ray.data.importers.webdataset import import_webdataset, shard_paths


def shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = tar(members)
    path.write_bytes(gzip.compress(data) if path.name.endswith("gz") else data)


def captioned(first: int, count: int) -> dict[str, bytes]:
    members = {}
    for number in range(first, first + count):
        members |= {f"{number:06}.jpg": picture(number), f"{number:06}.txt": f"picture {number}\n".encode()}
    return members


def test_shards_become_a_pool(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"pool/{number:05}.tar", captioned(5 * number, 5))
    card = import_webdataset(tmp_path / "pool", tmp_path / "out")
    train = Dataset.open(tmp_path / "out").split("train")
    assert (card.name, card.kind, len(card.splits["train"].shards)) == ("pool", "captions", 3)
    assert train.images([14, 0]) == [picture(14), picture(0)]
    assert train.captions(range(15)) == [(f"picture {number}",) for number in range(15)]
    assert [row.key for row in train.rows()][:6:5] == ["00000.tar/000000", "00001.tar/000005"]
    assert {row.label for row in train.rows()} == {-1}


def test_a_pattern_names_shards(tmp_path: Path) -> None:
    for number in range(4):
        shard(tmp_path / f"pool/{number:05}.tar", captioned(number, 1))
    pattern = f"{tmp_path}/pool/{{00001..00003}}.tar"
    assert [path.name for path in shard_paths(pattern)] == ["00001.tar", "00002.tar", "00003.tar"]
    assert import_webdataset(pattern, tmp_path / "out").splits["train"].rows == 3
    assert import_webdataset(tmp_path / "pool/00002.tar", tmp_path / "one").splits["train"].rows == 1


def test_missing_shards_are_all_named(tmp_path: Path) -> None:
    shard(tmp_path / "1.tar", captioned(0, 1))
    with pytest.raises(UserError) as caught:
        shard_paths(f"{tmp_path}/{{0..2}}.tar")
    assert [Path(fault.partition(":")[0]).name for fault in caught.value.faults] == ["0.tar", "2.tar"]
    with pytest.raises(UserError, match="names 0 shards"):
        shard_paths(f"{tmp_path}/{{2..0}}.tar")
    with pytest.raises(UserError, match="names 1000000000000 shards"):
        shard_paths(f"{tmp_path}/{{1..1000000}}-{{1..1000000}}.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no tars here"):
        shard_paths(str(tmp_path / "empty"))


def test_captions_may_be_in_json_and_tars_gzipped(tmp_path: Path) -> None:
    members = {
        "a.png": picture(0),
        "a.json": json.dumps({"caption": "one", "width": 16}).encode(),
        "b.json": json.dumps({"captions": ["two", "three"]}).encode(),
        "b.PNG": picture(1),
        "in/c.txt": "fünf".encode(),
        "in/c.webp": picture(2),
        "in/c.json": json.dumps({"caption": "not this"}).encode(),
        "in/c.cls": b"7",
        "LICENSE": b"free",
    }
    shard(tmp_path / "pool/a.tar.gz", members)
    import_webdataset(tmp_path / "pool", tmp_path / "out")
    assert Dataset.open(tmp_path / "out").split("train").captions(range(3)) == [("one",), ("two", "three"), ("fünf",)]
    assert noted(read_report(tmp_path / "out")) == {
        "file ending in .cls, not read": 1,
        "file without an ending, not read": 1,
    }


def test_everything_odd_is_named_and_the_rest_is_imported(tmp_path: Path) -> None:
    members = {
        "good.jpg": picture(0),
        "good.txt": b"good",
        "broken.jpg": picture(1)[:-7],
        "broken.txt": b"broken",
        "silent.jpg": picture(2),
        "blank.jpg": picture(3),
        "blank.txt": b" \n",
        "bytes.jpg": picture(4),
        "bytes.txt": b"\xff\xfe",
        "lonely.txt": b"no picture",
        "../out.jpg": picture(5),
        "list.jpg": picture(6),
        "list.json": json.dumps({"captions": ["kept", None, 3]}).encode(),
        "nested.jpg": picture(7),
        "nested.json": b"[" * 100_000,
        "two.jpg": picture(8),
        "two.png": picture(9),
        "two.txt": b"two",
        "half.jpg": picture(10),
        "half.json": b'{"caption": "\\ud800"}',
    }
    shard(tmp_path / "x.tar", members)
    card = import_webdataset(tmp_path / "x.tar", tmp_path / "out", strict=False)
    kept = Dataset.open(tmp_path / "out").split("train")
    assert card.splits["train"].rows == 3
    assert kept.captions(range(3)) == [("good",), ("kept",), ("two",)]
    found = {(fault.where.rpartition(": ")[2], fault.kind, fault.kept) for fault in read_report(tmp_path / "out")}
    assert found == {
        ("broken", "truncated image", False),
        ("silent", "no caption", False),
        ("blank", "odd caption", False),
        ("bytes", "odd caption", False),
        ("lonely", "no image", False),
        ("../out.jpg", "unsafe path", False),
        ("list", "odd caption", True),
        ("nested", "odd caption", False),
        ("two.png", "second image", False),
        ("half", "odd caption", False),
    }
    with pytest.raises(UserError) as caught:
        import_webdataset(tmp_path / "x.tar", tmp_path / "strict")
    assert len(caught.value.faults) == len(found)
    assert not (tmp_path / "out.jpg").exists()


def test_names_with_dots_are_divided_at_the_first_and_never_vanish(tmp_path: Path) -> None:
    members = {
        "v1.0/00.jpg": picture(0),
        "v1.0/00.txt": b"a folder may have dots",
        "2024.01.jpg": picture(1),
        "2024.01.txt": b"lost",
        "__MACOSX/._00.jpg": b"x",
    }
    shard(tmp_path / "x.tar", members)
    card = import_webdataset(tmp_path / "x.tar", tmp_path / "out", strict=False)
    report = read_report(tmp_path / "out")
    assert card.splits["train"].rows == 1
    assert [row.key for row in Dataset.open(tmp_path / "out").split("train").rows()] == ["x.tar/v1.0/00"]
    assert [fault.where.rpartition(": ")[2] for fault in report if not fault.is_note] == ["2024.01.jpg", "2024.01.txt"]
    assert noted(report) == {"hidden or system file or folder, not read": 1}
    with pytest.raises(UserError, match="all from the first dot on"):
        import_webdataset(tmp_path / "x.tar", tmp_path / "strict")


def test_tars_are_named_in_any_case_and_what_lies_beside_them_is_said(tmp_path: Path) -> None:
    for number, name in enumerate(("0.tar", "1.TAR")):
        shard(tmp_path / "pool" / name, captioned(number, 1))
    for name in ("0_stats.json", "2.tar.bz2", "._0.tar"):
        (tmp_path / "pool" / name).write_bytes(b"")
    assert recognised(str(tmp_path / "pool")) is IMPORTERS["webdataset"]
    assert import_webdataset(tmp_path / "pool", tmp_path / "out").splits["train"].rows == 2
    assert noted(read_report(tmp_path / "out")) == {
        "hidden or system file or folder, not read": 1,
        "file ending in .bz2, not read": 1,
        "file ending in .json, not read": 1,
    }


def test_a_tar_that_is_no_plain_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", captioned(0, 1))
    os.mkfifo(tmp_path / "1.tar")
    (tmp_path / "2.tar").symlink_to("2.tar")
    with pytest.raises(UserError) as caught:
        shard_paths(str(tmp_path))
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [str(tmp_path / "1.tar"), str(tmp_path / "2.tar")]


def test_a_tar_of_nothing_is_no_pool(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", {})
    with pytest.raises(UserError, match="x: holds not one sample"):
        import_webdataset(tmp_path / "x.tar", tmp_path / "out")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_mark_of_the_encoding_is_no_part_of_a_caption(tmp_path: Path, encoding: str) -> None:
    shard(tmp_path / "x.tar", {"a.png": picture(0), "a.txt": "café".encode(encoding)})
    import_webdataset(tmp_path / "x.tar", tmp_path / "out")
    assert Dataset.open(tmp_path / "out").split("train").captions([0]) == [("café",)]
