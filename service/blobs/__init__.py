"""The blob store: bytes under their SHA-256, on local disk or in a bucket."""

from __future__ import annotations

from service.blobs.local import Blob, BlobStore, BlobWriter, StoredBlob
from service.settings import Settings

__all__ = ["Blob", "BlobStore", "BlobWriter", "StoredBlob", "open_blobs"]


def open_blobs(settings: Settings) -> BlobStore:
    """The store that the settings name; raises `ServiceError` where its address is none or its library is missing."""
    if settings.blobs_url is None:
        return BlobStore(settings.blobs_dir)
    from service.blobs.bucket import BucketBlobStore

    return BucketBlobStore(settings.blobs_dir, url=settings.blobs_url, cache_bytes=settings.blob_cache_bytes)
