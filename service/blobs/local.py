"""The blob store: files on local disk under the SHA-256 of their bytes.

A blob is written to a temporary file beside its place, synchronized, and renamed: it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import StorageFull
from tuner.disk_space import NO_SPACE

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1024**2
# A temporary file of this age belongs to a process that died: the longest upload ends well before.
_ABANDONED_AFTER_S = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Blob:
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class StoredBlob(Blob):
    """``modified_s`` is in seconds since the epoch."""

    modified_s: float


class BlobWriter:
    """One blob being written. It becomes visible with `keep`; without that nothing is left of it.

    What takes long happens in `store`, so that `keep` is a matter of milliseconds: it is called where a lock is held.
    """

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.path = temporary
        self.size_bytes = 0
        self._folder = folder
        self._hash = hashlib.sha256()
        self._file = temporary.open("wb")

    def write(self, *chunks: bytes) -> None:
        """Append; raises `StorageFull`."""
        for chunk in chunks:
            with _storage_full():
                self._file.write(chunk)
            self._hash.update(chunk)
            self.size_bytes += len(chunk)

    def sync(self) -> None:
        """Make what was written durable, and readable at `path`."""
        with _storage_full():
            self._file.flush()
            os.fsync(self._file.fileno())

    @property
    def sha256(self) -> str:
        """Of what was written until now."""
        return self._hash.hexdigest()

    def store(self) -> None:
        """Make what was written durable where blobs are kept."""
        self.sync()

    def keep(self) -> Blob:
        """Put the blob in its place, durably; a blob that is there already stays as it is."""
        sha256 = self.sha256
        place = blob_path(self._folder, sha256)
        with _storage_full():
            self.sync()
            self._file.close()
            if place.exists():
                self.path.unlink()
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                self.path.replace(place)
                _sync_folder(place.parent)
        return Blob(sha256=sha256, size_bytes=self.size_bytes)

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


class BlobStore:
    """Blobs below ``folder``; several processes may use one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)

    def describe(self) -> str:
        return str(self.folder)

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """A new blob; it is discarded when the block ends without `BlobWriter.keep`."""
        with _storage_full():
            handle, name = tempfile.mkstemp(dir=self._temporary)
        os.close(handle)
        writer = self._new_writer(Path(name))
        try:
            yield writer
        finally:
            writer.discard()

    def _new_writer(self, temporary: Path) -> BlobWriter:
        return BlobWriter(self.folder, temporary)

    def put_file(self, path: Path) -> Blob:
        """Store a copy of a file."""
        with path.open("rb") as source, self.writer() as writer:
            while chunk := source.read(_COPY_BYTES):
                writer.write(chunk)
            return writer.keep()

    def put_bytes(self, content: bytes) -> Blob:
        with self.writer() as writer:
            writer.write(content)
            return writer.keep()

    def path(self, sha256: str) -> Path:
        """Where the blob lies; raises FileNotFoundError when it does not."""
        place = blob_path(self.folder, sha256)
        if not place.is_file():
            raise FileNotFoundError(f"no blob {sha256}")
        return place

    def exists(self, sha256: str) -> bool:
        return blob_path(self.folder, sha256).is_file()

    def delete(self, sha256: str) -> None:
        """Remove a blob; one that is not there is no error."""
        blob_path(self.folder, sha256).unlink(missing_ok=True)

    def items(self) -> Iterator[StoredBlob]:
        """Every blob, in no order."""
        for path in self.folder.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(FileNotFoundError):
                if is_sha256(path.name):
                    status = path.stat()
                    yield StoredBlob(sha256=path.name, size_bytes=status.st_size, modified_s=status.st_mtime)

    def check_writable(self) -> None:
        """Raises OSError when nothing can be written."""
        with self.writer() as writer:
            writer.write(b"ready?")
            writer.sync()

    def remove_abandoned(self) -> int:
        """Remove temporary files that dead processes left; returns how many."""
        removed = 0
        for path in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()
                    removed += 1
        return removed


def is_sha256(name: str) -> bool:
    return _SHA256.fullmatch(name) is not None


def blob_path(folder: Path, sha256: str) -> Path:
    if not is_sha256(sha256):
        raise ValueError("a blob is named by 64 hexadecimal digits")
    return folder / sha256[:2] / sha256[2:4] / sha256


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _storage_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull("There is no space left in the data directory.") from error
        raise
