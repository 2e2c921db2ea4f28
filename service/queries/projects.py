"""Which projects there are: those that have something, and those that somebody has a token of."""

from __future__ import annotations

from sqlalchemy import select, union

from service.database import Database
from service.database.tables import AccessToken, CostModel, Model, Samples, Workload


def list_projects(database: Database) -> list[str]:
    """Their names, in order. Jobs have models, and records have workloads."""
    tables = (AccessToken, Model, Samples, Workload, CostModel)
    with database.read() as session:
        return sorted(session.scalars(union(*(select(table.project) for table in tables))))
