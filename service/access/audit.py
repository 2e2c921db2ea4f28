"""The log of changes: who asked for what, when, from where, and what came of it. Rows are added, and nothing else."""

from __future__ import annotations

import logging

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service.access.principal import Principal
from service.database import Database
from service.database.tables import AuditEntry
from service.errors import ServiceError
from service.paging import DEFAULT_LIMIT, decode_cursor, encode_cursor
from service.schemas.access import AuditEntrySchema
from service.schemas.pages import Page

_log = logging.getLogger("tessera")


def record(
    database: Database, principal: Principal, *, address: str, method: str, path: str, status: int | None = None
) -> None:
    """Add an entry. A change is not undone because it cannot be noted (the disk is full): the server's log has it."""
    entry = AuditEntry(
        who=principal.name, token_id=principal.token_id, address=address, method=method, path=path, status=status
    )
    try:
        with database.write() as session:
            session.add(entry)
    except (ServiceError, SQLAlchemyError) as error:
        _log.error("Not in the audit log (%s): %s %s by %s", type(error).__name__, method, path, principal.name)


def list_audit(database: Database, *, cursor: str | None = None, limit: int = DEFAULT_LIMIT) -> Page[AuditEntrySchema]:
    """The newest first; raises `Invalid` (``invalid_cursor``)."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit + 1)
    if cursor:
        query = query.where(AuditEntry.id < decode_cursor(cursor, int)[0])
    with database.read() as session:
        rows = session.scalars(query).all()
        items = [AuditEntrySchema.model_validate(row, from_attributes=True) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id) if len(rows) > limit else None)
