"""How many records there are of each target and workload.

Revision: 0011, after 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "record_counts",
        sa.Column("target_fingerprint", sa.String(length=64), nullable=False),
        sa.Column("workload", sa.String(length=128), nullable=False),
        sa.Column("measured", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["workload"], ["workloads.key"], name=op.f("fk_record_counts_workload_workloads")),
        sa.PrimaryKeyConstraint("target_fingerprint", "workload", name=op.f("pk_record_counts")),
    )
    op.execute(
        "INSERT INTO record_counts (target_fingerprint, workload, measured, failed)"
        " SELECT target_fingerprint, workload, count(latency_us), count(failure) FROM records"
        " GROUP BY target_fingerprint, workload"
    )


def downgrade() -> None:
    op.drop_table("record_counts")
