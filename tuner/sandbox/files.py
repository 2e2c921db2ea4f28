"""Folders that confined processes have written in, as their owner may handle them: nothing in there is trusted."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_ENTRIES = 200_000


class UntrustedFile(Exception):
    """A file is not what it has to be; the message says why."""


def fresh_folder(folder: Path) -> None:
    """An empty folder that only its owner may enter, with its parents, in the place of whatever was there."""
    remove_tree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)


def remove_tree(folder: Path) -> None:
    """Remove a folder, or what stands there. What cannot be removed is left, without an error.

    As deep as it may be: a folder in it is moved up before it is emptied, where `shutil.rmtree` would run out of stack
    or of file descriptors.
    """
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            os.unlink(folder)
            return
        top = os.open(folder, _FOLDER)
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(folder)


def _empty(top: int) -> None:
    names = (f".removed-{number}" for number in itertools.count())
    while folders := _remove_files(top):
        for name in folders:
            inner = _opened(name, top)
            try:
                for deeper in _remove_files(inner):
                    _unlock(deeper, inner)
                    os.rename(deeper, _free(names, top), src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _opened(name: str, top: int) -> int:
    _unlock(name, top)
    return os.open(name, _FOLDER, dir_fd=top)


def _unlock(name: str, folder: int) -> None:
    """Of a folder that its owner locked, on purpose perhaps: neither entered nor moved."""
    with contextlib.suppress(PermissionError):
        os.chmod(name, 0o700, dir_fd=folder)


def _free(names: Iterator[str], folder: int) -> str:
    for name in names:
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return name
    raise AssertionError("there is always another name")


def _remove_files(folder: int) -> list[str]:
    """Remove what is no folder; the names of the folders."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return folders


def used_bytes(folder: Path, *, most_entries: int = _MOST_ENTRIES) -> int | None:
    """What the files of a folder take of the disk; None where there are more entries than anybody needs, or they lie
    too deep to be named."""
    total, entries, waiting = 0, 0, [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entries > most_entries:
                        return None
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError:
            return None
    return total


@contextlib.contextmanager
def opened(folder: Path, name: str, *, most_bytes: int) -> Iterator[BinaryIO]:
    """A plain file that lies right in the folder, for reading. Raises `UntrustedFile` for a link, a device or a pipe, a
    file that has other names too, or is larger than ``most_bytes``, and where there is none."""
    try:
        holder = os.open(folder, _FOLDER)
        try:
            # Opening a pipe would wait for its writer.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=holder)
        finally:
            os.close(holder)
    except OSError as error:
        raise UntrustedFile(f"{name} cannot be opened: {error.strerror}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UntrustedFile(f"{name} is no plain file")
    with os.fdopen(descriptor, "rb") as file:
        if found.st_nlink != 1:
            raise UntrustedFile(f"{name} has {found.st_nlink} names")
        if found.st_size > most_bytes:
            raise UntrustedFile(f"{name} has {found.st_size} bytes, {most_bytes} are allowed")
        yield file


def copy_tree(source: Path, target: Path) -> None:
    """A copy of a folder of ours, for a confined process to write in."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
