"""`RecordStore` on the database, for one job."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, func, insert, select

from service.database import Database
from service.database.base import now
from service.database.tables import Task, TrialRecord, Workload
from service.stores.packing import pack_text, to_record, to_row
from tuner.records import Record
from tuner.records import Workload as TunerWorkload


class DatabaseRecordStore:
    """The records of all jobs, with those of job ``job_id`` as its own.

    Own records are numbered from 1 in the order in which they are added: they are the job's trials.
    """

    def __init__(self, database: Database, job_id: str) -> None:
        self._database = database
        self._job_id = job_id

    def add_workload(self, workload: TunerWorkload) -> None:
        with self._database.write() as session:
            if session.get(Workload, workload.key) is None:
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
            unknown = keys - set(session.scalars(select(Workload.key).where(Workload.key.in_(keys))))
            if unknown:
                raise KeyError(f"records of workloads that were not stored: {sorted(unknown)}")
            of_job = select(Task.workload, Task.key).where(Task.job_id == self._job_id, Task.workload.in_(keys))
            tasks = {row.workload: row.key for row in session.execute(of_job)}
            counted = session.scalar(select(func.max(TrialRecord.number)).where(TrialRecord.job_id == self._job_id))
            moment = now()
            session.execute(
                insert(TrialRecord),
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
        age = func.row_number().over(partition_by=TrialRecord.workload, order_by=TrialRecord.id.desc())
        return self._records(
            select(TrialRecord)
            .where(
                TrialRecord.target_fingerprint == target_fingerprint,
                TrialRecord.features_version == features_version,
                TrialRecord.features.is_not(None),
                TrialRecord.latency_us.is_not(None),
            )
            .order_by(age, TrialRecord.id.desc())
            .limit(limit)
        )

    def _of(self, workload: str, target_fingerprint: str) -> Select[TrialRecord]:
        return select(TrialRecord).where(
            TrialRecord.workload == workload, TrialRecord.target_fingerprint == target_fingerprint
        )

    def _records(self, query: Select[TrialRecord]) -> list[Record]:
        with self._database.read() as session:
            return [to_record(row) for row in session.scalars(query)]
