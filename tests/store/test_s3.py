"""The store on an S3 server, through errors, silence and latency: right, or stopped with one clear line."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from s3_server import SECRET, S3Server, every, late, refuse
from torch import Tensor

from time_ray.core.errors import StoreError, UserError
from time_ray.store import files as files_module
from time_ray.store.files import Files
from time_ray.store.gc import collect
from time_ray.store.inventory import Inventory, rows
from time_ray.store.lease import lease
from time_ray.store.store import Store
from time_ray.store.verify_store import verify

KEY, OTHER = "ab" * 16, "cd" * 16


def weights(value: float = 1.0) -> dict[str, Tensor]:
    return {"w": torch.full((100, 30), value)}


@pytest.fixture
def store(s3: S3Server) -> Store:
    store = Store(Files(s3.uri("bucket/root")))
    store.files.filesystem.create_dir("bucket")
    return store


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "S3_ATTEMPTS", 1)
    monkeypatch.setattr(files_module, "S3_SILENT_SECONDS", 1.0)
    monkeypatch.setattr(files_module, "PAUSES", (0.01,))


def again(store: Store) -> Store:
    return Store(Files(store.files.uri))


def test_it_works_as_on_a_disk(store: Store, tmp_path: Path) -> None:
    found = []
    for one in (store, Store(Files(str(tmp_path)))):
        one.put(KEY, weights(), {"made": "here"})
        one.record("scores", OTHER, {"accuracy": {"a": 1.0}})
        one.put_checkpoint(OTHER, 7, weights(2.0))
        one.put_checkpoint(OTHER, 9, weights(3.0))
        fresh = again(one)
        got, progress = fresh.get(KEY), fresh.newest_checkpoint(OTHER)
        assert got is not None
        assert progress is not None
        assert torch.equal(got["w"], weights()["w"])
        found.append((progress[0], fresh.keys("weights"), fresh.keys("scores"), rows(Inventory.of(one.files))))
    assert found[0] == found[1]


def test_damage_is_set_aside_and_garbage_goes(store: Store) -> None:
    entry = store.put(KEY, weights(), {})
    store.files.write(b"half of it", str(entry["payload"]))
    assert again(store).get(KEY) is None
    assert again(store).keys("weights") == frozenset()
    assert [file.base_name.partition("-")[0] for file in store.files.list("damaged")] == ["payloads"]
    again(store).put(KEY, weights(), {})
    assert [item for item in verify(store.files) if item.fault] == []
    assert {item.why for item in collect(store.files, None, young=True)} == {"damaged"}
    assert again(store).get(KEY) is not None


def test_a_second_sweep_is_refused(store: Store) -> None:
    refused = pytest.raises(UserError, match="sweep 'tiny' is being run by process")
    with lease(store.files, "tiny"), refused, lease(again(store).files, "tiny"):
        pass
    assert store.files.list("leases", recursive=True) == []


@pytest.mark.parametrize(
    "status",
    ["503 SlowDown", *(pytest.param(s, marks=pytest.mark.nightly) for s in ("500 InternalError", "502 BadGateway"))],
)
def test_passing_errors_are_not_noticed(
    store: Store, s3: S3Server, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "PAUSES", (0.01, 0.01))
    with s3.troubled(every(3, status.replace("Error", " Error"), status.split()[1])):
        store.put(KEY, weights(), {})
        assert again(store).get(KEY) is not None


def test_latency_changes_nothing(store: Store, s3: S3Server) -> None:
    with s3.troubled(late(0.05)):
        store.put(KEY, weights(), {})
        assert again(store).get(KEY) is not None


@pytest.mark.usefixtures("impatient")
def test_an_outage_is_one_clear_line(store: Store, s3: S3Server) -> None:
    store.put(KEY, weights(), {})
    with s3.troubled(lambda _, respond: refuse(respond)):
        for call in (
            lambda: again(store).get(KEY),
            lambda: again(store).put(OTHER, weights(2.0), {}),
            lambda: again(store).keys("weights"),
            lambda: again(store).newest_checkpoint(KEY),
            lambda: store.files.delete("weights", "nothing"),
        ):
            with pytest.raises(StoreError) as caught:
                call()
            (line,) = str(caught.value).splitlines()
            assert line.startswith("s3://bucket/root/")
            assert line.endswith("see that the storage answers, then run the same command again: it resumes")
            assert SECRET not in line
    assert again(store).get(KEY) is not None  # nothing was taken for damaged
    assert again(store).keys("weights") == {KEY}


@pytest.mark.usefixtures("impatient")
def test_a_server_that_says_nothing_is_given_up(store: Store, s3: S3Server) -> None:
    store.put(KEY, weights(), {})
    with s3.troubled(late(4)), pytest.raises(StoreError, match=r"cannot be listed .*[Tt]imeout"):
        again(store).get(KEY)
    assert again(store).get(KEY) is not None


@pytest.mark.usefixtures("impatient")
def test_half_an_answer_is_no_answer(store: Store, s3: S3Server) -> None:
    entry = store.put(KEY, weights(), {})
    size = int(str(entry["bytes"]))

    def halved(environ: dict, respond: object) -> Iterator[bytes] | None:
        if environ["REQUEST_METHOD"] != "GET" or "payloads" not in environ["PATH_INFO"]:
            return None
        respond("206 Partial Content", [("Content-Length", str(size)), ("Content-Range", f"bytes 0-{size - 1}/{size}")])
        return itertools.repeat(b"x" * (size // 2), 1)

    with s3.troubled(halved), pytest.raises(StoreError, match="cannot be read"):
        again(store).get(KEY)
    assert again(store).get(KEY) is not None


@pytest.mark.usefixtures("impatient")
def test_no_rights_is_no_damage(store: Store, s3: S3Server) -> None:
    store.put(KEY, weights(), {})
    with s3.troubled(lambda _, respond: refuse(respond, "403 Forbidden", "AccessDenied")):
        with pytest.raises(StoreError, match="ACCESS_DENIED"):
            again(store).get(KEY)
        with pytest.raises(UserError, match=r"storage: s3://bucket/root is not writable \(.*ACCESS_DENIED"):
            store.files.check_writable()
    assert again(store).get(KEY) is not None


def test_credentials_belong_into_the_environment() -> None:
    with pytest.raises(UserError, match="must hold no credentials") as caught:
        Files(f"s3://key:{SECRET}@bucket/root?region=us-east-1")
    assert SECRET not in str(caught.value)
    assert "s3://bucket/root" in str(caught.value)
