"""One contract for every `RecordStore`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.access.principal import DEFAULT_PROJECT
from service.database import Database
from service.queries.records import count_records
from service.queries.trials import list_trials
from service.stores import DatabaseRecordStore
from tests.service.tuning import FINGERPRINT, add_job, record, workload
from tuner.records import FailureKind, MemoryRecordStore, RecordStore

Stores = Callable[[], RecordStore]


@pytest.fixture(params=["memory", "database"])
def store(request: pytest.FixtureRequest, database: Database) -> RecordStore:
    store: RecordStore
    store = MemoryRecordStore() if request.param == "memory" else DatabaseRecordStore(database, add_job(database, "j"))
    store.add_workload(workload(1))
    store.add_workload(workload(2))
    return store


def test_own_returns_what_was_added_in_order_and_unchanged(store: RecordStore) -> None:
    added = [record(1), record(2, failure=FailureKind.RUN_TIMEOUT), record(3, of=2)]
    store.add(added[:2])
    store.add(added[2:])
    assert store.own() == added


def test_records_of_unknown_workloads_are_refused_all_together(store: RecordStore) -> None:
    with pytest.raises(KeyError, match="workload-9"):
        store.add([record(1), record(2, of=9)])
    assert store.own() == []


def test_a_known_workload_may_come_again(store: RecordStore) -> None:
    store.add_workload(workload(1))
    store.add([record(1)])
    assert len(store.own()) == 1


def test_adding_nothing_is_nothing(store: RecordStore) -> None:
    store.add([])
    assert store.own() == []


def test_other_targets_and_workloads_stay_apart(store: RecordStore) -> None:
    store.add([record(1), record(2, of=2), record(3, target_fingerprint="another")])
    assert [r.workload for r in store.seen("workload-1", target_fingerprint=FINGERPRINT)] == ["workload-1"]
    assert store.seen("workload-2", target_fingerprint="another") == []
    trained = store.training_set(target_fingerprint=FINGERPRINT, features_version=1, limit=9)
    assert {r.target_fingerprint for r in trained} == {FINGERPRINT}


def test_seen_has_failures_too_oldest_first(store: RecordStore) -> None:
    store.add([record(1), record(2, failure=FailureKind.WRONG_RESULT), record(3)])
    seen = store.seen("workload-1", target_fingerprint=FINGERPRINT)
    assert [r.failure for r in seen] == [None, FailureKind.WRONG_RESULT, None]


def test_training_set_has_features_of_one_version_newest_first(store: RecordStore) -> None:
    store.add([record(1, latency_us=1.0), record(2, latency_us=2.0), record(3, latency_us=3.0)])
    store.add([record(4, features=0), record(5, features_version=2), record(6, failure=FailureKind.RUN_ERROR)])
    trained = store.training_set(target_fingerprint=FINGERPRINT, features_version=1, limit=2)
    assert [r.latency_us for r in trained] == [3.0, 2.0]


def test_a_training_set_that_is_cut_keeps_every_workload(store: RecordStore) -> None:
    store.add([record(1, of=2, latency_us=9.0)])
    store.add([record(number, latency_us=float(number)) for number in range(2, 8)])
    trained = store.training_set(target_fingerprint=FINGERPRINT, features_version=1, limit=3)
    assert sorted(r.latency_us or 0 for r in trained) == [6.0, 7.0, 9.0]


def test_a_workload_with_few_records_leaves_room_to_the_others(store: RecordStore) -> None:
    store.add([record(1, of=2, latency_us=9.0)])
    store.add([record(number, latency_us=float(number)) for number in range(2, 8)])
    trained = store.training_set(target_fingerprint=FINGERPRINT, features_version=1, limit=6)
    assert [r.latency_us for r in trained] == [7.0, 9.0, 6.0, 5.0, 4.0, 3.0]
    everything = store.training_set(target_fingerprint=FINGERPRINT, features_version=1, limit=100)
    assert len(everything) == 7


def test_another_jobs_records_are_seen_but_not_own(database: Database) -> None:
    first, second = (DatabaseRecordStore(database, add_job(database, name)) for name in ("a", "b"))
    first.add_workload(workload(1))
    first.add([record(1)])
    assert second.own() == []
    assert second.seen("workload-1", target_fingerprint=FINGERPRINT) == first.own()


def test_records_are_counted_as_they_are_added(database: Database) -> None:
    store = DatabaseRecordStore(database, add_job(database, "j"))
    store.add_workload(workload(1))
    store.add_workload(workload(2))
    store.add([record(1), record(2, failure=FailureKind.RUN_ERROR)])
    store.add([record(3), record(4, of=2)])
    assert count_records(database, target_fingerprint=FINGERPRINT) == (4, 1, 2)
    assert count_records(database, target_fingerprint="another") == (0, 0, 0)


def test_what_was_added_survives_its_process(database: Database) -> None:
    store = DatabaseRecordStore(database, add_job(database, "j"))
    store.add_workload(workload(1))
    store.add([record(1), record(2)])
    again = Database(database.url)
    assert DatabaseRecordStore(again.of_project(DEFAULT_PROJECT), "j").own() == [record(1), record(2)]
    again.close()


def test_own_records_are_the_jobs_numbered_trials(database: Database) -> None:
    store = DatabaseRecordStore(database, add_job(database, "j"))
    store.add_workload(workload(1))
    store.add([record(1)])
    store.add([record(2), record(3, failure=FailureKind.DEVICE_LOST)])
    trials = list_trials(database, "j").items
    assert [(t.number, t.failure) for t in trials] == [(1, None), (2, None), (3, "device_lost")]
