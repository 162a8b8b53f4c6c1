"""With a key, results that somebody else wrote are never trusted; without one nothing changes."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from s3_server import S3Server
from torch import Tensor

from time_ray.cluster.trial import Job
from time_ray.core.errors import StoreError, UserError
from time_ray.store.files import Files
from time_ray.store.gc import collect
from time_ray.store.inventory import Inventory
from time_ray.store.lease import lease
from time_ray.store.sealed import sealed
from time_ray.store.sign_store import sign
from time_ray.store.signing import KEY, start_signing
from time_ray.store.store import Store
from time_ray.store.verify_store import verify

ONE, OTHER, THIRD = "ab" * 16, "cd" * 16, "ef" * 16
SECRET, WRONG = "never-to-be-shown", "never-to-be-known"
TRUE, FORGED = {"accuracy": {"a": 12.5}}, {"accuracy": {"a": 99.9}}


def weights(value: float) -> dict[str, Tensor]:
    return {"w": torch.full((5, 7), value)}


@pytest.fixture(params=["disk", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "disk":
        return Files(str(tmp_path))
    s3: S3Server = request.getfixturevalue("s3")
    Files(s3.uri("bucket")).filesystem.create_dir("bucket")
    return Files(s3.uri("bucket/root"))


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The environment has that key from now on."""
    monkeypatch.delenv(KEY, raising=False)
    return lambda value: monkeypatch.setenv(KEY, value)


def fill(files: Files) -> Store:
    store = Store(files)
    store.put(ONE, weights(1.0), {"recipe": {"kind": "trained", "key": ONE}})
    store.put_scores(OTHER, {"bits": torch.ones(3).numpy()}, TRUE)
    store.record("rates", THIRD, {"model": "toy", "train": 1e-3})
    return store


def forge(files: Files, kind: str, key: str, entry: dict[str, object]) -> str:
    """A co-tenant's entry, in place of any that was there; its path."""
    for file in files.list(kind, key[:2], key):
        files.delete(kind, key[:2], key, file.base_name)
    data = sealed(entry)
    path = f"{kind}/{key[:2]}/{key}/forged-{len(data)}.json"
    files.write(data, path)
    return path


def contents(files: Files) -> dict[str, bytes]:
    root = files.path("")
    return {file.path[len(root) :]: files.read(file.path[len(root) :]) for file in files.list(recursive=True)}


@pytest.fixture
def signed(files: Files, key: Callable[[str], None]) -> Store:
    key(SECRET)
    start_signing(files)
    return fill(files)


def test_what_the_key_has_signed_is_read_with_it_and_without(
    signed: Store, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.put_checkpoint(THIRD, 7, weights(7.0))
    for with_key in (True, False):
        if not with_key:
            monkeypatch.delenv(KEY)
        store = Store(files)
        assert store.get(ONE) is not None
        assert store.arrays(OTHER) is not None
        assert store.entry("rates", THIRD) == {"model": "toy", "train": 1e-3}
        assert (store.newest_checkpoint(THIRD) or (0,))[0] == 7
        assert [item for item in verify(files) if item.fault] == []
        assert list(collect(files, None, dry=True)) == []


def test_without_a_key_anybodys_results_are_taken(files: Files, key: object) -> None:
    fill(files)
    forge(files, "scores", OTHER, FORGED)
    assert Store(files).entry("scores", OTHER) == FORGED


@pytest.mark.usefixtures("signed")
def test_forged_results_are_set_aside_and_named(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    path = forge(files, "scores", OTHER, FORGED)
    with caplog.at_level(logging.WARNING):
        assert Store(files).entry("scores", OTHER) is None
    assert "damaged (is not signed); set aside" in caplog.text
    assert files.find(path) is None
    assert len(files.list("damaged")) == 1


@pytest.mark.usefixtures("signed")
def test_verify_names_what_is_forged(files: Files) -> None:
    signature = {"signature": "0" * 64}
    paths = {
        forge(files, "scores", OTHER, FORGED): "is not signed",
        forge(files, "rates", THIRD, {"model": "toy", "train": 1.0, **signature}): "its signature does not match",
    }
    digest = "11" * 32
    progress = f"progress/{ONE[:2]}/{ONE}/{9:012d}-{digest}-4-1.safetensors"
    files.write(b"evil", progress)
    found = {item.path: item.fault for item in verify(files) if item.fault}
    assert found == {**paths, progress: "is not signed"}
    assert not contents(files).keys() & found.keys()


@pytest.mark.usefixtures("signed")
def test_a_signature_is_for_one_place(files: Files) -> None:
    (file,) = files.list("scores", OTHER[:2], OTHER)
    better = files.read("scores", OTHER[:2], OTHER, file.base_name)
    files.write(better, "scores", THIRD[:2], THIRD, file.base_name)
    assert Store(files).entry("scores", THIRD) is None


def test_step_checkpoints_of_others_are_not_gone_on_from(signed: Store, files: Files) -> None:
    signed.put_checkpoint(ONE, 7, weights(7.0))
    (mine,) = signed.checkpoints(ONE)
    data = files.read("progress", ONE[:2], ONE, mine.name)
    files.write(data, "progress", ONE[:2], ONE, mine.name.replace("000000000007", "000000000009"))
    files.write(data, "progress", OTHER[:2], OTHER, mine.name)
    assert (Store(files).newest_checkpoint(ONE) or (0,))[0] == 7
    assert Store(files).newest_checkpoint(OTHER) is None


def test_another_key_touches_nothing(signed: Store, files: Files, key: Callable[[str], None]) -> None:
    key(WRONG)
    before = contents(files)
    for act in (
        lambda: Store(files).entry("weights", ONE),
        lambda: list(verify(files)),
        lambda: list(collect(files, None, young=True)),
        lambda: list(sign(files)),
        lambda: start_signing(files),
    ):
        with pytest.raises(UserError, match="is signed with another key than TIME_RAY_STORE_KEY holds") as caught:
            act()
        assert WRONG not in str(caught.value)
    assert contents(files) == before
    assert SECRET not in repr(signed.signer)
    assert not [path for path, data in before.items() if SECRET.encode() in data + path.encode()]


def test_a_store_that_was_never_signed_is_not_taken_for_forged(files: Files, key: Callable[[str], None]) -> None:
    fill(files)
    key(SECRET)
    before = contents(files)
    for act in (lambda: Store(files).entry("weights", ONE), lambda: list(verify(files)), lambda: start_signing(files)):
        with pytest.raises(UserError, match="is not signed; run `time-ray store sign` once"):
            act()
    assert contents(files) == before


def test_a_sweep_without_the_key_adds_nothing(signed: Store, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    with pytest.raises(UserError, match="is signed; set TIME_RAY_STORE_KEY to add to it"):
        start_signing(files)


def test_a_worker_without_the_key_writes_nothing(
    signed: Store, files: Files, key: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(plugins=(), installed={}, study=b"", storage=files.uri, mark=signed.mark, coordinator="", umask=0o22)
    assert job.open_store().get(ONE) is not None
    monkeypatch.delenv(KEY)
    with pytest.raises(UserError, match="this worker has not the one of the sweep"):
        job.open_store()
    key(SECRET)
    with pytest.raises(UserError, match="this worker has not the one of the sweep"):
        replace(job, mark=None).open_store()


@pytest.mark.parametrize(("value", "why"), [(None, "is not set"), ("short", "fewer than 16 letters")])
def test_a_store_is_not_signed_without_a_good_key(
    tmp_path: Path, key: Callable[[str], None], value: str | None, why: str
) -> None:
    if value:
        key(value)
    with pytest.raises(UserError, match=why):
        list(sign(Files(str(tmp_path))))


def test_signing_a_store_changes_no_result(files: Files, key: Callable[[str], None]) -> None:
    fill(files).record("scores", OTHER, FORGED)
    standing = Store(files).entry("scores", OTHER)  # one of both
    torn = f"weights/{THIRD[:2]}/{THIRD}/half-99.json"
    files.write(b"half", torn)
    key(SECRET)
    with lease(files, "tiny"), pytest.raises(UserError, match="sweep 'tiny' is being run"):
        list(sign(files))
    told = list(sign(files))
    assert {(entry.kind, entry.key) for entry in told} == {("weights", ONE), ("scores", OTHER), ("rates", THIRD)}
    assert [entry.fault for entry in told] == [None] * 3
    store = Store(files)
    assert store.get(ONE) is not None
    assert store.entry("scores", OTHER) == standing
    assert {item.path: item.fault for item in verify(files) if item.fault} == {torn: "half-written"}
    forge(files, "scores", OTHER, FORGED)
    assert list(sign(files)) == []
    unneeded = {item.why for item in Inventory.of(files).garbage(young=True)}
    assert "damaged, or not signed with this key" in unneeded
    assert Store(files).entry("scores", OTHER) is None


def test_what_is_damaged_is_not_signed(files: Files, key: Callable[[str], None]) -> None:
    entry = fill(files).entry("weights", ONE) or {}
    files.write(b"damaged", str(entry["payload"]))
    key(SECRET)
    assert [told.key for told in sign(files) if told.fault] == [ONE]
    assert Store(files).get(ONE) is None


def test_signing_that_is_killed_goes_on(tmp_path: Path, key: Callable[[str], None]) -> None:
    for point in range(20):
        files = Files(str(tmp_path / str(point)))
        fill(files)
        results = {kind: Store(files).entry(kind, of) for kind, of in (("weights", ONE), ("scores", OTHER))}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(KEY, SECRET)
            left = _killed_at(patch, point)
            with contextlib.suppress(StoreError):
                list(sign(files))
            if not left():
                break
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(KEY, SECRET)
            list(sign(Files(files.uri)))
            store = Store(files)
            assert {kind: store.entry(kind, of) for kind, of in (("weights", ONE), ("scores", OTHER))} == results
            inventory = Inventory.of(files)
            assert all(len(at.whole) == 1 for keys in inventory.entries.values() for at in keys.values())
            assert not [at.torn for keys in inventory.entries.values() for at in keys.values() if at.torn]
    assert 5 < point < 19


def _killed_at(patch: pytest.MonkeyPatch, point: int) -> Callable[[], bool]:
    """The write or removal of that number, and all after it, do not happen; whether any was."""
    count = 0

    def counted(act: Callable[..., None]) -> Callable[..., None]:
        def do(files: Files, *arguments: object) -> None:
            nonlocal count
            if "leases" not in arguments:
                count += 1
                if count > point:
                    raise StoreError("killed")
            act(files, *arguments)

        return do

    for name in ("write", "delete"):
        patch.setattr(Files, name, counted(getattr(Files, name)))
    return lambda: count > point
