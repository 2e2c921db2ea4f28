"""The roofline of a job's device beside the job; what each of its tasks has to move, and takes without a schedule.

Revision: 0009, after 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("peak_gflops", sa.Double(), nullable=True))
        batch.add_column(sa.Column("bandwidth_gb_s", sa.Double(), nullable=True))
    with op.batch_alter_table("tasks") as batch:
        batch.add_column(sa.Column("traffic_bytes", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("untuned_us", sa.Double(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("tasks") as batch:
        batch.drop_column("untuned_us")
        batch.drop_column("traffic_bytes")
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("bandwidth_gb_s")
        batch.drop_column("peak_gflops")
