"""What lies below a folder is found through links, whose loops end; a stamp tells one content from another."""

import os
from pathlib import Path

from time_ray.data.importers.folder_files import file_stamp, files_below


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root, real = tmp_path / "root", tmp_path / "real"
    touch(root / "a/0", real / "deep/1", real / "2")
    (root / "b").symlink_to(real)
    (root / "c").symlink_to(root / "b/deep")
    (root / "a/file").symlink_to(real / "2")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    for name, target in (("a/up", root), ("a/out", tmp_path), ("b/self", real)):
        (root / name).symlink_to(target)
    found = files_below(root)
    assert [str(path.relative_to(root)) for path in found.files] == ["a/0", "a/file", "b/2", "b/deep/1", "c/1", "gone"]
    assert {path.name for path in found.loops} == {"up", "out", "self"}


def test_what_systems_leave_is_passed_over(tmp_path: Path) -> None:
    left = [".git/0", ".DS_Store", "__MACOSX/a/0", "a/@eaDir/0", "a/Thumbs.db", "a/._0"]
    touch(*(tmp_path / name for name in (*left, "a/0")))
    found = files_below(tmp_path)
    assert found.files == (tmp_path / "a/0",)
    assert len(found.hidden) == len(left)


def test_another_file_or_another_byte_is_another_stamp(tmp_path: Path) -> None:
    path, link = tmp_path / "0", tmp_path / "link"
    touch(path, tmp_path / "1")
    link.symlink_to(path)
    before = file_stamp(path)
    assert file_stamp(link) == before
    time = path.stat().st_mtime_ns
    path.write_text("y")
    os.utime(path, ns=(time, time))
    assert file_stamp(path) != before
    link.unlink()
    link.symlink_to(tmp_path / "1")
    assert file_stamp(link) == file_stamp(tmp_path / "1")
