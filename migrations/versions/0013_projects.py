"""Projects: whose everything is, and what is named by its content once in each of them. Who started a job.

Revision: 0013, after 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Those first that others refer to.
_TABLES = (
    *("models", "samples", "targets", "workloads", "jobs", "records", "record_counts", "cost_models"),
    *("idempotency_keys", "webhooks", "tokens"),
)
_KEYS = {
    "models": ["id"],
    "samples": ["id"],
    "targets": ["name"],
    "workloads": ["key"],
    "record_counts": ["target_fingerprint", "workload"],
    "cost_models": ["target_fingerprint", "version"],
    "idempotency_keys": ["key"],
}
# Table, column, what it refers to, and by which column.
_REFERENCES = (
    ("jobs", "model_id", "models", "id"),
    ("jobs", "samples_id", "samples", "id"),
    ("records", "workload", "workloads", "key"),
    ("record_counts", "workload", "workloads", "key"),
)
_NEW_INDEXES = {
    "ix_jobs_project_id": ("jobs", ["project", "id"]),
    "ix_jobs_project_submitted_by_started_at": ("jobs", ["project", "submitted_by", "started_at"]),
    "ix_records_workload_target_fingerprint_project_latency_us": (
        "records",
        ["workload", "target_fingerprint", "project", "latency_us"],
    ),
    "ix_records_learned_from": ("records", ["target_fingerprint", "features_version", "workload", "project", "id"]),
}
_OLD_INDEXES = {
    "ix_records_workload_target_fingerprint_latency_us": ("records", ["workload", "target_fingerprint", "latency_us"]),
    "ix_records_target_fingerprint_features_version_workload_id": (
        "records",
        ["target_fingerprint", "features_version", "workload", "id"],
    ),
}
_PARTIAL = {"ix_records_learned_from", "ix_records_target_fingerprint_features_version_workload_id"}
_LEARNED_FROM = sa.text("features IS NOT NULL AND latency_us IS NOT NULL")
_PROJECT, _NAME = sa.String(length=40), sa.String(length=100)


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("project", _PROJECT, nullable=False, server_default="default"))
    op.add_column("jobs", sa.Column("submitted_by", _NAME, nullable=False, server_default=""))
    _drop_indexes(_OLD_INDEXES)
    _let_go_of_keys(new=False)
    for table in _TABLES:
        last_id = _last_record() if table == "records" else None
        with op.batch_alter_table(table, table_kwargs=_options(table)) as batch:
            batch.alter_column("project", existing_type=_PROJECT, existing_nullable=False, server_default=None)
            if table == "jobs":
                batch.alter_column("submitted_by", existing_type=_NAME, existing_nullable=False, server_default=None)
            if table in _KEYS:
                batch.drop_constraint(op.f(f"pk_{table}"), type_="primary")
                batch.create_primary_key(op.f(f"pk_{table}"), ["project", *_KEYS[table]])
            for column, referred, key in _references_of(table):
                if _is_sqlite():
                    batch.drop_constraint(_reference(table, column, referred, new=False), type_="foreignkey")
                name = _reference(table, column, referred, new=True)
                batch.create_foreign_key(name, referred, ["project", column], ["project", key])
        _continue_records_after(last_id)
    _create_indexes(_NEW_INDEXES)


def downgrade() -> None:
    _require_one_project()
    _drop_indexes(_NEW_INDEXES)
    _let_go_of_keys(new=True)
    for table in _TABLES:
        last_id = _last_record() if table == "records" else None
        with op.batch_alter_table(table, table_kwargs=_options(table)) as batch:
            if table in _KEYS:
                batch.drop_constraint(op.f(f"pk_{table}"), type_="primary")
                batch.create_primary_key(op.f(f"pk_{table}"), _KEYS[table])
            for column, referred, key in _references_of(table):
                if _is_sqlite():
                    batch.drop_constraint(_reference(table, column, referred, new=True), type_="foreignkey")
                name = _reference(table, column, referred, new=False)
                batch.create_foreign_key(name, referred, [column], [key])
            batch.drop_column("project")
            if table == "jobs":
                batch.drop_column("submitted_by")
        _continue_records_after(last_id)
    _create_indexes(_OLD_INDEXES)


def _require_one_project() -> None:
    for table in _TABLES:
        rows = op.get_bind().scalar(sa.text(f"SELECT count(*) FROM {table} WHERE project <> 'default'"))
        if rows:
            raise RuntimeError(
                f"{rows} rows of {table} are of other projects, which an earlier Tessera shows to everybody"
            )


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _options(table: str) -> dict[str, bool]:
    """What SQLite does not tell of a table that is made anew."""
    return {"sqlite_autoincrement": True} if table == "records" else {}


def _references_of(table: str) -> list[tuple[str, str, str]]:
    return [(column, referred, key) for of, column, referred, key in _REFERENCES if of == table]


def _reference(table: str, column: str, referred: str, *, new: bool) -> str:
    name: str = op.f(f"fk_{table}_project_{column}_{referred}" if new else f"fk_{table}_{column}_{referred}")
    return name


def _let_go_of_keys(*, new: bool) -> None:
    """PostgreSQL changes no key that something refers to."""
    if not _is_sqlite():
        for table, column, referred, _ in _REFERENCES:
            op.drop_constraint(_reference(table, column, referred, new=new), table, type_="foreignkey")


def _drop_indexes(indexes: dict[str, tuple[str, list[str]]]) -> None:
    for name, (table, _) in indexes.items():
        op.drop_index(op.f(name), table)


def _create_indexes(indexes: dict[str, tuple[str, list[str]]]) -> None:
    for name, (table, columns) in indexes.items():
        where = _LEARNED_FROM if name in _PARTIAL else None
        op.create_index(op.f(name), table, columns, sqlite_where=where, postgresql_where=where)


def _last_record() -> int | None:
    """The last number that SQLite gave to a record, which may be deleted: it is not to be given again."""
    if not _is_sqlite():
        return None
    last: int | None = op.get_bind().scalar(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'records'"))
    return last


def _continue_records_after(last_id: int | None) -> None:
    if last_id is not None:
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'records'")
        op.execute(f"INSERT INTO sqlite_sequence (name, seq) VALUES ('records', {last_id})")
