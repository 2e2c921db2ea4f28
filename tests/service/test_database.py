"""The schema: migrations lead to exactly the tables in the code, and the database keeps what it promises."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg.errors
import pytest
from sqlalchemy import JSON, URL, Connection, MetaData, Table, delete, func, inspect, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from service.access.principal import DEFAULT_PROJECT
from service.blobs import BlobStore
from service.database import Database, ProjectDatabase
from service.database.tables import AccessToken, Job, JobEvent, Model, Samples, TrialRecord, Webhook, metadata
from service.database.upgrade import differences, head_revision, migrate, read_revisions, revisions, upgrade
from service.errors import DatabaseUnavailable, ServiceError, StorageFull
from service.queries.artifacts import list_artifacts
from service.queries.jobs import get_job, list_events
from service.queries.records import count_records
from service.queries.trials import list_tasks, list_trials
from service.stores import DatabaseCostModelStore, DatabaseRecordStore
from tests.service.postgresql import PostgresqlServer
from tests.service.tuning import add_job, record, workload
from tuner.cost_model_store import HeldOutPoint


def test_migrations_make_the_tables_of_the_code(database: ProjectDatabase) -> None:
    assert differences(database) == []
    assert read_revisions(database).at_head


def test_a_missing_column_is_a_difference(database: ProjectDatabase) -> None:
    with database.write() as session:
        session.execute(text("ALTER TABLE jobs DROP COLUMN crash"))
    assert any("crash" in difference for difference in differences(database))


def test_fresh_tables_have_the_same_indexes_and_constraints(
    database: ProjectDatabase, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fresh_url: str | URL = f"sqlite:///{tmp_path / 'fresh.sqlite3'}"
    if not database.is_sqlite:
        fresh_url = request.getfixturevalue("postgresql").empty()
    fresh = Database(fresh_url)
    metadata.create_all(fresh.engine)
    migrated, made = inspect(database.engine), inspect(fresh.engine)
    for table in made.get_table_names():
        for look in ("get_indexes", "get_unique_constraints", "get_foreign_keys", "get_check_constraints"):
            found = [sorted(map(_shown, getattr(inspector, look)(table))) for inspector in (migrated, made)]
            assert found[0] == found[1], (table, look)
    fresh.close()


def _shown(value: Any) -> str:
    """What an inspector found, with the text of its SQL."""
    if isinstance(value, dict):
        return str({key: _shown(item) for key, item in value.items()})
    return str(value)


def test_the_chain_goes_down_again(database: ProjectDatabase) -> None:
    with database.change_schema() as connection:
        migrate(connection, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    assert upgrade(database).current == head_revision()
    assert differences(database) == []


def test_rows_of_the_first_revision_are_kept_up_and_down(database: ProjectDatabase) -> None:
    with database.change_schema() as connection:
        migrate(connection, "0001")
        _insert_a_row_everywhere(connection)
        before = _counts(connection)
    assert set(before.values()) == {1}
    for revision in [*revisions(), *reversed(revisions()), head_revision()]:
        with database.change_schema() as connection:
            migrate(connection, revision)
            after = _counts(connection)
        assert after | before == after, revision
    assert differences(database) == []
    assert get_job(database, "j").budget.trials == 8
    assert [task.uses[0].count for task in list_tasks(database, "j")] == [3]
    assert [trial.latency_us for trial in list_trials(database, "j").items] == [5.5]
    assert count_records(database, target_fingerprint="") == (1, 0, 1)
    assert [event.kind for event in list_events(database, "j")] == ["log"]
    assert [artifact.filename for artifact in list_artifacts(database, "j")] == ["b.tar.gz"]


def test_what_one_project_has_is_kept_up_and_down_and_of_several_nothing_goes_down(database: ProjectDatabase) -> None:
    store = DatabaseRecordStore(database, add_job(database, "j"))
    store.add_workload(workload(1))
    store.add([record(1), record(2)])
    with database.write() as session:
        session.execute(delete(TrialRecord).where(TrialRecord.number == 2))
        session.add(Webhook(id="w", url="https://ci.example.com", secret="s"))
        session.add(
            AccessToken(id="t", name="ci", kind="made", scope="read", project="default", secret_sha256="0" * 64)
        )
    with database.whole.of_project("other").write() as session:
        session.add(Samples(id="s", filename="s", size_bytes=1))
    with (
        pytest.raises(RuntimeError, match="1 rows of samples are of other projects"),
        database.change_schema() as found,
    ):
        migrate(found, "0012")
    assert read_revisions(database).at_head
    with database.whole.write() as session:
        session.execute(delete(Samples))
    with database.change_schema() as connection:
        migrate(connection, "0012")
        assert connection.execute(text("SELECT name, scope FROM tokens")).all() == [("ci", "read")]
        assert "project" not in {column["name"] for column in inspect(connection).get_columns("jobs")}
    assert upgrade(database).at_head
    assert differences(database) == []
    assert store.own() == [record(1)]
    with database.read() as session:
        assert session.scalars(select(Webhook.id)).all() == ["w"]
        assert session.scalars(select(AccessToken.project)).all() == ["default"]
        assert session.execute(select(Job.submitted_by, Job.project)).all() == [("", "default")]
    store.add([record(3)])
    with database.read() as session:
        assert session.scalar(select(func.max(TrialRecord.id)).select_from(TrialRecord)) == 3  # 2 was given already


def _insert_a_row_everywhere(connection: Connection) -> None:
    """One row in each table of the first revision, of one job."""
    moment = datetime(2026, 11, 1, 10, tzinfo=UTC)
    rows: dict[str, dict[str, object]] = {
        "models": {"id": "0" * 64, "name": "m", "filename": "m.onnx"},
        "samples": {"id": "1" * 64, "filename": "s.npz"},
        "targets": {"name": "mine", "spec": {"name": "mine"}},
        "workloads": {"key": "w", "module": b"m"},
        "cost_models": {"target_fingerprint": "f", "version": 1},
        "jobs": {"id": "j", "model_id": "0" * 64, "samples_id": "1" * 64, "state": "succeeded", "trials": 8},
        "tasks": {"job_id": "j", "key": "t", "name": "t", "workload": "w", "weight": 3},
        "records": {"job_id": "j", "number": 1, "task": "t", "workload": "w", "latency_us": 5.5, "trace": b"t"},
        "artifacts": {"id": "a", "job_id": "j", "filename": "b.tar.gz"},
        "job_events": {"job_id": "j", "kind": "log", "data": {"level": "info", "message": "hello"}},
        "idempotency_keys": {"key": "k", "job_id": "j"},
    }
    schema = MetaData()
    schema.reflect(connection)
    assert {table.name for table in schema.sorted_tables} == {*rows, "alembic_version"}
    plain: dict[type, object] = {str: "", int: 0, float: 0.0, bool: True, bytes: b"", datetime: moment}
    for name, values in rows.items():
        table = schema.tables[name]
        required = {
            column.name: {} if isinstance(column.type, JSON) else plain[column.type.python_type]
            for column in table.columns
            if not column.nullable and not (column.primary_key and column.type.python_type is int)
        }
        connection.execute(table.insert().values(required | values))


def _counts(connection: Connection) -> dict[str, int]:
    schema = MetaData()
    schema.reflect(connection)
    tables = [table for table in schema.sorted_tables if table.name != "alembic_version"]
    return {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def test_what_calls_a_task_is_kept_up_and_down(database: ProjectDatabase) -> None:
    add_job(database, "j")
    common = {"job_id": "j", "position": 0, "name": "", "workload": "", "flops": 1.0, "tunable": True, "knobs": {}}
    before = [("a", 3, None, None), ("b", 2, "8×8×16→16", "winograd")]
    with database.change_schema() as connection:
        migrate(connection, "0003")
        tasks = Table("tasks", MetaData(), autoload_with=connection)
        for key, weight, choice, way in before:
            connection.execute(tasks.insert().values(**common, key=key, weight=weight, choice=choice, way=way))
        migrate(connection, "0004")
        newer = Table("tasks", MetaData(), autoload_with=connection)
        kept = {row.key: row.uses for row in connection.execute(select(newer.c.key, newer.c.uses))}
        assert kept["a"] == [{"count": 3, "choice": None, "way": None}]
        assert kept["b"] == [{"count": 2, "choice": "8×8×16→16", "way": "winograd"}]
        migrate(connection, "0003")
        again = select(tasks.c.key, tasks.c.weight, tasks.c.choice, tasks.c.way).order_by(tasks.c.key)
        assert [tuple(row) for row in connection.execute(again)] == before


def test_cost_models_of_the_first_revision_are_kept_without_points(database: ProjectDatabase, tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    booster, samples = blobs.put_bytes(b"ubjson"), blobs.put_bytes(b"npz")
    with database.change_schema() as connection:
        migrate(connection, "0001")
        cost_models = Table("cost_models", MetaData(), autoload_with=connection)
        assert "held_out" not in cost_models.columns
        connection.execute(
            cost_models.insert().values(
                target_fingerprint="f",
                version=1,
                features_version=1,
                model_sha256=booster.sha256,
                samples_sha256=samples.sha256,
                size_bytes=6,
                sample_count=100,
                training_set_sha256="ab",
                rank_quality={"pairwise_accuracy": 0.9},
                created_at=datetime(2026, 11, 1, 10, tzinfo=UTC),
            )
        )
    assert upgrade(database).at_head
    assert differences(database) == []
    store = DatabaseCostModelStore(database, blobs)
    loaded = store.load("f")
    assert loaded is not None
    assert (loaded.model, loaded.rank_quality, loaded.held_out) == (b"ubjson", {"pairwise_accuracy": 0.9}, ())
    point = HeldOutPoint(workload=0, measured_log2=-1.0, predicted_log2=0.5)
    assert store.save(replace(loaded, held_out=(point,))) == 2
    newer = store.load("f")
    assert newer is not None
    assert newer.held_out == (point,)
    assert store.restore("f", 1) == 3
    restored = store.load("f")
    assert restored is not None
    assert restored.held_out == ()
    with database.change_schema() as connection:
        migrate(connection, "0001")
        assert connection.scalar(text("SELECT count(*) FROM cost_models")) == 3


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_upgrades_at_once_are_one(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url: str | URL = f"sqlite:///{tmp_path / 'shared.sqlite3'}"
    if kind == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        url = server.empty()
    databases = [Database(url) for _ in range(3)]
    results: list[str | None] = []
    threads = [threading.Thread(target=lambda d=database: results.append(upgrade(d).current)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [head_revision()] * 3
    for database in databases:
        database.close()


def test_sqlite_is_set_up_as_promised(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.sqlite3'}")
    upgrade(database)
    with database.read() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 1, "busy_timeout": 15000, "foreign_keys": 1}
    database.close()


def test_a_database_server_that_is_away_is_told_without_its_password() -> None:
    database = Database("postgresql://me:secret@127.0.0.1:1/tessera")
    with pytest.raises(DatabaseUnavailable) as raised, database.read():
        pass
    assert "127.0.0.1:1" in raised.value.message
    assert "secret" not in str(raised.value) + raised.value.message


@pytest.mark.parametrize("url", ["mysql://localhost/x", "no url", ""])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ServiceError) as raised:
        Database(url)
    assert raised.value.code == "invalid_database_url"
    assert "postgresql://" in raised.value.hint


def test_a_database_of_a_newer_tessera_is_left_alone(database: ProjectDatabase) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ServiceError) as raised:
        upgrade(database)
    assert raised.value.code == "database_too_new"


def test_events_become_visible_in_the_order_of_their_ids(database: ProjectDatabase) -> None:
    add_job(database, "j")

    def add() -> None:
        for _ in range(25):
            with database.write() as session:
                session.add(JobEvent(job_id="j", kind="log", data={}))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    shown: list[int] = []
    working = True
    while working:
        working = any(thread.is_alive() for thread in threads)
        shown += [event.id for event in list_events(database, "j", after=shown[-1] if shown else 0)]
    for thread in threads:
        thread.join()
    assert len(shown) == 100
    assert shown == sorted(shown)


def test_text_that_a_database_does_not_take_is_replaced_and_cut(database: ProjectDatabase) -> None:
    with database.write() as session:
        session.add(Model(id="0" * 64, name="a\0b" + "x" * 300, filename="\ud800.onnx", size_bytes=1))
    with database.read() as session:
        row = session.scalar(select(Model).where(Model.id == "0" * 64))
        assert row is not None
        assert (row.name[:3], len(row.name), row.filename) == ("a\ufffdb", 200, "?.onnx")


def test_numbers_that_json_has_not_are_null(database: ProjectDatabase) -> None:
    add_job(database, "j")
    with database.write() as session:
        session.add(JobEvent(job_id="j", kind="log", data={"a": float("nan"), "b": (1, float("inf"))}))
    assert list_events(database, "j")[0].data == {"a": None, "b": [1, None]}


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.sqlite3'}").of_project(DEFAULT_PROJECT)
    upgrade(database)

    def allow(pages: int) -> None:
        with database.write() as session:
            session.execute(text(f"PRAGMA max_page_count = {pages}"))

    def add() -> None:
        with database.write() as session:
            session.add(Model(id="0" * 64, name="m", filename="m", size_bytes=1, inputs=["x" * 1024**2]))

    allow(1)  # no fewer than there are
    with pytest.raises(StorageFull):
        add()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Model)) == 0
    allow(10**6)
    add()
    database.close()


def test_a_full_disk_of_a_database_server_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.sqlite3'}")
    with pytest.raises(StorageFull), database.write():
        raise OperationalError("INSERT", {}, psycopg.errors.DiskFull("could not extend file"))
    with pytest.raises(OperationalError), database.write():
        raise OperationalError("INSERT", {}, psycopg.errors.LockNotAvailable("too long"))
    database.close()


def test_foreign_keys_hold(database: ProjectDatabase) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Job(id="j", model_id="0" * 64, target="host", target_fingerprint="f", target_spec={}))


def test_an_exception_rolls_the_whole_transaction_back(database: ProjectDatabase) -> None:
    def add_and_fail() -> None:
        with database.write() as session:
            session.add(Model(id="0" * 64, name="m", filename="m", size_bytes=1))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    with database.read() as session:
        assert session.scalar(select(Model)) is None


def test_writers_wait_for_each_other(database: ProjectDatabase) -> None:
    def add(number: int) -> None:
        for index in range(10):
            with database.write() as session:
                # Reads first: a deferred transaction would fail here when another writer came between.
                session.scalar(select(Samples).where(Samples.id == "x"))
                session.add(Samples(id=f"{number}-{index}", filename="s", size_bytes=1))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Samples)) == 40


def test_times_keep_their_zone(database: ProjectDatabase) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5)))
    with database.write() as session:
        session.add(Samples(id="s", filename="s", size_bytes=1, created_at=moment))
    with database.read() as session:
        row = session.scalar(select(Samples).where(Samples.id == "s"))
        assert row is not None
        assert row.created_at == moment
        assert row.created_at.tzinfo is UTC
