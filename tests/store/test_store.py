"""The store keeps what is whole, notices what is not, and holds equal weights once."""

import logging
import multiprocessing
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from pyarrow import fs
from torch import Tensor

from time_ray.core.errors import StoreError, UserError
from time_ray.store.files import Files
from time_ray.store.store import Store

KEY, OTHER = "ab" * 16, "cd" * 16


def weights(value: float = 1.0) -> dict[str, Tensor]:
    return {"b": torch.full((2, 3), value), "a": torch.arange(4, dtype=torch.float16)}


def files_in(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Files(str(tmp_path)))


def again(store: Store) -> Store:
    """Another process's view of the same root."""
    return Store(Files(store.files.uri))


@contextmanager
def network_down(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing can be read within."""

    def failing(*_: object) -> bytes:
        raise StoreError("the network is down") from OSError("timed out")

    with monkeypatch.context() as context:
        context.setattr(store.files, "read", failing)
        yield


def test_weights_come_back_bit_for_bit(store: Store) -> None:
    entry = store.put(KEY, weights(), {"made": "by a test"})
    found = again(store).get(KEY)
    assert found is not None
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in weights().items()
    )
    assert entry["made"] == "by a test"
    assert store.entry("weights", OTHER) is None
    assert store.get(OTHER) is None


def test_weights_that_are_views_are_stored_by_value(store: Store) -> None:
    store.put(KEY, {"w": torch.arange(6.0).reshape(2, 3).T}, {})
    found = store.get(KEY)
    assert found is not None
    assert torch.equal(found["w"], torch.arange(6.0).reshape(2, 3).T)


def test_equal_weights_are_stored_once(store: Store, tmp_path: Path) -> None:
    one, other = store.put(KEY, weights(), {}), store.put(OTHER, weights(), {})
    assert one["digest"] == other["digest"]
    assert len(files_in(tmp_path, "*.safetensors")) == 1
    store.put("ef" * 16, weights(2.0), {})
    assert len(files_in(tmp_path, "*.safetensors")) == 2


def test_the_first_entry_stands(store: Store) -> None:
    for number in range(8):
        again(store).record("scores", KEY, {"accuracy": {"a": number}})
    assert again(store).entry("scores", KEY) == {"accuracy": {"a": 0}}


def test_an_entry_cut_short_anywhere_does_not_count(store: Store, tmp_path: Path) -> None:
    store.record("scores", KEY, {"accuracy": {"a": 12.5}, "note": "θ\n"})
    (path,) = files_in(tmp_path, "*.json")
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert again(store).entry("scores", KEY) is None, size
        assert again(store).keys("scores") == frozenset(), size


def test_an_entry_with_any_byte_changed_does_not_count(store: Store, tmp_path: Path) -> None:
    store.record("scores", KEY, {"accuracy": {"a": 12.5}})
    (path,) = files_in(tmp_path, "*.json")
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert again(store).entry("scores", KEY) is None, position
        assert not path.exists()
    assert len(files_in(tmp_path / "damaged", "*")) == 1


def test_a_whole_entry_is_found_beside_a_broken_one(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "scores" / KEY[:2] / KEY
    folder.mkdir(parents=True)
    (folder / "0.json").write_bytes(b'{"accuracy": ')
    (folder / "1-5.json").write_bytes(b"")
    store.record("scores", KEY, {"accuracy": {"a": 1}})
    assert again(store).entry("scores", KEY) == {"accuracy": {"a": 1}}


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_weights_are_never_trusted(
    store: Store, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(KEY, weights(), {})
    (payload,) = files_in(tmp_path, "*.safetensors")
    data = payload.read_bytes()
    if damage == "gone":
        payload.unlink()
    else:
        payload.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    reader = again(store)
    with caplog.at_level(logging.WARNING):
        assert reader.get(KEY) is None
    assert "damaged or missing" in caplog.text
    assert reader.entry("weights", KEY) is None
    assert KEY not in again(store).keys("weights")
    reader.put(KEY, weights(), {})
    assert again(store).get(KEY) is not None


def test_what_was_damaged_is_kept_aside(store: Store, tmp_path: Path) -> None:
    store.put(KEY, weights(), {})
    (payload,) = files_in(tmp_path, "*.safetensors")
    payload.write_bytes(b"damaged")
    assert store.get(KEY) is None
    (kept,) = files_in(tmp_path / "damaged", "*")
    assert kept.read_bytes() == b"damaged"


def test_a_storage_that_cannot_rename_will_do(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoRename:
        """A file system without moves."""

        def __getattr__(self, name: str) -> object:
            return getattr(disk, name)

        def move(self, *_: object) -> None:
            raise OSError("cannot rename")

    disk = store.files.filesystem
    store.put(KEY, weights(), {})
    (payload,) = files_in(tmp_path, "*.safetensors")
    payload.write_bytes(b"damaged")
    monkeypatch.setattr(store.files, "filesystem", NoRename())
    assert store.get(KEY) is None
    (kept,) = files_in(tmp_path / "damaged", "*")
    assert kept.read_bytes() == b"damaged"
    assert not payload.exists()
    store.put(KEY, weights(), {})
    assert again(store).get(KEY) is not None


def test_weights_that_cannot_be_read_just_now_are_not_thrown_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that fails for a moment is no damage."""
    store.put(KEY, weights(), {})
    with network_down(store, monkeypatch), pytest.raises(StoreError, match="network is down"):
        store.get(KEY)
    assert store.get(KEY) is not None


def test_keys_are_listed_by_kind(store: Store) -> None:
    store.put(KEY, weights(), {})
    store.record("scores", f"{OTHER}-{KEY}", {"accuracy": {}})
    assert store.keys("weights") == {KEY}
    assert store.keys("scores") == {f"{OTHER}-{KEY}"}
    assert store.keys("nothing") == frozenset()


def test_a_file_that_was_only_begun_is_no_key(store: Store, tmp_path: Path) -> None:
    store.record("scores", KEY, {"accuracy": {}})
    (path,) = files_in(tmp_path, "*.json")
    path.write_bytes(b"")
    assert again(store).keys("scores") == frozenset()


def test_scores_that_json_cannot_hold_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.record("scores", KEY, {"accuracy": float("nan")})
    assert store.entry("scores", KEY) is None


NUM_WRITERS = 8
KEYS = [f"{number:02x}" * 16 for number in range(20)]


def _write(uri: str, number: int, start: object, told: object) -> None:
    """Write every key in an order of one's own, and look at all of them in between; tell what was found."""
    torch.set_num_threads(1)
    start.wait()  # type: ignore[attr-defined]
    draw = random.Random(number)
    store, found = Store(Files(uri)), {}
    for key in draw.sample(KEYS, len(KEYS)):
        store.put(key, weights(float(number)), {"writer": number})
        store.record("scores", key, {"accuracy": {}, "writer": number})
        store.put_checkpoint(key, number, state(number))
        for other in draw.sample(KEYS, 3):
            got, progress = Store(Files(uri)).get(other), store.newest_checkpoint(other)
            if got is not None:
                values = set(got["b"].flatten().tolist())
                assert len(values) == 1, "torn"
            if progress is not None:
                assert torch.equal(progress[1]["model.w"], state(progress[0])["model.w"]), "torn"
    for key in KEYS:
        entry = store.entry("weights", key)
        assert entry is not None, "lost"
        found[key] = entry["writer"]
    told.put(found)  # type: ignore[attr-defined]


@pytest.mark.nightly
def test_many_processes_write_the_same_keys(store: Store, tmp_path: Path) -> None:
    """Whoever was first, afterwards everybody reads the same whole weights; nothing is torn, lost or set aside."""
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload([Store.__module__])  # torch is imported once, not by every writer
    start, told = spawn.Event(), spawn.Queue()
    writers = [spawn.Process(target=_write, args=(store.files.uri, n, start, told)) for n in range(NUM_WRITERS)]
    for writer in writers:
        writer.start()
    start.set()
    found = [told.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * NUM_WRITERS
    assert found == [found[0]] * NUM_WRITERS
    assert store.keys("weights") == store.keys("scores") == set(KEYS)
    for key in KEYS:
        got, progress = store.get(key), store.newest_checkpoint(key)
        assert got is not None
        assert progress is not None
        assert torch.equal(got["b"], weights(float(str(found[0][key])))["b"])
        assert progress[0] == NUM_WRITERS - 1
    assert not (tmp_path / "damaged").exists()
    assert len(files_in(tmp_path / "payloads", "*")) >= len(set(found[0].values()))


def state(step: int) -> dict[str, Tensor]:
    return {"model.w": torch.full((3,), float(step)), "rng": torch.arange(5, dtype=torch.uint8)}


def test_progress_comes_back_bit_for_bit_and_supersedes_what_was_before(store: Store, tmp_path: Path) -> None:
    assert store.newest_checkpoint(KEY) is None
    for step in (7, 10, 200):
        store.put_checkpoint(KEY, step, state(step))
        found = again(store).newest_checkpoint(KEY)
        assert found is not None
        assert found[0] == step
        assert torch.equal(found[1]["model.w"], state(step)["model.w"])
        assert torch.equal(found[1]["rng"], state(step)["rng"])
        assert len(files_in(tmp_path, "*.safetensors")) == 1
    assert store.newest_checkpoint(OTHER) is None


def test_progress_of_a_slower_writer_does_not_displace_what_is_further(store: Store) -> None:
    store.put_checkpoint(KEY, 20, state(20))
    again(store).put_checkpoint(KEY, 10, state(10))
    found = store.newest_checkpoint(KEY)
    assert found is not None
    assert found[0] == 20


def test_dropped_progress_is_gone(store: Store, tmp_path: Path) -> None:
    store.put_checkpoint(KEY, 20, state(20))
    store.put_checkpoint(OTHER, 20, state(20))
    store.drop_checkpoints(KEY)
    assert store.newest_checkpoint(KEY) is None
    assert store.newest_checkpoint(OTHER) is not None
    store.drop_checkpoints(KEY)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_damaged_progress_is_set_aside_and_the_one_before_counts(
    store: Store, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.put_checkpoint(KEY, 20, state(20))
    (path,) = files_in(tmp_path, "*.safetensors")
    data = path.read_bytes()
    store.put_checkpoint(KEY, 10, state(10))
    path.write_bytes({"cut": data[:-1], "empty": b"", "flipped": data[:-1] + bytes([data[-1] ^ 1])}[damage])
    with caplog.at_level(logging.WARNING):
        found = again(store).newest_checkpoint(KEY)
    assert found is not None
    assert found[0] == 10
    if damage == "flipped":  # others may be being written just now
        assert "after step 20 is damaged" in caplog.text
        assert len(files_in(tmp_path / "damaged", "*")) == 1
    store.drop_checkpoints(KEY)
    assert files_in(tmp_path / "progress", "*") == []


def test_progress_that_cannot_be_read_just_now_is_not_thrown_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_checkpoint(KEY, 20, state(20))
    with network_down(store, monkeypatch), pytest.raises(StoreError, match="network is down"):
        store.newest_checkpoint(KEY)
    assert store.newest_checkpoint(KEY) is not None


def test_a_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"storage: .*file/runs is not writable .*; set storage: or TIME_RAY_STORAGE"):
        Files(str(tmp_path / "file" / "runs")).check_writable()


def test_a_root_that_can_be_written_stays_empty(tmp_path: Path) -> None:
    Files(str(tmp_path / "runs")).check_writable()
    assert files_in(tmp_path, "*") == []


@pytest.mark.parametrize("uri", ["nosuch://bucket/path", "s3://bucket/path?unknown_option=secret"])
def test_an_address_that_is_none_is_refused_without_its_secrets(uri: str) -> None:
    with pytest.raises(UserError, match=r"storage: .* is no address pyarrow.fs knows") as caught:
        Files(uri)
    assert "secret" not in str(caught.value)


def test_a_file_uri_is_a_local_root(tmp_path: Path) -> None:
    files = Files(tmp_path.as_uri())
    files.write(b"x", "a", "b")
    assert files.is_local
    assert (tmp_path / "a" / "b").read_bytes() == b"x"
    assert [info.type for info in files.list("a")] == [fs.FileType.File]


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing: cannot be read"):
        Files(str(tmp_path)).read("missing")
    Files(str(tmp_path)).delete("missing")
