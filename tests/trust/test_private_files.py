"""What we make on a machine that others use: they can neither read it, nor plant what we would read."""

import os
from pathlib import Path

import pytest
from neighbour import as_nobody, open_folder

from time_ray.cluster import ray_process
from time_ray.core.errors import UserError
from time_ray.private_files import close_to_others, emptied_folder, has_other_users, own_file, private_folder


def test_a_private_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    assert private_folder(tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "new").chmod(0o777)
    assert private_folder(tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "new" / "file").touch()
    assert list(emptied_folder(tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("kind", ["a link", "a file", "a folder of another user"])
def test_what_somebody_planted_is_no_private_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "planted"
    if kind == "a link":
        path.symlink_to(tmp_path)
    elif kind == "a file":
        path.touch()
    else:
        path.mkdir()
        if os.geteuid() != 0:
            pytest.skip("needs root")
        os.chown(path, 65534, 65534)
    with pytest.raises(UserError, match="is no folder of yours"):
        private_folder(path)


@pytest.mark.parametrize("kind", ["a pipe", "a link", "a file of another user"])
def test_what_is_no_file_of_ours_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.lock"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link":
        path.symlink_to(tmp_path / "other")
        (tmp_path / "other").touch()
    else:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        path.touch()
        os.chown(path, 65534, 65534)
    with pytest.raises((PermissionError, OSError), match=r"user|symbolic"), own_file(path):
        pass


@pytest.mark.timeout(20)
def test_pipes_and_files_of_a_neighbour_do_not_stop_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder:
        assert as_nobody("mkfifo", f"{folder}/tr-01234567.lock").returncode == 0
        assert as_nobody("touch", f"{folder}/tr-abcdefab.lock").returncode == 0
        os.mkfifo(folder / "tr-76543210.lock")
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        with ray_process._folder() as made:
            assert as_nobody("ls", str(made)).returncode != 0
            assert as_nobody("touch", str(made / "planted")).returncode != 0
        assert len(list(folder.iterdir())) == 3


def test_a_token_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    token = tmp_path / "auth_token"
    close_to_others(token)
    token.touch(mode=0o644)
    (tmp_path / "link").symlink_to(token)
    close_to_others(tmp_path / "link")
    assert token.stat().st_mode & 0o077
    close_to_others(token)
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_process_of_another_person_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time_ray.private_files._users", lambda: iter([0, 33, 65534, os.geteuid()]))
    assert not has_other_users()
    monkeypatch.setattr("time_ray.private_files._users", lambda: iter([0, 123456]))
    assert has_other_users()
