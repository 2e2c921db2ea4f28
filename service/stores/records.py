"""`RecordStore` on the database, for one job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import aliased

from service.database import ProjectDatabase
from service.database.base import now
from service.database.tables import Task, TrialRecord, Workload
from service.jobs import queue
from service.stores.adding import insert_records
from service.stores.packing import pack_text, to_record, to_row
from tuner.records import Record
from tuner.records import Workload as TunerWorkload


class DatabaseRecordStore:
    """The records of all jobs of a project, with those of job ``job_id`` as its own.

    Own records are numbered from 1 in the order in which they are added: they are the job's trials. With ``attempt``
    only the job's newest attempt may add any (`Superseded`).
    """

    def __init__(self, database: ProjectDatabase, job_id: str, *, attempt: int | None = None) -> None:
        self._database = database
        self._job_id = job_id
        self._attempt = attempt

    def add_workload(self, workload: TunerWorkload) -> None:
        with self._database.write() as session:
            if session.scalar(select(Workload.key).where(Workload.key == workload.key)) is None:
                session.add(
                    Workload(
                        key=workload.key,
                        tvm_version=workload.tvm_version,
                        name=workload.name,
                        flops=workload.flops,
                        module=pack_text(workload.module_json),
                    )
                )

    def add(self, records: Sequence[Record]) -> None:
        if not records:
            return
        keys = {record.workload for record in records}
        with self._database.write() as session:
            if self._attempt is not None:
                queue.require_newest(session, self._job_id, attempt=self._attempt)
            unknown = keys - set(session.scalars(select(Workload.key).where(Workload.key.in_(keys))))
            if unknown:
                raise KeyError(f"records of workloads that were not stored: {sorted(unknown)}")
            of_job = select(Task.workload, Task.key).where(Task.job_id == self._job_id, Task.workload.in_(keys))
            tasks = {row.workload: row.key for row in session.execute(of_job)}
            counted = session.scalar(
                select(func.max(TrialRecord.number)).select_from(TrialRecord).where(TrialRecord.job_id == self._job_id)
            )
            moment = now()
            insert_records(
                session,
                [
                    to_row(
                        record,
                        job_id=self._job_id,
                        number=number,
                        task=tasks.get(record.workload, record.workload),
                    )
                    | {"created_at": moment}
                    for number, record in enumerate(records, start=(counted or 0) + 1)
                ],
            )

    def seen(self, workload: str, *, target_fingerprint: str) -> list[Record]:
        return self._records(self._of(workload, target_fingerprint).order_by(TrialRecord.id))

    def own(self) -> list[Record]:
        return self._records(select(TrialRecord).where(TrialRecord.job_id == self._job_id).order_by(TrialRecord.number))

    def training_set(self, *, target_fingerprint: str, features_version: int, limit: int) -> list[Record]:
        """The newest record of every workload, then the second newest of each, and so on.

        What is read is about as much as is returned, however many records there are: an index leads to the newest of
        each workload, and how many of each are enough is found by doubling.
        """

        def usable(table: type[TrialRecord]) -> ColumnElement[bool]:
            return and_(
                table.target_fingerprint == target_fingerprint,
                table.features_version == features_version,
                table.features.is_not(None),
                table.latency_us.is_not(None),
            )

        last = aliased(TrialRecord)
        of_workload = select(last.id).where(last.workload == Workload.key, usable(last)).order_by(last.id.desc())
        with self._database.read() as session:
            workloads = session.scalar(select(func.count()).select_from(Workload).where(of_workload.limit(1).exists()))
            newest = -(-limit // workloads) if workloads else 0
            while newest:
                since = select(
                    Workload.key, of_workload.offset(newest - 1).limit(1).scalar_subquery().label("id")
                ).where(of_workload.limit(1).exists())
                # Where a workload has fewer than that there is no such id, and all of them are taken.
                of_each = since.cte("since").prefix_with("MATERIALIZED")
                taken = and_(usable(TrialRecord), TrialRecord.id >= func.coalesce(of_each.c.id, 0))
                each = select(TrialRecord).join(of_each, of_each.c.key == TrialRecord.workload).where(taken)
                count = session.scalar(each.with_only_columns(func.count(), maintain_column_froms=True)) or 0
                if count >= limit or not session.scalar(select(func.count(of_each.c.id))):
                    rows = session.scalars(each).all()  # sorted here: an order would lead SQLite to read them all
                    return [to_record(row) for row in _by_age(rows)[:limit]]
                newest *= 2
        return []

    def _of(self, workload: str, target_fingerprint: str) -> Select[TrialRecord]:
        return select(TrialRecord).where(
            TrialRecord.workload == workload, TrialRecord.target_fingerprint == target_fingerprint
        )

    def _records(self, query: Select[TrialRecord]) -> list[Record]:
        with self._database.read() as session:
            return [to_record(row) for row in session.scalars(query)]


def _by_age(rows: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The newest of every workload first, then the second newest ones, and so on."""
    ages: Counter[str] = Counter()
    aged = []
    for row in sorted(rows, key=lambda row: -row.id):
        aged.append((ages[row.workload], -row.id, row))
        ages[row.workload] += 1
    return [row for _, _, row in sorted(aged, key=lambda each: each[:2])]
