"""Reading cost models: their versions and rank quality."""

from __future__ import annotations

from sqlalchemy import select

from service.api.schemas import CostModelDetail, CostModelSchema
from service.database import Database
from service.database.tables import CostModel
from service.errors import NotFound
from service.queries.targets import all_targets


def list_cost_models(database: Database) -> list[CostModelSchema]:
    """The newest version of every target's cost model."""
    names = {target.fingerprint: target.name for target in all_targets(database)}
    with database.read() as session:
        rows = session.scalars(select(CostModel).order_by(CostModel.target_fingerprint, CostModel.version)).all()
    last = {row.target_fingerprint: row for row in rows}
    return [_schema(row, names.get(row.target_fingerprint)) for row in last.values()]


def get_cost_model(database: Database, target: str) -> CostModelDetail:
    """All versions for a target's name or fingerprint; raises `NotFound` (``cost_model_not_found``)."""
    names = {spec.fingerprint: spec.name for spec in all_targets(database)}
    fingerprint = fingerprint_of(database, target)
    with database.read() as session:
        rows = session.scalars(
            select(CostModel).where(CostModel.target_fingerprint == fingerprint).order_by(CostModel.version.desc())
        ).all()
    if not rows:
        raise NotFound(
            f"There is no cost model for target {target!r}.",
            code="cost_model_not_found",
            hint="The first job that tunes for the target trains one.",
        )
    versions = [_schema(row, names.get(fingerprint)) for row in rows]
    return CostModelDetail(**versions[0].model_dump(), versions=versions)


def fingerprint_of(database: Database, target: str) -> str:
    """The fingerprint of a target that is given by its name, or by the fingerprint itself."""
    return next((spec.fingerprint for spec in all_targets(database) if spec.name == target), target)


def _schema(row: CostModel, target: str | None) -> CostModelSchema:
    return CostModelSchema(
        target=target,
        target_fingerprint=row.target_fingerprint,
        version=row.version,
        features_version=row.features_version,
        sample_count=row.sample_count,
        training_set_sha256=row.training_set_sha256,
        rank_quality=row.rank_quality,
        size_bytes=row.size_bytes,
        created_at=row.created_at,
    )
