"""Records on their way in and out: NDJSON, one object a line, each workload before its first record.

``{"kind": "workload", key, tvm_version, name, module_json, flops}`` and ``{"kind": "record", workload,
target_fingerprint, variant, decisions, trace, latency_us | failure, …}``. A bundle's ``records.json`` (one object with
``workloads`` and ``records``) is read too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import select

from service.database import ProjectDatabase
from service.database.tables import TrialRecord, Workload
from service.errors import Invalid
from service.queries.targets import all_targets, get_target
from service.schemas.cost_models import RecordsImported
from service.stores.adding import insert_records
from service.stores.packing import pack_text, to_row, unpack_features, unpack_text
from tuner.records import FailureKind, Record

_BATCH = 500
_MAX_LATENCY_US = 1e12


class WorkloadLine(BaseModel):
    model_config = ConfigDict(extra="ignore")

    kind: Literal["workload"] = "workload"
    key: str = Field(min_length=1, max_length=128)
    tvm_version: str = Field(max_length=32)
    name: str = Field(max_length=255)
    module_json: str
    flops: float = Field(ge=0, allow_inf_nan=False)


class RecordLine(BaseModel):
    model_config = ConfigDict(extra="ignore")

    kind: Literal["record"] = "record"
    workload: str = Field(min_length=1, max_length=128)
    target_fingerprint: str = Field(min_length=1, max_length=64)
    variant: str = Field(max_length=255)
    decisions: list[list[int]] = []
    trace: str
    latency_us: float | None = Field(default=None, gt=0, lt=_MAX_LATENCY_US)
    spread_us: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    failure: FailureKind | None = None
    failure_message: str = ""
    knobs: dict[str, Any] = {}
    features: list[float] = []
    features_version: int = 0
    cost_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _latency_or_failure(self) -> RecordLine:
        if (self.latency_us is None) == (self.failure is None):
            raise ValueError("a record has either latency_us or failure")
        return self

    def record(self) -> Record:
        fields = self.model_dump(exclude={"kind"})
        fields |= {"decisions": tuple(map(tuple, self.decisions)), "features": tuple(self.features)}
        return Record(**fields)


def export_records(database: ProjectDatabase, *, target: str) -> Iterator[str]:
    """The lines of every record of a target (its name or fingerprint), oldest first; raises `NotFound` at once."""
    fingerprints = {spec.fingerprint for spec in all_targets(database)}
    fingerprint = target if target in fingerprints else get_target(database, target).fingerprint
    return _lines(database, fingerprint)


def _lines(database: ProjectDatabase, fingerprint: str) -> Iterator[str]:
    told: set[str] = set()
    last = 0
    while True:
        with database.read() as session:
            rows = session.scalars(
                select(TrialRecord)
                .where(TrialRecord.target_fingerprint == fingerprint, TrialRecord.id > last)
                .order_by(TrialRecord.id)
                .limit(_BATCH)
            ).all()
            new = {row.workload for row in rows} - told
            workloads = session.scalars(select(Workload).where(Workload.key.in_(new)).order_by(Workload.key)).all()
        if not rows:
            return
        for workload in workloads:
            yield (
                WorkloadLine(
                    key=workload.key,
                    tvm_version=workload.tvm_version,
                    name=workload.name,
                    module_json=unpack_text(workload.module),
                    flops=workload.flops,
                ).model_dump_json()
                + "\n"
            )
        told |= new
        for row in rows:
            yield record_line(row).model_dump_json(exclude_none=True) + "\n"
        last = rows[-1].id


def record_line(row: TrialRecord) -> RecordLine:
    return RecordLine(
        workload=row.workload,
        target_fingerprint=row.target_fingerprint,
        variant=row.variant,
        decisions=row.decisions,
        trace=unpack_text(row.trace),
        latency_us=row.latency_us,
        spread_us=row.spread_us,
        failure=FailureKind(row.failure) if row.failure else None,
        failure_message=row.failure_message,
        knobs=row.knobs,
        features=list(unpack_features(row.features)),
        features_version=row.features_version,
        cost_s=row.cost_s,
    )


def parse_records(text: str) -> tuple[list[WorkloadLine], list[RecordLine]]:
    """Both forms; raises `Invalid` (``records_invalid``) that names the first bad entry."""
    workloads: list[WorkloadLine] = []
    records: list[RecordLine] = []
    for number, value in enumerate(_values(text), start=1):
        try:
            if isinstance(value, str):
                value = json.loads(value)
            if isinstance(value, dict) and value.get("kind") == "workload":
                workloads.append(WorkloadLine.model_validate(value))
            else:
                records.append(RecordLine.model_validate(value))
        except (ValueError, TypeError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise Invalid(
                f"Entry {number} is no record: {first}",
                code="records_invalid",
                hint="Import what GET /api/v1/records or a bundle's records.json gave; nothing was stored.",
            ) from None
    return workloads, records


def _values(text: str) -> Iterator[Any]:
    """The lines of NDJSON as text, or the workloads and then the records of a bundle's records.json, parsed."""
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict) and isinstance(whole.get("records"), list):
        yield from ({**item, "kind": "workload"} for item in whole.get("workloads", []) if isinstance(item, dict))
        yield from whole["records"]
    else:
        yield from (line for line in text.splitlines() if line.strip())


def import_records(database: ProjectDatabase, text: str, *, target: str | None = None) -> RecordsImported:
    """Store records and their workloads, all of them or none.

    Every record must be of ``target``, or, without one, of any target known here: raises `Invalid`
    (``target_mismatch``). Records that are here already are skipped.
    """
    workloads, records = parse_records(text)
    known = (
        {get_target(database, target).fingerprint} if target else {spec.fingerprint for spec in all_targets(database)}
    )
    foreign = sorted({record.target_fingerprint for record in records} - known)
    if foreign:
        raise Invalid(
            f"The records were measured on another target ({', '.join(foreign[:3])}).",
            code="target_mismatch",
            hint="Latencies only hold where they were measured: same device, threads and TVM version. "
            "Compare the fingerprints with: tessera targets list",
            details={"fingerprints": foreign, "expected": sorted(known)},
        )
    added = skipped = new_workloads = 0
    with database.write() as session:
        present = set(session.scalars(select(Workload.key)))
        for workload in workloads:
            if workload.key not in present:
                session.add(
                    Workload(
                        key=workload.key,
                        tvm_version=workload.tvm_version,
                        name=workload.name,
                        flops=workload.flops,
                        module=pack_text(workload.module_json),
                    )
                )
                present.add(workload.key)
                new_workloads += 1
        session.flush()
        missing = sorted({record.workload for record in records} - present)
        if missing:
            raise Invalid(
                f"The workload of some records is missing ({missing[0]}).",
                code="records_invalid",
                hint="Every workload comes before its records; nothing was stored.",
            )
        rows = []
        stored = _stored_identities(database, {record.workload for record in records})
        for line in records:
            record = line.record()
            identity = (
                record.workload,
                record.target_fingerprint,
                record.variant,
                hashlib.sha256(record.trace.encode()).hexdigest(),
                record.latency_us,
            )
            if identity in stored:
                skipped += 1
                continue
            stored.add(identity)
            rows.append(to_row(record, job_id=None, number=None, task=""))
            added += 1
        if rows:
            insert_records(session, rows)
    return RecordsImported(workloads=new_workloads, records=added, skipped=skipped)


def _stored_identities(database: ProjectDatabase, workloads: set[str]) -> set[tuple[Any, ...]]:
    query = select(
        TrialRecord.workload,
        TrialRecord.target_fingerprint,
        TrialRecord.variant,
        TrialRecord.trace_sha256,
        TrialRecord.latency_us,
    ).where(TrialRecord.workload.in_(workloads))
    with database.read() as session:
        return {tuple(row) for row in session.execute(query)}
