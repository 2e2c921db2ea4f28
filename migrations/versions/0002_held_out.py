"""Held-out points of a cost model's version: predicted against measured.

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("cost_models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("held_out", sa.JSON(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("cost_models", schema=None) as batch_op:
        batch_op.drop_column("held_out")
