"""Reading cost models: their versions and rank quality."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import defer

from service.database import ProjectDatabase
from service.database.tables import CostModel
from service.errors import NotFound
from service.queries.targets import all_targets
from service.schemas.cost_models import CostModelDetail, CostModelSchema, HeldOutPointSchema
from service.stores.cost_models import held_out_points

# Points are read of one version only: a list stays small.
_VERSIONS = select(CostModel).options(defer(CostModel.held_out, raiseload=True))


def list_cost_models(database: ProjectDatabase) -> list[CostModelSchema]:
    """The newest version of every target's cost model."""
    names = {target.fingerprint: target.name for target in all_targets(database)}
    with database.read() as session:
        rows = session.scalars(_VERSIONS.order_by(CostModel.target_fingerprint, CostModel.version)).all()
    last = {row.target_fingerprint: row for row in rows}
    return [_schema(row, names.get(row.target_fingerprint)) for row in last.values()]


def get_cost_model(database: ProjectDatabase, target: str) -> CostModelDetail:
    """All versions for a target's name or fingerprint, and the newest one's held-out points; raises `NotFound`
    (``cost_model_not_found``)."""
    names = {spec.fingerprint: spec.name for spec in all_targets(database)}
    fingerprint = fingerprint_of(database, target)
    with database.read() as session:
        rows = session.scalars(
            _VERSIONS.where(CostModel.target_fingerprint == fingerprint).order_by(CostModel.version.desc())
        ).all()
        points = session.scalar(
            select(CostModel.held_out)
            .where(CostModel.target_fingerprint == fingerprint)
            .order_by(CostModel.version.desc())
            .limit(1)
        )
    if not rows:
        raise NotFound(
            f"There is no cost model for target {target!r}.",
            code="cost_model_not_found",
            hint="The first job that tunes for the target trains one.",
        )
    versions = [_schema(row, names.get(fingerprint)) for row in rows]
    held_out = [HeldOutPointSchema(**asdict(point)) for point in held_out_points(points)]
    return CostModelDetail(**versions[0].model_dump(), versions=versions, held_out=held_out)


def fingerprint_of(database: ProjectDatabase, target: str) -> str:
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
