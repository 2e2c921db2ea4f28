"""`CostModelStore` on the database and the blob store."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from service.blobs import BlobStore
from service.database import ProjectDatabase
from service.database.base import now
from service.database.tables import CostModel
from tuner.cost_model_store import HeldOutPoint, StoredCostModel


class DatabaseCostModelStore:
    """Of one project. Versions count from 1 for every target fingerprint."""

    def __init__(self, database: ProjectDatabase, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def load(self, target_fingerprint: str) -> StoredCostModel | None:
        with self._database.read() as session:
            row = session.scalar(
                select(CostModel)
                .where(CostModel.target_fingerprint == target_fingerprint)
                .order_by(CostModel.version.desc())
                .limit(1)
            )
        if row is None:
            return None
        return StoredCostModel(
            target_fingerprint=row.target_fingerprint,
            features_version=row.features_version,
            model=self._blobs.path(row.model_sha256).read_bytes(),
            samples=self._blobs.path(row.samples_sha256).read_bytes(),
            sample_count=row.sample_count,
            training_set_sha256=row.training_set_sha256,
            rank_quality=row.rank_quality,
            held_out=held_out_points(row.held_out),
        )

    def save(self, model: StoredCostModel) -> int:
        booster = self._blobs.put_bytes(model.model)
        samples = self._blobs.put_bytes(model.samples)
        with self._database.write() as session:
            newest = session.scalar(
                select(func.max(CostModel.version)).where(CostModel.target_fingerprint == model.target_fingerprint)
            )
            version = (newest or 0) + 1
            session.add(
                CostModel(
                    target_fingerprint=model.target_fingerprint,
                    version=version,
                    features_version=model.features_version,
                    model_sha256=booster.sha256,
                    samples_sha256=samples.sha256,
                    size_bytes=booster.size_bytes,
                    sample_count=model.sample_count,
                    training_set_sha256=model.training_set_sha256,
                    rank_quality=model.rank_quality,
                    held_out=[[point.workload, point.measured_log2, point.predicted_log2] for point in model.held_out],
                )
            )
        return version

    def restore(self, target_fingerprint: str, version: int) -> int | None:
        """Make an earlier version the newest again, as a version of its own, so that going back can be undone; its new
        number, or None where there is no such version. Restoring the newest changes nothing."""
        of_target = select(CostModel).where(CostModel.target_fingerprint == target_fingerprint)
        with self._database.write() as session:
            rows = {row.version: row for row in session.scalars(of_target)}
            if version not in rows or version == max(rows):
                return version if version in rows else None
            columns = {column.key: getattr(rows[version], column.key) for column in CostModel.__table__.columns}
            newest = max(rows) + 1
            session.add(CostModel(**columns | {"version": newest, "created_at": now()}))
        return newest


def held_out_points(rows: Sequence[Sequence[float]] | None) -> tuple[HeldOutPoint, ...]:
    """The points of the column ``held_out``; none for a version from before it existed."""
    return tuple(
        HeldOutPoint(workload=int(workload), measured_log2=measured, predicted_log2=predicted)
        for workload, measured, predicted in rows or ()
    )
