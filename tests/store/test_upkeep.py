"""What lies on a storage, whether it is whole, and what may go: ls, verify, gc."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from time_ray.core.errors import UserError
from time_ray.store.files import Files
from time_ray.store.gc import collect
from time_ray.store.inventory import YOUNG_SECONDS, Inventory, Reachable, rows
from time_ray.store.lease import lease
from time_ray.store.sealed import sealed
from time_ray.store.stop_request import request_stop
from time_ray.store.store import Store
from time_ray.store.verify_store import verify

KEEP, DROP, OTHER = "ab" * 16, "cd" * 16, "ef" * 16


def weights(value: float) -> dict[str, Tensor]:
    return {"w": torch.full((5, 7), value)}


def everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def only(root: Path, pattern: str) -> Path:
    (path,) = root.glob(pattern)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two experts with scores, one of them with a step checkpoint left over, and another under way."""
    store = Store(Files(str(tmp_path)))
    for number, key in enumerate((KEEP, DROP)):
        store.put(key, weights(number), {"recipe": {"key": key}})
        store.record("scores", f"{key}-{OTHER}", {"accuracy": {"a": 1.0}})
    store.record("rates", OTHER, {"model": "toy"})
    store.put_checkpoint(KEEP, 5, weights(5))
    store.put_checkpoint(OTHER, 6, weights(6))
    return store


@pytest.fixture
def garbage(store: Store, tmp_path: Path) -> list[str]:
    """Files that no entry names, by path."""
    files = store.files
    files.write(b"half", "weights", KEEP[:2], KEEP, "0123-99.json")
    files.write(b"lost", "payloads", "00", "00" * 32, "1.safetensors")
    digest = "11" * 32
    entry = sealed({"digest": digest, "bytes": 4, "payload": f"payloads/11/{digest}/1.safetensors"})
    files.write(entry, "weights", KEEP[:2], KEEP, f"later-{len(entry)}.json")
    torn = f"{9:012d}-{'0' * 64}-99-1.safetensors"
    files.write(b"half", "progress", OTHER[:2], OTHER, torn)
    files.write(b"bad", "damaged", "x")
    files.write(b"", ".probe-1")
    files.write(b"bad", "data", "pets", "damaged-1-card.json")
    done = [str(path.relative_to(tmp_path)) for path in (tmp_path / "progress" / KEEP[:2] / KEEP).iterdir()]
    return sorted(
        [
            f"weights/{KEEP[:2]}/{KEEP}/0123-99.json",
            f"weights/{KEEP[:2]}/{KEEP}/later-{len(entry)}.json",
            f"payloads/00/{'00' * 32}/1.safetensors",
            f"progress/{OTHER[:2]}/{OTHER}/{torn}",
            "damaged/x",
            ".probe-1",
            "data/pets/damaged-1-card.json",
            *done,
        ]
    )


@pytest.fixture
def old(tmp_path: Path) -> Callable[[], None]:
    """Everything was written long ago."""

    def make() -> None:
        then = time.time() - YOUNG_SECONDS - 60
        for path in tmp_path.rglob("*"):
            if path.is_file():
                os.utime(path, (then + path.name.startswith("later"), then + path.name.startswith("later")))

    return make


def test_a_storage_without_garbage_is_left_alone(store: Store, tmp_path: Path, old: Callable[[], None]) -> None:
    store.drop_checkpoints(KEEP)
    old()
    before = everything(tmp_path)
    assert list(collect(store.files, None)) == []
    assert everything(tmp_path) == before


@pytest.mark.usefixtures("garbage")
def test_the_files_of_the_last_hour_are_left_alone(store: Store, tmp_path: Path) -> None:
    before = everything(tmp_path)
    assert list(collect(store.files, Reachable(frozenset(), frozenset()))) == []
    assert everything(tmp_path) == before


@pytest.mark.parametrize("aged", [True, False])
def test_garbage_goes_and_nothing_else(
    store: Store, tmp_path: Path, garbage: list[str], old: Callable[[], None], aged: bool
) -> None:
    if aged:
        old()
    before = everything(tmp_path)
    told = list(collect(store.files, None, young=not aged, dry=True))
    assert sorted(item.path for item in told) == garbage
    assert everything(tmp_path) == before
    gone = list(collect(store.files, None, young=not aged))
    assert sum(item.size for item in gone) == sum(len(before[path]) for path in garbage)
    assert everything(tmp_path) == {path: data for path, data in before.items() if path not in garbage}
    assert Store(Files(str(tmp_path))).get(KEEP) is not None


def test_what_is_in_reach_stays(store: Store, tmp_path: Path, old: Callable[[], None]) -> None:
    old()
    gone = list(collect(store.files, Reachable({KEEP}, {f"{KEEP}-{OTHER}"})))
    fresh = Store(Files(str(tmp_path)))
    assert fresh.get(KEEP) is not None
    assert fresh.keys("weights") == {KEEP}
    assert fresh.keys("scores") == {f"{KEEP}-{OTHER}"}
    assert fresh.keys("rates") == {OTHER}
    assert {item.why for item in gone} == {"out of reach", "unreferenced", "its expert is stored"}
    assert len(list((tmp_path / "payloads").rglob("*.safetensors"))) == 1


def test_a_payload_shared_with_what_stays_stays(store: Store, old: Callable[[], None]) -> None:
    store.put(OTHER, weights(0), {})  # equal to what KEEP has
    old()
    list(collect(store.files, Reachable({OTHER}, set())))
    assert Store(Files(store.files.uri)).get(OTHER) is not None


def test_a_young_entry_keeps_its_old_payload(store: Store, tmp_path: Path, old: Callable[[], None]) -> None:
    old()
    os.utime(only(tmp_path, f"weights/{DROP[:2]}/{DROP}/*"))
    list(collect(store.files, Reachable({KEEP}, set())))
    assert Store(Files(store.files.uri)).get(DROP) is not None


def test_nothing_is_removed_while_a_sweep_runs(store: Store) -> None:
    with lease(store.files, "tiny"), pytest.raises(UserError, match="sweep 'tiny' is being run by process"):
        list(collect(store.files, None, young=True))


def test_a_stop_request_goes_with_its_sweep(store: Store, tmp_path: Path, old: Callable[[], None]) -> None:
    with lease(store.files, "tiny"):
        assert request_stop(store.files, "tiny", "finish") is not None
        old()
        os.utime(only(tmp_path, "leases/tiny/*"))
        assert not [item for item in collect(store.files, None, dry=True) if item.path.startswith("stops/")]
    assert [item.why for item in collect(store.files, None) if item.path.startswith("stops/tiny/")] == ["stale"]


def test_the_lease_of_a_dead_sweep_goes(store: Store, tmp_path: Path, old: Callable[[], None]) -> None:
    store.files.write(sealed({"host": "gone", "pid": 1, "since": 0.0, "holds": True}), "leases", "sweep", "1.json")
    old()
    assert "leases/sweep/1.json" in [item.path for item in collect(store.files, None, dry=True)]
    list(collect(store.files, None))
    assert not (tmp_path / "leases" / "sweep" / "1.json").exists()


def test_rows_count_by_kind(store: Store, garbage: list[str]) -> None:
    found = {str(row["kind"]): row for row in rows(Inventory.of(store.files))}
    assert {kind: row["keys"] for kind, row in found.items() if row["keys"]} == {
        "weights": 2,
        "scores": 2,
        "rates": 1,
        "payloads": 3,
        "progress": 2,
    }
    unneeded = {kind: row["unneeded"] for kind, row in found.items() if row["unneeded"]}
    assert unneeded == {"weights": 2, "payloads": 1, "progress": 2, "damaged": 1, "data": 1, "other": 1}
    assert found["weights"]["why"] == "half-written, superseded"
    assert found["payloads"]["unneeded_bytes"] == 4


def test_a_whole_store_is_found_whole(store: Store, tmp_path: Path) -> None:
    checked = list(verify(store.files))
    assert [item for item in checked if item.fault] == []
    assert sum(item.size for item in checked) == sum(map(len, everything(tmp_path).values()))


@pytest.mark.parametrize("kind", ["weights", "scores", "rates", "payloads", "progress"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_damage_is_found_and_set_aside(store: Store, tmp_path: Path, kind: str, damage: str) -> None:
    path = min(path for path in (tmp_path / kind).rglob("*") if path.is_file())
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {"flipped": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :], "cut": data[:-1], "emptied": b""}[
            damage
        ]
    )
    (found,) = [item for item in verify(store.files) if item.fault]
    assert found.path == str(path.relative_to(tmp_path))
    assert not path.exists()
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    assert [item for item in verify(store.files) if item.fault] == []
    gone = {"weights": 1, "payloads": 1}.get(kind, 0)
    assert len(Store(Files(str(tmp_path))).keys("weights")) == 2 - gone


def test_an_entry_without_its_payload_is_no_entry(store: Store, tmp_path: Path) -> None:
    for path in (tmp_path / "payloads").rglob("*.safetensors"):
        path.unlink()
    assert {item.fault for item in verify(store.files) if item.fault} == {"missing"}
    assert Store(Files(str(tmp_path))).keys("weights") == frozenset()


def test_what_a_running_sweep_may_be_writing_is_left_alone(
    store: Store, tmp_path: Path, old: Callable[[], None]
) -> None:
    store.files.write(b"half", "payloads", "00", "00" * 32, "1.safetensors")
    with lease(store.files, "tiny"):
        assert [item for item in verify(store.files) if item.fault] == []
        old()
        os.utime(only(tmp_path, "leases/tiny/*"))
        assert len([item for item in verify(store.files) if item.fault]) == 1
