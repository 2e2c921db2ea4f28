"""An index that leads to the newest records of every workload, whose features a cost model learns from.

Revision: 0010, after 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_LEARNED_FROM = sa.text("features IS NOT NULL AND latency_us IS NOT NULL")
_NEW = "ix_records_target_fingerprint_features_version_workload_id"
_OLD = "ix_records_target_fingerprint_features_version"


def upgrade() -> None:
    columns = ["target_fingerprint", "features_version", "workload", "id"]
    op.create_index(_NEW, "records", columns, sqlite_where=_LEARNED_FROM, postgresql_where=_LEARNED_FROM)
    op.drop_index(_OLD, "records")


def downgrade() -> None:
    op.create_index(_OLD, "records", ["target_fingerprint", "features_version"])
    op.drop_index(_NEW, "records")
