"""Names and paths in an experiment become datasets: imported once, by the code of `time-ray data import`."""

import io
import os
from pathlib import Path

import pytest
from archives import tar
from pictures import picture
from PIL import Image
from pyarrow import fs

from time_ray.core.errors import UserError
from time_ray.data import dataset
from time_ray.data.dataset import write_dataset
from time_ray.data.shards import Row
from time_ray.data.sources import find

LOCAL = fs.LocalFileSystem()


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for number in range(10):
        path = tmp_path / f"pets/{('ant', 'bee')[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return tmp_path / "pets"


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    (tmp_path / "pool").mkdir()
    for number in range(3):
        members = {f"{number}.png": picture(number), f"{number}.txt": b"a picture"}
        (tmp_path / f"pool/{number:03}.tar").write_bytes(tar(members))
    return tmp_path / "pool"


def test_a_folder_is_imported_once(pets: Path, cache: str) -> None:
    (first,) = find(str(pets), "adaptation", cache, LOCAL)
    card = Path(first.folder, "card.json")
    written = card.stat().st_mtime_ns
    assert find(str(pets), "adaptation", cache, LOCAL) == [first]
    assert card.stat().st_mtime_ns == written
    assert (first.name, first.classes, first.num_scored) == ("pets", ("ant", "bee"), 2)


@pytest.mark.parametrize("letter", ["n", "é"])
def test_a_name_may_be_as_long_as_the_file_system_lets_it(pets: Path, cache: str, letter: str) -> None:
    names = [letter * (250 // len(letter.encode())), letter * (250 // len(letter.encode()) - 1)]
    for name in names:
        pets = pets.rename(pets.with_name(name))
        (source,) = find(str(pets), "adaptation", cache, fs.LocalFileSystem())
        assert source.name == name
        source.open()


def test_an_import_goes_on_in_the_folder_where_it_was_interrupted(pets: Path, cache: str) -> None:
    (first,) = find(str(pets), "adaptation", cache, LOCAL)
    for path in Path(first.folder).glob("*"):
        path.unlink()
    Path(first.folder, "train-00000-0123456789abcdef.parquet").write_text("the rest of an import that was killed")
    assert find(str(pets), "adaptation", cache, LOCAL) == [first]
    assert not Path(first.folder, "train-00000-0123456789abcdef.parquet").exists()


def test_a_file_that_changes_is_imported_again(pets: Path, cache: str) -> None:
    (first,) = find(str(pets), "adaptation", cache, LOCAL)
    (pets / "ant/0.png").write_bytes(picture(99))
    os.utime(pets / "ant/0.png", (1, 1))
    (second,) = find(str(pets), "adaptation", cache, LOCAL)
    assert second.key != first.key
    assert second.folder != first.folder


def test_a_file_that_no_import_reads_changes_nothing(pets: Path, cache: str) -> None:
    (first,) = find(str(pets), "adaptation", cache, LOCAL)
    (pets / "cover.png").write_bytes(picture(0))
    (pets / "ant/notes.json").write_text("{}")
    assert find(str(pets), "adaptation", cache, LOCAL) == [first]


def test_nothing_is_left_out_of_an_experiment(pets: Path, cache: str) -> None:
    for name in ("ant/0.png", "bee/1.png"):
        (pets / name).write_bytes(picture(0)[:-3])
    with pytest.raises(UserError) as caught:
        find(str(pets), "adaptation", cache, LOCAL)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [f"{pets}/ant/0.png", f"{pets}/bee/1.png"]


def test_webdataset_shards_are_a_pool_by_folder_and_by_pattern(pool: Path, cache: str) -> None:
    (by_folder,) = find(str(pool), "pretraining", cache, LOCAL)
    (by_pattern,) = find(f"{pool}/{{000..002}}.tar", "pretraining", cache, LOCAL)
    (some,) = find(f"{pool}/{{000..001}}.tar", "pretraining", cache, LOCAL)
    assert (by_folder.name, by_folder.classes, len(by_folder.open().split("train"))) == ("pool", (), 3)
    assert by_pattern.key == by_folder.key != some.key
    assert len(some.open().split("train")) == 2
    with pytest.raises(UserError, match=r"003\.tar: no such file"):
        find(f"{pool}/{{002..003}}.tar", "pretraining", cache, LOCAL)


def test_a_folder_that_looks_like_a_pattern_is_a_folder(pool: Path, cache: str) -> None:
    odd = pool.rename(pool.with_name("{1..3}"))
    (one,) = find(str(odd / "001.tar"), "pretraining", cache, LOCAL)
    assert len(one.open().split("train")) == 1


def test_other_storage_gets_a_copy(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    bucket = fs.SubTreeFileSystem(str(tmp_path / "bucket"), LOCAL)
    (found,) = find(str(pets), "adaptation", "data", bucket)
    assert len(found.open().split("train")) == 8
    assert (tmp_path / "bucket" / found.folder / "report.jsonl").is_file()


def test_linked_classes_are_data_sets_of_their_own(pets: Path, tmp_path: Path, cache: str) -> None:
    for number in range(10):
        path = tmp_path / f"cars/{('bus', 'van')[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    for name, real in (("a", pets), ("b", tmp_path / "cars")):
        (tmp_path / name / "photos").mkdir(parents=True)
        for folder in real.iterdir():
            (tmp_path / name / "photos" / folder.name).symlink_to(folder)
    found = [find(str(tmp_path / name / "photos"), "adaptation", cache, LOCAL)[0] for name in ("a", "b", "a")]
    assert [each.classes for each in found] == [("ant", "bee"), ("bus", "van"), ("ant", "bee")]
    image = pets / "ant/0.png"
    time = image.stat().st_mtime_ns
    image.write_bytes(picture(50))
    os.utime(image, ns=(time, time))
    (again,) = find(str(tmp_path / "a/photos"), "adaptation", cache, LOCAL)
    assert again.key not in {each.key for each in found}


@pytest.mark.parametrize("has_alpha", [False, True])
def test_a_data_set_of_older_rules_has_another_key_only_if_it_is_decoded_otherwise(
    has_alpha: bool, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0 if has_alpha else 255)).save(stream, "PNG")
    rows = [Row(stream.getvalue(), ("text",), 0, ""), Row(picture(0), ("text",), 0, "")]

    def write(name: str) -> str:
        classes, splits = ["ant"], {"test": rows}
        folder = tmp_path / name
        card = write_dataset(
            folder, name="pets", kind="classification", classes=classes, templates=["{}"], splits=splits
        )
        return card.digest

    new = write("new")
    with monkeypatch.context() as patched:
        patched.setattr(dataset, "DECODING", 1)
        patched.setattr("time_ray.data.shards.is_plain", lambda _: True)
        old = write("old")
    assert (old == new) == (not has_alpha)
    assert [find(str(tmp_path / "old"), "evaluation", cache, LOCAL)[0].key for _ in range(2)] == [new, new]
    (kept,) = Path(cache).glob("decoding-*/*")
    kept.write_text(new[:10])  # whoever wrote it was killed
    assert find(str(tmp_path / "old"), "evaluation", cache, LOCAL)[0].key == new
    assert kept.read_text() == new


def test_what_is_not_read_is_said_when_it_is_imported(pets: Path, cache: str, caplog: pytest.LogCaptureFixture) -> None:
    (pets / "ant/.DS_Store").touch()
    (pets / "ant/0.heic").touch()
    for _ in range(2):
        find(str(pets), "adaptation", cache, LOCAL)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{pets}: 1 × hidden or system file or folder, not read",
        f"{pets}: 1 × file ending in .heic, not read",
    ]
