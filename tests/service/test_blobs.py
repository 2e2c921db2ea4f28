"""One contract for blobs on disk and in a bucket, and what only a bucket has: copies, and ways to be away."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from service.blobs import BlobStore
from service.blobs.bucket import BucketBlobStore
from service.errors import ServiceError, StorageUnavailable
from tests.service.conftest import Served, ended, services_of, start
from tests.signed_in import TestClient

CONTENT = b"content" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["disk", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "disk":
        return BlobStore(tmp_path / "blobs")
    return BucketBlobStore(tmp_path / "copies", url=request.getfixturevalue("bucket"), cache_bytes=10**9)


def test_what_was_put_is_there_once_under_its_hash(store: BlobStore) -> None:
    assert not store.exists(SHA256)
    for _ in range(2):
        blob = store.put_bytes(CONTENT)
        assert (blob.sha256, blob.size_bytes) == (SHA256, len(CONTENT))
    assert store.exists(SHA256)
    assert store.path(SHA256).read_bytes() == CONTENT
    assert [(item.sha256, item.size_bytes) for item in store.items()] == [(SHA256, len(CONTENT))]
    store.check_writable()


def test_what_was_not_kept_leaves_nothing(store: BlobStore) -> None:
    with store.writer() as writer:
        writer.write(CONTENT)
        writer.sync()
    assert not store.exists(SHA256)
    assert not [path for path in store.folder.rglob("*") if path.is_file()]


def test_what_was_deleted_is_gone_and_may_come_again(store: BlobStore) -> None:
    store.put_bytes(CONTENT)
    store.delete(SHA256)
    store.delete(SHA256)
    assert not store.exists(SHA256)
    with pytest.raises(FileNotFoundError):
        store.path(SHA256)
    store.put_bytes(CONTENT)
    assert store.path(SHA256).read_bytes() == CONTENT


def test_what_is_deleted_between_storing_and_keeping_is_there(store: BlobStore) -> None:
    store.put_bytes(CONTENT)
    with store.writer() as writer:
        writer.write(CONTENT)
        writer.store()
        store.delete(SHA256)
        writer.keep()
    assert store.exists(SHA256)


def test_only_hashes_are_names(store: BlobStore) -> None:
    for name in ("../../etc/passwd", "", "A" * 64):
        with pytest.raises(ValueError, match="hexadecimal"):
            store.path(name)


def test_another_machine_reads_what_this_one_wrote(bucket: str, tmp_path: Path) -> None:
    here = BucketBlobStore(tmp_path / "here", url=bucket, cache_bytes=10**9)
    there = BucketBlobStore(tmp_path / "there", url=bucket, cache_bytes=10**9)
    here.put_bytes(CONTENT)
    assert there.path(SHA256).read_bytes() == CONTENT
    assert there.path(SHA256).is_relative_to(tmp_path / "there")


def test_copies_that_were_not_used_for_long_make_room(bucket: str, tmp_path: Path) -> None:
    store = BucketBlobStore(tmp_path / "copies", url=bucket, cache_bytes=len(CONTENT) + 10)
    old = store.put_bytes(b"old" * 500)
    newer = store.put_bytes(b"newer" * 500)
    for age_s, blob in ((9000, old), (8000, newer)):
        os.utime(store.path(blob.sha256), (time.time() - age_s,) * 2)
    BucketBlobStore(tmp_path / "elsewhere", url=bucket, cache_bytes=0).put_bytes(CONTENT)
    store.path(SHA256)
    copies = {path.name for path in (tmp_path / "copies").rglob("*") if path.is_file()}
    assert copies == {SHA256}
    assert store.path(old.sha256).read_bytes() == b"old" * 500


def test_a_copy_is_checked_against_its_name(bucket: str, tmp_path: Path) -> None:
    import obstore
    from obstore.store import S3Store

    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    obstore.put(S3Store(name, prefix=prefix), SHA256, b"something else")
    with pytest.raises(StorageUnavailable, match="not what its name says"):
        BucketBlobStore(tmp_path, url=bucket, cache_bytes=10**9).path(SHA256)


def test_a_bucket_that_is_away_says_so(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("service.blobs.bucket._RETRIES", {"max_retries": 0})
    store = BucketBlobStore(tmp_path, url=bucket, cache_bytes=10**9)
    with pytest.raises(StorageUnavailable, match=bucket):
        store.put_bytes(CONTENT)
    with pytest.raises(StorageUnavailable):
        store.check_writable()


@pytest.mark.parametrize("url", ["http://bucket/x", "s3://", "bucket"])
def test_what_is_no_bucket_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as raised:
        BucketBlobStore(tmp_path, url=url, cache_bytes=0)
    assert raised.value.code == "invalid_blobs_url"


def test_a_job_runs_on_a_bucket(bucket: str, fake: Served, model_file: Path) -> None:
    with fake("succeed", blobs_url=bucket) as client:
        job_id = start(client, model_file)
        assert ended(client, job_id)["state"] == "succeeded"
        stored = {item.sha256 for item in services_of(client).blobs.items()}
        artifacts = client.get(f"/api/v1/jobs/{job_id}/artifacts").json()["items"]
        assert {artifact["sha256"] for artifact in artifacts} <= stored
        assert _download(client, artifacts[0]["id"])
        client.delete(f"/api/v1/jobs/{job_id}")
        left = {item.sha256 for item in services_of(client).blobs.items()}
        assert not {artifact["sha256"] for artifact in artifacts} & left


def _download(client: TestClient, artifact_id: str) -> bytes:
    response = client.get(f"/api/v1/artifacts/{artifact_id}")
    assert response.status_code == 200
    return response.content
