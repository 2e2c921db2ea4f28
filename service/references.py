"""Which rows need a blob. A blob that none needs is deleted with the row that named it last."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from service.blobs import BlobStore
from service.database.tables import Artifact, CostModel, Model, Samples


def delete_unreferenced(session: Session, blobs: BlobStore, candidates: Iterable[str]) -> None:
    """Delete those of the blobs that no row names. To be called in the transaction that deleted the rows.

    The writer's lock is held, so no upload can name one of them meanwhile (`service.uploads` looks again, holding
    the same lock, whether its blob is still there).
    """
    for sha256 in candidates:
        needed = session.scalar(
            select(
                or_(
                    exists().where(Model.id == sha256),
                    exists().where(Samples.id == sha256),
                    exists().where(Artifact.sha256 == sha256),
                    exists().where(CostModel.model_sha256 == sha256),
                    exists().where(CostModel.samples_sha256 == sha256),
                )
            )
        )
        if not needed:
            blobs.delete(sha256)
