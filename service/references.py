"""Which rows need a blob. A blob that none needs is deleted with the row that named it last."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from service.blobs import BlobStore, StoredBlob
from service.database import Database
from service.database.tables import Artifact, CostModel, Model, Samples
from service.errors import StorageUnavailable

log = logging.getLogger(__name__)

_SETTLED_AFTER_S = 24 * 3600
_NAMES = (Model.id, Samples.id, Artifact.sha256, CostModel.model_sha256, CostModel.samples_sha256)


def delete_unreferenced(database: Database, blobs: BlobStore, candidates: Iterable[str]) -> int:
    """Delete those of the blobs that no row of any project names; how many. To be called when the rows are gone for
    good.

    A server that dies before, or a bucket that is away, leaves blobs that nobody names (`unreferenced` finds them),
    never a row without its blob. The writer's lock is held, so no upload can name one of them meanwhile:
    `BlobWriter.keep` looks again, holding the same lock, whether its blob is still there.
    """
    deleted = 0
    for sha256 in candidates:
        with database.whole.write() as session:
            if not _is_named(session, sha256):
                try:
                    blobs.delete(sha256)
                except StorageUnavailable as error:
                    log.warning("a blob that nothing names is left: %s", error.message)
                else:
                    deleted += 1
    return deleted


def unreferenced(database: Database, blobs: BlobStore) -> list[StoredBlob]:
    """The blobs that no row names: left by uploads that were refused, and by processes that died at a bad moment.

    What is younger than a day is left out: its upload, or its job, may be about to name it.
    """
    before_s = time.time() - _SETTLED_AFTER_S
    with database.read() as session:
        return [blob for blob in blobs.items() if blob.modified_s < before_s and not _is_named(session, blob.sha256)]


def missing(database: Database, blobs: BlobStore) -> list[str]:
    """The blobs that rows name and that are not there: lost, or of a backup that was not restored."""
    return sorted(named(database) - {blob.sha256 for blob in blobs.items()})


def named(database: Database) -> set[str]:
    """The blobs that rows name."""
    with database.read() as session:
        return set().union(*(session.scalars(select(column).distinct()) for column in _NAMES))


def _is_named(session: Session, sha256: str) -> bool:
    return bool(session.scalar(select(or_(*(exists().where(column == sha256) for column in _NAMES)))))
