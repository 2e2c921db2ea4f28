"""What calls a task: several parts of a network may share it, each in one of several ways.

Revision: 0004, after 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TASKS = sa.table(
    "tasks",
    sa.column("job_id", sa.String),
    sa.column("key", sa.String),
    sa.column("weight", sa.Integer),
    sa.column("choice", sa.String),
    sa.column("way", sa.String),
    sa.column("uses", sa.JSON),
)


def upgrade() -> None:
    with op.batch_alter_table("tasks") as batch:
        batch.add_column(sa.Column("uses", sa.JSON(), nullable=False, server_default="[]"))
    connection = op.get_bind()
    for task in connection.execute(sa.select(_TASKS)).mappings().all():
        uses = [{"count": task["weight"], "choice": task["choice"], "way": task["way"]}]
        _set(task, uses=uses)
    with op.batch_alter_table("tasks") as batch:
        batch.alter_column("uses", server_default=None)
        batch.drop_column("way")
        batch.drop_column("choice")
        batch.drop_column("weight")


def downgrade() -> None:
    with op.batch_alter_table("tasks") as batch:
        batch.add_column(sa.Column("weight", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("choice", sa.String(length=128), nullable=True))
        batch.add_column(sa.Column("way", sa.String(length=32), nullable=True))
    for task in op.get_bind().execute(sa.select(_TASKS)).mappings().all():
        first = task["uses"][0] if task["uses"] else {"count": 1, "choice": None, "way": None}
        _set(task, weight=first["count"], choice=first["choice"], way=first["way"])
    with op.batch_alter_table("tasks") as batch:
        batch.alter_column("weight", server_default=None)
        batch.drop_column("uses")


def _set(task: sa.RowMapping, **values: object) -> None:
    where = (_TASKS.c.job_id == task["job_id"]) & (_TASKS.c.key == task["key"])
    op.get_bind().execute(sa.update(_TASKS).where(where).values(**values))
