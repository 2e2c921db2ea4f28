"""Blobs in a bucket of an S3 service, with copies of those that were used lately on local disk.

The bucket is what counts: a blob is there, whole, before any row names it. A copy is made when something reads the
blob, and checked against its name on the way. Credentials, endpoint and region are those of the environment
(``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ALLOW_HTTP``).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from service.blobs.local import Blob, BlobStore, BlobWriter, StoredBlob, blob_path, is_sha256
from service.errors import ServiceError, StorageUnavailable

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError
    from obstore.store import S3Store
except ModuleNotFoundError:
    raise ServiceError(
        "A bucket needs a library that is not installed.",
        code="driver_not_installed",
        hint="Install it with: pip install 'tessera[s3]'",
    ) from None

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_CHUNK_BYTES = 8 * 1024**2
# What was read lately may be open by its path in a moment: it stays, whatever the cache's limit says.
_IN_USE_S = 3600.0
_RETRIES: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=30)}


class _Bucket:
    """The objects of one prefix, and one kind of error for everything that goes wrong on the way to them."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not url.startswith("s3://") or not bucket:
            raise ServiceError(
                f"TESSERA_BLOBS_URL is no address of a bucket: {url}",
                code="invalid_blobs_url",
                hint="Use s3://BUCKET or s3://BUCKET/PREFIX, with AWS_ENDPOINT_URL for a service that is not Amazon's.",
            )
        self.url = url
        self._store = S3Store(bucket, prefix=prefix or None, retry_config=_RETRIES)

    def put(self, path: Path, name: str) -> None:
        """Copy a file into the bucket; one that is there already stays as it is."""
        with self._told(), path.open("rb") as file, contextlib.suppress(AlreadyExistsError):
            obstore.put(self._store, name, file)

    def put_bytes(self, content: bytes, name: str) -> None:
        with self._told():
            obstore.put(self._store, name, content)

    def get(self, name: str) -> Iterator[bytes]:
        """The object's bytes in pieces; raises FileNotFoundError."""
        with self._told():
            for chunk in obstore.get(self._store, name).stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def exists(self, name: str) -> bool:
        with self._told():
            try:
                obstore.head(self._store, name)
            except FileNotFoundError:
                return False
            return True

    def delete(self, name: str) -> None:
        with self._told(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def items(self) -> Iterator[StoredBlob]:
        with self._told():
            for item in (item for page in obstore.list(self._store) for item in page):
                if is_sha256(name := str(item["path"])):
                    modified_s = item["last_modified"].timestamp()
                    yield StoredBlob(sha256=name, size_bytes=item["size"], modified_s=modified_s)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
            raise StorageUnavailable(f"The bucket {self.url} cannot be used: {reason}") from error


class BucketBlobWriter(BlobWriter):
    def __init__(self, folder: Path, temporary: Path, bucket: _Bucket) -> None:
        super().__init__(folder, temporary)
        self._bucket = bucket
        self._stored: str | None = None

    def store(self) -> None:
        self.sync()
        if not self._bucket.exists(self.sha256):
            self._bucket.put(self.path, self.sha256)
        self._stored = self.sha256

    def keep(self) -> Blob:
        # It may have been deleted since it was stored, with the last row that named it.
        if self._stored != self.sha256 or not self._bucket.exists(self.sha256):
            self.store()
        return super().keep()


class BucketBlobStore(BlobStore):
    """Blobs in the bucket ``url`` (``s3://bucket/prefix``); ``folder`` has copies, of ``cache_bytes`` at most.

    Whatever cannot reach the bucket raises `StorageUnavailable`.
    """

    def __init__(self, folder: Path, *, url: str, cache_bytes: int) -> None:
        super().__init__(folder)
        self._bucket = _Bucket(url)
        self._cache_bytes = cache_bytes

    def describe(self) -> str:
        return self._bucket.url

    def _new_writer(self, temporary: Path) -> BlobWriter:
        return BucketBlobWriter(self.folder, temporary, self._bucket)

    def path(self, sha256: str) -> Path:
        place = blob_path(self.folder, sha256)
        if place.is_file():
            place.touch()
            return place
        with BlobStore.writer(self) as writer:
            for chunk in self._bucket.get(sha256):
                writer.write(chunk)
            if writer.sha256 != sha256:
                raise StorageUnavailable(f"The object {sha256} in {self._bucket.url} is not what its name says.")
            BlobWriter.keep(writer)
        self.trim()
        return place

    def exists(self, sha256: str) -> bool:
        return self._bucket.exists(blob_path(self.folder, sha256).name)

    def delete(self, sha256: str) -> None:
        self._bucket.delete(sha256)
        super().delete(sha256)

    def items(self) -> Iterator[StoredBlob]:
        yield from self._bucket.items()

    def check_writable(self) -> None:
        super().check_writable()
        name = f"ready-{uuid.uuid4().hex}"
        self._bucket.put_bytes(b"ready?", name)
        self._bucket.delete(name)

    def trim(self) -> None:
        """Remove copies that were not used for longest, until the rest keeps to the limit."""
        copies = sorted(super().items(), key=lambda copy: copy.modified_s)
        too_many = sum(copy.size_bytes for copy in copies) - self._cache_bytes
        for copy in copies:
            if too_many <= 0 or time.time() - copy.modified_s < _IN_USE_S:
                return
            super().delete(copy.sha256)
            too_many -= copy.size_bytes
