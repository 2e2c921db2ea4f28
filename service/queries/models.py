"""Reading uploaded models and samples."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session

from service.database import ProjectDatabase
from service.database.tables import Job, Model
from service.errors import NotFound
from service.paging import DEFAULT_LIMIT, bad_cursor, decode_cursor, encode_cursor
from service.schemas.models import ModelSchema
from service.schemas.pages import Page

_MIN_PREFIX = 8


def list_models(
    database: ProjectDatabase, *, cursor: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[ModelSchema]:
    """Models, newest first."""
    query = _with_job_counts().order_by(Model.created_at.desc(), Model.id.desc()).limit(limit + 1)
    if cursor:
        created_at, model_id = decode_cursor(cursor, str, str)
        before = _parse_time(str(created_at))
        query = query.where(or_(Model.created_at < before, and_(Model.created_at == before, Model.id < str(model_id))))
    with database.read() as session:
        rows = session.execute(query).all()
    models = [_schema(model, jobs) for model, jobs in rows[:limit]]
    last = models[-1] if len(rows) > limit else None
    return Page(items=models, next_cursor=encode_cursor(last.created_at.isoformat(), last.id) if last else None)


def get_model(database: ProjectDatabase, model_id: str) -> ModelSchema:
    """One model by its id or a prefix of at least eight digits; raises `NotFound` (``model_not_found``)."""
    with database.read() as session:
        model = find_model(session, model_id)
        jobs = session.scalar(select(func.count()).select_from(Job).where(Job.model_id == model.id)) or 0
    return _schema(model, jobs)


def find_model(session: Session, model_id: str) -> Model:
    model = session.scalar(select(Model).where(Model.id == model_id))
    if model is None and _MIN_PREFIX <= len(model_id) < 64 and model_id.isalnum():
        found = session.scalars(select(Model).where(Model.id.startswith(model_id)).limit(2)).all()
        model = found[0] if len(found) == 1 else None
    if model is None:
        raise NotFound(
            f"There is no model {model_id!r}.",
            code="model_not_found",
            hint="Upload it with POST /api/v1/models, or list the models that are here.",
        )
    return model


def _with_job_counts() -> Select[Model, int]:
    jobs = select(func.count()).select_from(Job).where(Job.model_id == Model.id).scalar_subquery()
    return select(Model, jobs)


def _parse_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise bad_cursor() from None


def _schema(model: Model, job_count: int) -> ModelSchema:
    return ModelSchema(
        id=model.id,
        name=model.name,
        filename=model.filename,
        size_bytes=model.size_bytes,
        producer=model.producer,
        ir_version=model.ir_version,
        opset=model.opset,
        node_count=model.node_count,
        inputs=model.inputs,
        outputs=model.outputs,
        created_at=model.created_at,
        job_count=job_count,
    )
