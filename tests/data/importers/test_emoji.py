"""Emoji from packages of npm: verified before they are opened, matched by code or by name. All glyphs are our own."""

import base64
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from archives import tar

from time_ray.data.dataset import Dataset
from time_ray.data.decoding import decode
from time_ray.data.importers import emoji, npm_packages
from time_ray.data.importers.emoji_things import Icons, Thing, matched, things_of
from time_ray.data.importers.npm_packages import Package

Run = Callable[..., Any]
RED, BLUE = (255, 0, 0), (0, 0, 255)
INFO = {"name": "Ours", "author": {"name": "Us"}, "license": {"title": "CC0", "url": "https://example.org"}}


def entry(number: int, subcategory: str, **more: Any) -> dict[str, Any]:
    """As emoji.json lists a thing."""
    name = f"THING {number}"
    return {
        "name": name,
        "unified": f"1F{number:03X}-FE0F",
        "short_names": [f"thing_{number}"],
        "category": "Objects",
        "subcategory": subcategory,
        "added_in": "1.0",
        **more,
    }


def glyph(number: int, colour: tuple[int, int, int]) -> dict[str, str]:
    return {"body": f'<circle id="of-{number}" cx="8" cy="8" r="8" fill="rgb{colour}"/>'}


LISTED = [
    *(entry(number, "red-tool" if number % 2 else "light & video") for number in range(40)),
    *(entry(number, "red-tool", added_in="16.0") for number in range(40, 50)),
    *(entry(number, "light & video", added_in="16.0") for number in range(50, 60)),
    entry(60, "alone"),
    entry(61, "red-tool", category="Flags"),
    entry(62, "red-tool", category="Component"),
    entry(63, "red-tool", unified="1F03F-200D-2640"),
]
FILES: Mapping[str, Mapping[str, Any]] = {
    "things": {"emoji.json": LISTED},
    "round": {  # says of which code points its drawings are; its names are today's
        "icons.json": {
            "icons": {f"round-{number}": glyph(number, RED) for number in range(1, 64)},
            "aliases": {"dot": {"parent": "round-1"}, "turned": {"parent": "round-1", "rotate": 1}},
            "width": 16,
        },
        "chars.json": {"1f000": "dot", **{f"1f{number:03x}": f"round-{number}" for number in range(1, 64)}},
        "info.json": INFO,
    },
    "square": {  # says only names, of which one has no hyphens, and one is that of the other style
        "icons.json": {
            "icons": {
                "thing1": glyph(1, BLUE),
                "round-2": glyph(2, BLUE),
                **{f"thing-{number}": glyph(number, BLUE) for number in range(3, 40)},
            }
        },
        "chars.json": {},
        "info.json": INFO,
    },
}


def packed(folder: Path, name: str) -> Package:
    """The package in the folder, as npm has it."""
    members = {f"package/{file}": json.dumps(said).encode() for file, said in FILES[name].items()}
    data = gzip.compress(tar({"package/README.md": b"hello", **members}))
    package = Package(f"@ours/{name}", "1.0.0", f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}")
    (folder / package.file).write_bytes(data)
    return package


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    things, *styles = (packed(folder, name) for name in FILES)
    monkeypatch.setattr(emoji, "THINGS", things)
    monkeypatch.setattr(emoji, "STYLES", dict(zip(list(FILES)[1:], styles, strict=True)))
    monkeypatch.setattr(emoji, "PACKAGES", (things, *styles))
    emoji.read_emoji.cache_clear()
    monkeypatch.chdir(tmp_path)
    return folder


def codes(dataset: Dataset, split: str) -> set[str]:
    found = dataset.split(split)
    return {key.split("/")[1] for key in found.keys(range(len(found)))}


def test_a_dataset_a_style_with_the_same_things_on_the_same_side(packages: Path, time_ray: Run) -> None:
    done = time_ray("data", "import", "emoji", "--packages", packages, "--size", "24", "-o", "drawn", "--jobs", "1")
    assert (done.status, done.out) == (0, "drawn/round\ndrawn/square\n")
    one, other = Dataset.open("drawn/round"), Dataset.open("drawn/square")
    assert one.card.classes == other.card.classes == ("light & video", "red tool")
    assert len(codes(one, "train") | codes(one, "test")) == 60  # all but the flag, the part, the variant, and one alone
    assert len(codes(other, "train") | codes(other, "test")) == 39
    for split in ("train", "test"):
        assert codes(other, split) == codes(one, split) & (codes(other, "train") | codes(other, "test"))
        assert codes(other, split)
    assert "1 × class with nothing to learn or nothing to test, left out" in done.err
    licences = Path("drawn/LICENCES.txt").read_text()
    assert licences.startswith("round: Ours by Us, CC0 (https://example.org), of @ours/round@1.0.0\n")
    split = other.split("train")
    (image,), (captions,), (key,) = split.images([0]), split.captions([0]), split.keys([0])
    picture = decode(image)
    assert picture.size == (24, 24)
    assert (picture.getpixel((12, 12)), picture.getpixel((0, 0))) == (BLUE, (255, 255, 255))
    year, code, style = key.split("/")
    assert (year, style) == ("2015", "square")
    number = int(code.removeprefix("1f"), 16)
    category = "red tool" if number % 2 else "light & video"
    assert captions == (f"{category}: thing {number}", f"{category}, a drawing", f"thing {number}, drawn by Ours")


def test_a_dataset_a_year_of_release(packages: Path, time_ray: Run) -> None:
    """With the drawings of all styles; the stream goes by the years."""
    done = time_ray("data", "import", "emoji", "--packages", packages, "--by", "year", "-o", "drawn", "--jobs", "1")
    assert (done.status, done.out) == (0, "drawn/emoji_2015\ndrawn/emoji_2024\n")
    old, new = Dataset.open("drawn/emoji_2015"), Dataset.open("drawn/emoji_2024")
    assert sum(split.rows for split in old.card.splits.values()) == 40 + 39
    assert sum(split.rows for split in new.card.splits.values()) == 20
    assert not (codes(old, "train") | codes(old, "test")) & (codes(new, "train") | codes(new, "test"))


def test_packages_that_are_missing_or_others_are_never_opened(packages: Path, time_ray: Run) -> None:
    (packages / "ours-round-1.0.0.tgz").write_bytes(gzip.compress(b"\0" * 1000))
    (packages / "ours-square-1.0.0.tgz").unlink()
    done = time_ray("data", "import", "emoji", "--packages", packages, "-o", "drawn")
    assert (done.status, done.out) == (2, "")
    other, missing = done.err.splitlines()
    assert "ours-round-1.0.0.tgz: is not @ours/round@1.0.0 as it was published" in other
    assert "ours-square-1.0.0.tgz: missing; get it by npm pack @ours/square@1.0.0" in missing
    assert not Path("drawn").exists()


def test_a_package_without_what_it_should_hold_is_told(
    packages: Path, time_ray: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoji, "THINGS", emoji.STYLES["round"])
    done = time_ray("data", "import", "emoji", "--packages", packages, "-o", "drawn")
    assert "ours-round-1.0.0.tgz: holds no emoji.json; get @ours/round@1.0.0 anew" in done.err


def pretended_client(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    script = folder / npm_packages.CLIENT
    script.write_text(f"#!{sys.executable}\nimport pathlib, shutil, sys\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_npm_fetches_what_is_not_given(packages: Path, time_ray: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"""
assert sys.argv[1:5] == ["pack", "--ignore-scripts", "--loglevel=error", "--pack-destination"], sys.argv
assert sys.argv[6:] == {[package.spec for package in emoji.PACKAGES]}, sys.argv
shutil.copytree({str(packages)!r}, sys.argv[5], dirs_exist_ok=True)
"""
    pretended_client(packages.parent / "bin", program, monkeypatch)
    done = time_ray("data", "import", "emoji", "-o", "drawn", "--jobs", "1")
    assert (done.status, done.out) == (0, "drawn/round\ndrawn/square\n")


def test_npm_that_fails_or_is_not_there_is_told_in_a_line(
    packages: Path, time_ray: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended_client(packages.parent / "bin", "sys.exit('no such registry\\nmore')", monkeypatch)
    (line,) = time_ray("data", "import", "emoji", "-o", "drawn").err.splitlines()
    assert "npm pack fails (no such registry); see to it, or give --packages FOLDER with ours-things-1.0.0.tgz" in line
    monkeypatch.setenv("PATH", os.devnull)
    (line,) = time_ray("data", "import", "emoji", "-o", "drawn").err.splitlines()
    assert "npm is not installed; install it, or give --packages FOLDER" in line


def test_what_cannot_be_drawn_at_all_is_told_before_anything_is_fetched(
    packages: Path, time_ray: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended_client(packages.parent / "bin", "sys.exit('something was fetched')", monkeypatch)
    (line,) = time_ray("data", "import", "emoji", "--size", "5000", "-o", "drawn").err.splitlines()
    assert "--size 5000: not from 1 to 1024 pixels" in line
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    (line,) = time_ray("data", "import", "emoji", "-o", "drawn").err.splitlines()
    assert "resvg-py, which draws SVG, is not installed; pip install 'time_ray[drawings]'" in line
    assert not Path("drawn").exists()


def test_what_cannot_be_drawn_is_left_out_and_named(
    packages: Path, time_ray: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Icons.of

    def with_a_broken_one(icons: Mapping[str, Any], *more: Any) -> Icons:
        return real({**icons, "icons": {**icons["icons"], "round-1": {"body": "<circle"}}}, *more)

    monkeypatch.setattr(Icons, "of", with_a_broken_one)
    done = time_ray("data", "import", "emoji", "--packages", packages, "-o", "drawn", "--jobs", "1")
    assert done.status == 0
    assert "no drawing" in done.err


def test_a_dataset_that_is_none_is_told(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(emoji.UserError, match="did you mean 'round'"):
        emoji.import_emoji(packages, tmp_path / "out", dataset="rounds")
    with pytest.raises(emoji.UserError, match="--size 5000: not from 1 to 1024 pixels"):
        emoji.import_emoji(packages, tmp_path / "out", dataset="round", size=5000)


def icons(names: list[str], by_code: Mapping[str, str] | None = None) -> Icons:
    return Icons("", "", "", "", {name: f"svg of {name}" for name in names}, by_code or {})


def test_a_name_means_what_it_means_today() -> None:
    """The list calls the face `cat`, but those who say of which code point a drawing is call it cat-face."""
    cat, face = (Thing(code, code, "cats", 2015, frozenset({"cat"})) for code in ("1f408", "1f431"))
    coded = icons(["cat", "cat-face"], {"1f408": "cat", "1f431": "cat-face"})
    found = matched([face, cat], {"coded": coded, "named": icons(["cat", "catface"])})
    assert found["coded"] == {"1f408": "svg of cat", "1f431": "svg of cat-face"}
    assert found["named"] == {"1f408": "svg of cat", "1f431": "svg of catface"}
    assert matched([face, cat], {"coded": coded, "named": icons(["cat"])})["named"] == {"1f408": "svg of cat"}


def test_things_come_by_their_release() -> None:
    found = things_of([entry(5, "x", added_in="14.0"), entry(2, "x", added_in="0.6"), entry(3, "x-y", added_in="2.0")])
    assert [(thing.code, thing.year, thing.category) for thing in found] == [
        ("1f002", 2010, "x"),
        ("1f003", 2015, "x y"),
        ("1f005", 2021, "x"),
    ]
