"""What others put into a storage, or into the names that its files name, moves and removes nothing outside of it."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from s3_server import S3Server

from time_ray import api
from time_ray.store.files import Files
from time_ray.store.gc import collect
from time_ray.store.inventory import Reachable
from time_ray.store.sealed import sealed
from time_ray.store.store import Store
from time_ray.store.verify_store import verify

KEY, OTHER = "ab" * 16, "cd" * 16
DIGEST = "0" * 64
NOTHING = Reachable(frozenset(), frozenset())
Plant = Callable[[str, dict[str, object]], str]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file beside the storage, which is nobody's but its owner's."""
    path = tmp_path / "victim" / "thesis.json"
    path.parent.mkdir()
    path.write_text("years of work")
    return path


@pytest.fixture
def store(tmp_path: Path, victim: Path) -> Store:
    store = Store(Files(str(tmp_path / "root")))
    store.put(OTHER, {"w": torch.ones(3)}, {})
    return store


def plant(files: Files, kind: str, entry: dict[str, object]) -> str:
    """A well sealed entry of somebody else; its path."""
    data = sealed(entry)
    path = f"{kind}/{KEY[:2]}/{KEY}/planted-{len(data)}.json"
    files.write(data, path)
    return path


CLIMBING = [
    "../victim/thesis.json",
    "payloads/../../victim/thesis.json",
    f"payloads/00/{DIGEST}/../../../../victim/thesis.json",
    f"payloads/00/{DIGEST}/..",
    f"payloads/00/{DIGEST}/.hidden.safetensors",
    f"payloads/11/{DIGEST}/1.safetensors",
    "weights/cd/x",
    "",
    "/etc/passwd",
    "payloads/00/\0",
]


@pytest.mark.parametrize("payload", CLIMBING)
@pytest.mark.parametrize("kind", ["weights", "scores"])
def test_an_entry_that_names_another_file_is_set_aside_itself(
    store: Store, victim: Path, kind: str, payload: str, caplog: pytest.LogCaptureFixture
) -> None:
    files, entry = store.files, {"digest": DIGEST, "bytes": 1, "payload": payload, "accuracy": {}}
    with caplog.at_level(logging.WARNING):
        path = plant(files, kind, entry)
        assert (Store(files).get(KEY) if kind == "weights" else Store(files).arrays(KEY)) is None
    assert "its payload is no file of the store" in caplog.text
    assert files.find(path) is None
    path = plant(files, kind, entry)
    assert [(item.path, item.fault) for item in verify(files) if item.fault] == [
        (path, "its payload is no file of the store")
    ]
    plant(files, kind, entry)
    list(collect(files, NOTHING, young=True))
    assert victim.read_text() == "years of work"


def test_the_same_on_s3(s3: S3Server) -> None:
    outside = Files(s3.uri("bucket"))
    outside.filesystem.create_dir("bucket")
    outside.write(b"years of work", "victim", "thesis.json")
    files = Files(s3.uri("bucket/root"))
    Store(files).put(OTHER, {"w": torch.ones(3)}, {})
    for payload in CLIMBING[:3]:
        plant(files, "weights", {"digest": DIGEST, "bytes": 1, "payload": payload})
    assert {item.fault for item in verify(files) if item.fault} == {"its payload is no file of the store"}
    list(collect(files, NOTHING, young=True))
    assert outside.read("victim", "thesis.json") == b"years of work"


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("payloads/ab", f"{'ab' * 32}/thesis.safetensors"),
        ("weights/ab", f"{KEY}/thesis-13.json"),
        ("scores", f"ab/{KEY}/thesis-13.json"),
        ("progress/ab", f"{KEY}/{9:012d}-{DIGEST}-13-1.safetensors"),
        ("leases/tiny", "thesis.json"),
        ("stops/tiny", "thesis.json"),
        ("damaged", "thesis.json"),
    ],
)
def test_what_a_link_leads_to_is_left_as_it_is(store: Store, tmp_path: Path, link: str, name: str) -> None:
    folder = tmp_path / "elsewhere"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("years of work")
    os.utime(folder / name, (0, 0))
    at = tmp_path / "root" / link
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(folder)
    list(verify(store.files))
    list(collect(store.files, NOTHING, young=True))
    store.files.delete_folder(link)
    assert [path.read_text() for path in folder.rglob("*") if path.is_file()] == ["years of work"]


def test_damage_goes_into_no_folder_that_is_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "damaged").symlink_to(tmp_path / "elsewhere")
    path = plant(store.files, "weights", {})
    assert Store(store.files).entry("weights", KEY) is None
    assert store.files.find(path) is not None
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_storage_behind_a_link_is_one_like_others(store: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "root")
    files = Files(str(tmp_path / "link"))
    path = plant(files, "weights", {})
    assert [item.path for item in verify(files) if item.fault] == [path]
    assert len(files.list("damaged")) == 1


def test_files_that_are_none_of_ours_are_left_alone(store: Store, tmp_path: Path) -> None:
    for name in ("notes/a/ab/x-1.json", "weights/a.b/a.b.c/x-1.json", "progress/ab/abc/thesis.txt", "payloads/readme"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("years of work")
    assert [item.path for item in verify(store.files) if item.fault] == []
    assert {item.path.partition("/")[0] for item in collect(store.files, None, young=True)} <= {"payloads"}
    assert len([path for path in (tmp_path / "root").rglob("*") if path.is_file() and path.stat().st_size == 13]) == 4


def test_links_in_a_circle_end(store: Store, tmp_path: Path) -> None:
    for name in ("one", "weights/one", "weights/two", "data/three", "payloads/four"):
        link = tmp_path / "root" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tmp_path / "root")
    assert [item for item in api.store_verify(store.files.uri) if item.fault] == []
    assert [row["keys"] for row in api.store_list(store.files.uri) if row["kind"] == "weights"] == [1]


def test_a_kind_may_lie_on_another_disk(store: Store, tmp_path: Path) -> None:
    for kind in ("payloads", "weights"):
        (tmp_path / "root" / kind).rename(tmp_path / kind)
        (tmp_path / "root" / kind).symlink_to(tmp_path / kind)
    assert Store(store.files).get(OTHER) is not None
    assert [item for item in verify(store.files) if item.fault] == []
    assert list(collect(store.files, None, young=True)) == []


def test_a_pipe_is_not_waited_for(store: Store, tmp_path: Path) -> None:
    entry = store.entry("weights", OTHER) or {}
    payload = tmp_path / "root" / str(entry["payload"])
    payload.unlink()
    os.mkfifo(payload)
    with pytest.raises(Exception, match="no plain file"):
        Store(store.files).get(OTHER)


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("weights", {"digest": DIGEST, "bytes": 1}),
        ("weights", {"digest": [], "bytes": 1, "payload": {}}),
        ("scores", {}),
        ("scores", {"accuracy": 3}),
        ("scores", {"accuracy": {"a": "<script>"}}),
        ("scores", {"accuracy": {}, "seconds": {"eval": "long"}}),
        ("scores", {"accuracy": {}, "recipe": 3}),
        ("sweeps", {"experiment": "tiny"}),
    ],
)
def test_an_entry_that_readers_would_stumble_over_is_set_aside(
    store: Store, kind: str, entry: dict[str, object]
) -> None:
    path = plant(store.files, kind, entry)
    assert Store(store.files).entry(kind, KEY) is None
    assert store.files.find(path) is None


@pytest.mark.parametrize("body", ["[" * 100_000, "3", "null", "{", '{"a": NaN}', "9" * 5000])
def test_a_seal_around_what_is_no_entry_is_none(store: Store, body: str) -> None:
    data = f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()
    path = f"scores/{KEY[:2]}/{KEY}/planted-{len(data)}.json"
    store.files.write(data, path)
    assert Store(store.files).entry("scores", KEY) is None
    assert store.files.find(path) is None
