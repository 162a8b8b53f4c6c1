import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from pictures import picture
from scores import evaluate
from torch import Tensor

from time_ray.clip.models import Clip
from time_ray.core.preprocessing import Resizing
from time_ray.data import images
from time_ray.data.dataset import Dataset, Row
from time_ray.data.image_cache import ImageBlock, ImageCache
from time_ray.data.images import Decoded

Rows = NDArray[np.int64]
SIDE = 70


class Decoder:
    """Images that follow from their rows, and how often they were asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, rows: Rows) -> NDArray[np.uint8]:
        self.calls += 1
        return np.stack([np.random.default_rng(row).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for row in rows])


def block(*rows: int, dataset: str = "a digest", split: str = "test", size: int = SIDE) -> ImageBlock:
    return ImageBlock(dataset, split, Resizing(size), np.array(rows, dtype=np.int64))


def file_of(folder: Path) -> Path:
    (path,) = folder.glob("*/*.pixels")
    return path


def test_a_piece_is_decoded_once(tmp_path: Path):
    decode = Decoder()
    first = ImageCache(tmp_path).get(block(1, 4, 9), decode)
    again = ImageCache(tmp_path).get(block(1, 4, 9), decode)
    assert decode.calls == 1
    assert again.shape == (3, SIDE, SIDE, 3)
    assert np.array_equal(first, again)
    assert np.array_equal(again, Decoder()(np.array([1, 4, 9])))
    assert isinstance(again.base, np.memmap)


def test_pieces_of_other_images_are_other_pieces(tmp_path: Path):
    decode, cache = Decoder(), ImageCache(tmp_path)
    others = [block(1), block(2), block(1, 2), block(1, dataset="b"), block(1, split="train")]
    ways = [("shortest", "bilinear"), ("squash", "bicubic"), ("longest", "bicubic"), ("longest", "bicubic", 255)]
    others += [block(1)._replace(resizing=Resizing(SIDE, *way)) for way in ways]
    for one in others:
        cache.get(one, decode)
    assert decode.calls == len(others)


def test_images_that_were_kept_before_modes_were_known_are_found_again() -> None:
    assert block(1).path.parts[0] == f"a digest-test-{SIDE}-v2-{PIL.__version__}"


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "first bit": lambda path: flip(path, 0),
    "a bit within": lambda path: flip(path, 5000),
    "checksum": lambda path: flip(path, -1),
    "cut off": lambda path: os.truncate(path, 4000),
    "empty": lambda path: os.truncate(path, 0),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_and_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str):
    decode = Decoder()
    wanted = ImageCache(tmp_path).get(block(1, 2), decode).copy()
    DAMAGE[damage](file_of(tmp_path))
    assert np.array_equal(ImageCache(tmp_path).get(block(1, 2), decode), wanted)
    assert decode.calls == 2
    assert "damaged" in caplog.text
    assert np.array_equal(ImageCache(tmp_path).get(block(1, 2), decode), wanted)
    assert decode.calls == 2


def test_a_piece_under_another_ones_name_is_no_piece(tmp_path: Path):
    decode, cache = Decoder(), ImageCache(tmp_path)
    cache.get(block(1), decode)
    one = file_of(tmp_path)
    cache.get(block(2), decode)
    other = tmp_path / block(2).path
    shutil.copy(one, other)
    assert np.array_equal(cache.get(block(2), decode), Decoder()(np.array([2])))


def test_many_may_write_at_once(tmp_path: Path):
    decode, errors = Decoder(), []

    def work() -> None:
        for row in range(8):
            found = ImageCache(tmp_path).get(block(row), decode)
            if not np.array_equal(found, Decoder()(np.array([row]))):
                errors.append(row)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert len(list(tmp_path.glob("*/*"))) == 8


WRITER = """
import sys
from pathlib import Path
import numpy as np
from time_ray.core.preprocessing import Resizing
from time_ray.data.image_cache import ImageBlock, ImageCache
cache = ImageCache(Path(sys.argv[1]))
while True:
    for row in range(4000):
        pixels = lambda rows: np.full((1, 700, 700, 3), int(rows[0]) % 251, dtype=np.uint8)
        cache.get(ImageBlock("a digest", "test", Resizing(700), np.array([row])), pixels)
"""


@pytest.mark.nightly
def test_writers_killed_at_any_instant_leave_whole_pieces_or_none(tmp_path: Path):
    for round_ in range(4):
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) for _ in range(2)]
        wanted = 40 * (round_ + 1)
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*/*.pixels"))) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for writer in writers:
            writer.kill()
            writer.wait()
    asked: list[int] = []

    def decode(rows: Rows) -> NDArray[np.uint8]:
        asked.append(int(rows[0]))
        return np.full((1, 700, 700, 3), int(rows[0]) % 251, dtype=np.uint8)

    count = len(list(tmp_path.glob("*/*.pixels")))
    for row in range(count):
        pixels = ImageCache(tmp_path).get(block(row, size=700), decode)
        assert (pixels == row % 251).all()
    assert len(asked) <= 2 * 4  # those that a writer was at when it was killed


def test_room_is_asked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    blocks = [block(1), block(2)]
    needed = sum(one.num_bytes for one in blocks)
    free = 2 * needed - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10 * free, 9 * free, free))
    cache, decode = ImageCache(tmp_path, said.append), Decoder()
    for _ in range(2):
        cache.expect(blocks)
        cache.get(blocks[0], decode)
    assert decode.calls == 2
    assert not list(tmp_path.glob("*/*"))
    (text,) = said
    assert "are not kept" in text
    assert "TIME_RAY_CACHE" in text

    free += 1
    said.clear()
    roomy = ImageCache(tmp_path, said.append)
    for _ in range(2):
        roomy.expect(blocks)
        for one in blocks:
            roomy.get(one, decode)
    assert decode.calls == 4
    (text,) = said
    assert str(tmp_path) in text


def test_a_full_disk_is_told_once_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    said: list[str] = []
    cache, decode = ImageCache(tmp_path, said.append), Decoder()
    monkeypatch.setattr(Path, "replace", full)
    for _ in range(2):
        assert np.array_equal(cache.get(block(3), decode), Decoder()(np.array([3])))
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert not list(tmp_path.glob("*/*"))


def test_a_folder_that_cannot_be_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    said: list[str] = []
    cache = ImageCache(tmp_path / "file" / "pixels", said.append)
    cache.expect([block(1)])
    assert np.array_equal(cache.get(block(1), Decoder()), Decoder()(np.array([1])))
    assert len(said) == 1


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path):
    ImageCache(tmp_path).get(block(1), Decoder())
    old, new = (file_of(tmp_path).with_name(f"{name}.draft") for name in ("old", "new"))
    for draft in (old, new):
        draft.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    ImageCache(tmp_path, lambda _: None).expect([block(2)])
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("loaders", [0, 1, 3])
def test_scores_from_the_disk_are_those_of_decoded_images(
    clip: Clip,
    weights: dict[str, Tensor],
    make_dataset: Callable[..., Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loaders: int,
):
    monkeypatch.setattr(images, "KEPT_SIDE", 8)  # so the small model's images count as large
    rows = [Row(picture(i, (20, 24)), ("text",), i % 3, "") for i in range(70)]
    pets = make_dataset("pets", [], rows)
    wanted = evaluate(clip, [weights], [pets], batch_size=32)
    said: list[str] = []
    cache = ImageCache(tmp_path / "pixels", said.append)
    for batch in (32, 32, 70):
        assert evaluate(clip, [weights], [pets], batch_size=batch, loaders=loaders, cache=cache) == wanted
    assert len(list((tmp_path / "pixels").glob("*/*.pixels"))) == 4
    assert len(said) == 2
    monkeypatch.setattr(Decoded, "block", None)
    assert evaluate(clip, [weights], [pets], batch_size=32, loaders=loaders, cache=cache) == wanted


def test_small_images_stay_in_memory(
    clip: Clip, weights: dict[str, Tensor], make_dataset: Callable[..., Dataset], tmp_path: Path
):
    pets = make_dataset("pets", [], [Row(picture(i), ("text",), i % 3, "") for i in range(9)])
    evaluate(clip, [weights], [pets], cache=ImageCache(tmp_path / "pixels"))
    assert not (tmp_path / "pixels").exists()
