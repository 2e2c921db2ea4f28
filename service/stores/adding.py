"""New records, and beside them how many there are: counting millions of rows anew takes seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from service.database.tables import RecordCount, TrialRecord
from service.database.wall import project_of


def insert_records(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows (`service.stores.packing.to_row`) into the session's project and count them, in the transaction of a
    writer."""
    own = {"project": project_of(session)}
    session.execute(insert(TrialRecord), [row | own for row in rows])
    measured: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for row in rows:
        kind = measured if row["failure"] is None else failed
        kind[row["target_fingerprint"], row["workload"]] += 1
    for fingerprint, workload in measured.keys() | failed.keys():
        more = {"measured": measured[fingerprint, workload], "failed": failed[fingerprint, workload]}
        known = session.scalar(
            update(RecordCount)
            .where(RecordCount.target_fingerprint == fingerprint, RecordCount.workload == workload)
            .values(measured=RecordCount.measured + more["measured"], failed=RecordCount.failed + more["failed"])
            .returning(RecordCount.workload)
            .execution_options(synchronize_session=False)
        )
        if known is None:
            counted = {"target_fingerprint": fingerprint, "workload": workload}
            session.execute(insert(RecordCount).values(**own, **counted, **more))
