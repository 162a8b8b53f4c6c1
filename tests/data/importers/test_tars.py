"""Tars of strangers: plain files are read, everything else is named, nothing hangs, nothing leads outside."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import tar

from time_ray.data.importers import tars
from time_ray.data.importers.tars import TarFault, contents, index

KINDS = {
    "hard link": tarfile.LNKTYPE,
    "symbolic link": tarfile.SYMTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
}


def read(path: Path) -> tuple[dict[str, bytes], list[TarFault]]:
    """What both ways to read a tar agree on."""
    streamed = list(contents(path))
    found = dict(member for member in streamed if not isinstance(member, TarFault))
    tar_faults = [member for member in streamed if isinstance(member, TarFault)]
    if not path.name.endswith(".gz"):
        places, also_unfit = index(path)
        assert [member[:2] for member in also_unfit] == [member[:2] for member in tar_faults]
        assert {name: place.read() for name, place in places.items() if name in found} == found
    return found, tar_faults


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_plain_files_are_read_whatever_the_form(tmp_path: Path, form: int) -> None:
    members = {"a.png": b"one", "deep/" * 20 + "b.txt": b"", "c" * 90: bytes(range(256)) * 5}
    if form != tarfile.USTAR_FORMAT:
        members |= {"d" * 300: b"long", "ünï/çödé.jpg": b"text"}
    (tmp_path / "x.tar").write_bytes(tar(members, form))
    assert read(tmp_path / "x.tar") == (members, [])


def test_a_gzipped_tar_is_read_in_order(tmp_path: Path) -> None:
    members = {f"{number}.png": bytes([number]) * 1000 for number in range(20)}
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar(members)))
    assert [name for name, _ in contents(tmp_path / "x.tar.gz")] == list(members)
    assert read(tmp_path / "x.tar.gz") == (members, [])


@pytest.mark.parametrize("name", ["../up.png", "a/../../up.png", "/etc/passwd", "a/.."])
def test_a_path_that_leads_outside_is_named_and_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.tar").write_bytes(tar({name: b"bad", "good.png": b"good"}))
    found, (fault,) = read(tmp_path / "x.tar")
    assert found == {"good.png": b"good"}
    assert (fault.name, fault.kind) == (name, "unsafe path")


def test_links_and_devices_are_named_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar({"good.png": b"good"}, **{k.replace(" ", "-"): v for k, v in KINDS.items()}))
    found, tar_faults = read(tmp_path / "x.tar")
    assert found == {"good.png": b"good"}
    assert {member.kind for member in tar_faults} == {"link or device"}
    assert [member.detail.partition(",")[0] for member in tar_faults] == [f"a {kind}" for kind in KINDS]


def test_folders_and_a_leading_dot_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar({"./in/a.png": b"a"}, **{"./in": tarfile.DIRTYPE}))
    assert read(tmp_path / "x.tar") == ({"in/a.png": b"a"}, [])


@pytest.mark.parametrize("cut", [1, 512, 1024, 1600, 2048, 2500, 9_000])
@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_that_is_cut_off_is_named(tmp_path: Path, cut: int, packed: bool) -> None:
    whole = tar({f"{number}.png": bytes(1000) for number in range(6)})
    end = 6 * (512 + 1024)  # then zeros
    data = whole[: end + 1 - cut]
    path = tmp_path / ("x.tar.gz" if packed else "x.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    found, (fault,) = read(path)
    assert fault.kind == "damaged tar"
    assert len(found) == (end + 1 - cut + 24) // 1536  # of 1024 bytes of data the last 24 are padding


def test_a_cut_off_gzip_stream_is_named(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(20_000)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar({"a.png": b"a", "b.png": noise}))[:-5000])
    found, (fault,) = read(tmp_path / "x.tar.gz")
    assert (found, fault.kind) == ({"a.png": b"a"}, "damaged tar")


def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar at all" * 100)
    assert [fault.kind for fault in read(tmp_path / "x.tar")[1]] == ["damaged tar"]


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "IMAGE_BYTES", 10_000)
    bomb = tar({"a.png": b"a", "bomb.png": bytes(5_000_000), "b.png": b"b"})
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(bomb))
    found, tar_faults = read(tmp_path / "x.tar.gz")
    assert found == {"a.png": b"a"}
    assert [member.kind for member in tar_faults] == ["image too large", "damaged tar"]
    (tmp_path / "x.tar").write_bytes(bomb)
    found = dict(member for member in contents(tmp_path / "x.tar") if not isinstance(member, TarFault))
    assert found == {"a.png": b"a", "b.png": b"b"}


@pytest.mark.parametrize("record", [b"99999999 path=x\n", b"-5 path=x\n", b"x path=y\n", b"13 size=-5000\n", b"=" * 99])
def test_a_hostile_header_is_damage(tmp_path: Path, record: bytes) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    data = header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + tar({"a.png": b"a"})
    (tmp_path / "x.tar").write_bytes(data)
    assert [fault.kind for fault in read(tmp_path / "x.tar")[1]] == ["damaged tar"]


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 8 * 1024**3
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    ((fault,),) = (read(tmp_path / "x.tar")[1],)
    assert "a header is too large" in fault.detail


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as written:
        info = tarfile.TarInfo("hole.png")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(2**50)}
        written.addfile(info)
    (tmp_path / "x.tar").write_bytes(stream.getvalue())
    assert [fault.kind for fault in read(tmp_path / "x.tar")[1]] == ["link or device"]


def test_no_damage_is_more_than_a_fault(tmp_path: Path) -> None:
    draw = random.Random(0)
    whole = tar({"a.png": b"a" * 600, "b" * 200: b"b", "c.png": b"c"})
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 4, 16])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / "x.tar").write_bytes(data)
        read(tmp_path / "x.tar")


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_tars_that_were_joined_are_not_half_read_in_silence(tmp_path: Path, ending: str) -> None:
    joined = tar({"a.png": b"one"}) + tar({"b.png": b"two"})
    path = tmp_path / f"x.{ending}"
    path.write_bytes(gzip.compress(joined) if ending.endswith("gz") else joined)
    found, (fault,) = read(path)
    assert found == {"a.png": b"one"}
    assert fault.kind == "data after the end"


def test_zeros_at_the_end_and_what_follows_a_gzip_stream_are_no_data(tmp_path: Path) -> None:
    data = tar({"a.png": b"one"})
    for name, written in (("x.tar", data + bytes(10**6)), ("x.tar.gz", gzip.compress(data) + b"signature")):
        (tmp_path / name).write_bytes(written)
        assert read(tmp_path / name) == ({"a.png": b"one"}, [])


@pytest.mark.parametrize(("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_other_compressions_are_named(tmp_path: Path, pack: Callable[[bytes], bytes], name: str) -> None:
    (tmp_path / "x.tar").write_bytes(pack(tar({"a.png": b"one"})))
    (fault,) = contents(tmp_path / "x.tar")
    assert fault == TarFault("", "tar in another compression", f"of {name}; pack it as a tar, alone or with gzip")
