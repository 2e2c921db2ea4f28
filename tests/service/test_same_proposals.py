"""Where things are kept is no part of a search: the same seed proposes the same, whatever is behind the stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.access.principal import DEFAULT_PROJECT
from service.blobs import BlobStore
from service.blobs.bucket import BucketBlobStore
from service.database import Database
from service.database.upgrade import upgrade
from service.stores import DatabaseCostModelStore, DatabaseRecordStore
from tests.service.postgresql import PostgresqlServer, text_of
from tests.service.tuning import add_job
from tests.tuner.scripted import Bench
from tuner.cost_model_store import CostModelStore, MemoryCostModelStore
from tuner.measure.jobs import Decisions
from tuner.records import MemoryRecordStore, RecordStore
from tuner.request import Budget

TRIALS = 96


@dataclass
class Kept:
    """Stores of one kind: a job's records, and the cost models."""

    records: Callable[[str], RecordStore]
    models: CostModelStore


def in_a_database(database: Database, blobs: BlobStore) -> Kept:
    def records(job_id: str) -> RecordStore:
        return DatabaseRecordStore(database, add_job(database, job_id))

    return Kept(records=records, models=DatabaseCostModelStore(database, blobs))


def in_memory() -> Kept:
    stores: list[MemoryRecordStore] = []

    def records(job_id: str) -> RecordStore:
        stores.append(MemoryRecordStore(earlier=[record for store in stores for record in store.own()]))
        return stores[-1]

    return Kept(records=records, models=MemoryCostModelStore())


def proposals(kept: Kept, scratch: Path) -> list[list[Decisions]]:
    """Of a first job, and of a second one on the same workloads, which begins with what the first one left."""
    found = []
    for number in (1, 2):
        bench = Bench(
            scratch=scratch,
            seed=number,
            names=("often", "once"),
            store=kept.records(f"job-{number}"),
            models=kept.models,
        )
        bench.tuning().run(Budget(trials=TRIALS))
        found.append(bench.builder.proposed)
    return found


@pytest.mark.parametrize("kind", ["sqlite and disk", "postgresql and a bucket"])
def test_two_jobs_propose_what_they_propose_in_memory(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if kind == "sqlite and disk":
        database = Database(f"sqlite:///{tmp_path / 'test.sqlite3'}")
        upgrade(database)
        blobs = BlobStore(tmp_path / "blobs")
    else:
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        database = Database(text_of(server.upgraded()))
        url: str = request.getfixturevalue("bucket")
        blobs = BucketBlobStore(tmp_path / "copies", url=url, cache_bytes=10**9)
    try:
        kept = proposals(in_a_database(database.of_project(DEFAULT_PROJECT), blobs), tmp_path)
    finally:
        database.close()
    assert [len(each) for each in kept] == [TRIALS, TRIALS]
    assert kept == proposals(in_memory(), tmp_path)
    assert not set(kept[0]) >= set(kept[1])
