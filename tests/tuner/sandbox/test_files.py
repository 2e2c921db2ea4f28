"""Folders that strangers have written in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.sandbox.files import UntrustedFile, fresh_folder, opened, remove_tree, used_bytes

KIB = 1024


def test_a_folder_is_fresh_whatever_was_there(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    for number, make in enumerate([lambda path: path.symlink_to(elsewhere), Path.touch, Path.mkdir]):
        folder = tmp_path / "parents" / str(number)
        folder.parent.mkdir(exist_ok=True)
        make(folder)  # type: ignore[no-untyped-call]
        fresh_folder(folder)
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (elsewhere / "kept").exists()


def test_a_tree_is_removed_however_deep_and_locked(tmp_path: Path) -> None:
    top, here = tmp_path / "top", os.getcwd()
    top.mkdir()
    (top / ".removed-0").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    os.chdir(top)
    try:
        for _ in range(2500):
            os.mkdir("a")
            os.mkdir("b")
            os.symlink(outside, "link")
            os.mkfifo("pipe")
            os.chmod("b", 0)
            os.chdir("a")
    finally:
        os.chdir(here)
    assert used_bytes(top, most_entries=10**6) is None  # too deep to be named
    remove_tree(top)
    assert not top.exists()
    assert (outside / "kept").exists()
    remove_tree(top)


def test_use_counts_what_is_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(64 * KIB))
    os.truncate(os.open(tmp_path / "sparse", os.O_CREAT | os.O_WRONLY), 10**12)
    found = used_bytes(tmp_path)
    assert found is not None
    assert 64 * KIB <= found < 1024 * KIB
    assert used_bytes(tmp_path, most_entries=2) is None


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "two names", "large", "none"])
def test_only_a_plain_file_is_opened(tmp_path: Path, what: str) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    other.write_bytes(b"content")
    match what:
        case "link":
            file.symlink_to(other)
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "two names":
            file.hardlink_to(other)
        case "large":
            file.write_bytes(bytes(KIB))
    with pytest.raises(UntrustedFile), opened(tmp_path, "file", most_bytes=KIB - 1):
        pass


def test_a_plain_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with opened(tmp_path, "file", most_bytes=7) as found:
        assert found.read() == b"content"
