"""The schema: migrations lead to exactly the tables in the code, and the database keeps what it promises."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from service.blobs import BlobStore
from service.database import Database
from service.database.tables import Job, Model, Samples, metadata
from service.database.upgrade import differences, head_revision, read_revisions, upgrade
from service.stores import DatabaseCostModelStore
from tuner.cost_model_store import HeldOutPoint


def test_migrations_make_the_tables_of_the_code(database: Database) -> None:
    assert differences(database) == []
    assert read_revisions(database).at_head


def test_a_missing_column_is_a_difference(database: Database) -> None:
    with database.write() as session:
        session.execute(text("ALTER TABLE jobs DROP COLUMN crash"))
    assert any("crash" in difference for difference in differences(database))


def test_fresh_tables_have_the_same_indexes_and_constraints(database: Database, tmp_path: Path) -> None:
    fresh = Database(f"sqlite:///{tmp_path / 'fresh.sqlite3'}")
    metadata.create_all(fresh.engine)
    migrated, made = inspect(database.engine), inspect(fresh.engine)
    for table in made.get_table_names():
        for look in ("get_indexes", "get_unique_constraints", "get_foreign_keys", "get_check_constraints"):
            found = [sorted(map(str, getattr(inspector, look)(table))) for inspector in (migrated, made)]
            assert found[0] == found[1], (table, look)
    fresh.close()


def test_the_chain_goes_down_again(database: Database) -> None:
    from alembic import command

    from service.database.upgrade import _config

    with database.engine.begin() as connection:
        command.downgrade(_config(connection), "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    assert upgrade(database).current == head_revision()
    assert differences(database) == []


def test_what_calls_a_task_is_kept_up_and_down(database: Database) -> None:
    from alembic import command

    from service.database.upgrade import _config

    insert = text(
        "INSERT INTO tasks (job_id, key, position, name, workload, weight, flops, tunable, choice, way, knobs)"
        " VALUES ('j', :key, 0, :key, :key, :weight, 1, 1, :choice, :way, '{}')"
    )
    with database.write() as session:
        session.add(Model(id="0" * 64, name="m", filename="m", size_bytes=1))
        session.flush()
        session.add(Job(id="j", model_id="0" * 64, target="host", target_fingerprint="f", target_spec={}))
    with database.engine.begin() as connection:
        command.downgrade(_config(connection), "0003")
        connection.execute(insert, {"key": "a", "weight": 3, "choice": None, "way": None})
        connection.execute(insert, {"key": "b", "weight": 2, "choice": "8×8×16→16", "way": "winograd"})
        command.upgrade(_config(connection), "0004")
        kept: dict[str, str] = dict(connection.execute(text("SELECT key, uses FROM tasks")).all())  # type: ignore[arg-type]
        assert json.loads(kept["a"]) == [{"count": 3, "choice": None, "way": None}]
        assert json.loads(kept["b"]) == [{"count": 2, "choice": "8×8×16→16", "way": "winograd"}]
        command.downgrade(_config(connection), "0003")
        again = connection.execute(text("SELECT key, weight, choice, way FROM tasks ORDER BY key"))
        assert [tuple(row) for row in again] == [("a", 3, None, None), ("b", 2, "8×8×16→16", "winograd")]


def test_cost_models_of_the_first_revision_are_kept_without_points(database: Database, tmp_path: Path) -> None:
    from alembic import command

    from service.database.upgrade import _config

    blobs = BlobStore(tmp_path / "blobs")
    booster, samples = blobs.put_bytes(b"ubjson"), blobs.put_bytes(b"npz")
    with database.engine.begin() as connection:
        command.downgrade(_config(connection), "0001")
        assert "held_out" not in {column["name"] for column in inspect(connection).get_columns("cost_models")}
        connection.execute(
            text(
                "INSERT INTO cost_models VALUES ('f', 1, 1, :model, :samples, 6, 100, 'ab',"
                " '{\"pairwise_accuracy\": 0.9}', '2026-11-01 10:00:00')"
            ),
            {"model": booster.sha256, "samples": samples.sha256},
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
    with database.engine.begin() as connection:
        command.downgrade(_config(connection), "0001")
        assert connection.scalar(text("SELECT count(*) FROM cost_models")) == 3


def test_two_upgrades_at_once_are_one(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path / 'shared.sqlite3'}") for _ in range(3)]
    results: list[str | None] = []
    threads = [threading.Thread(target=lambda d=database: results.append(upgrade(d).current)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [head_revision()] * 3
    for database in databases:
        database.close()


def test_sqlite_is_set_up_as_promised(database: Database) -> None:
    with database.read() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 1, "busy_timeout": 15000, "foreign_keys": 1}


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Job(id="j", model_id="0" * 64, target="host", target_fingerprint="f", target_spec={}))


def test_an_exception_rolls_the_whole_transaction_back(database: Database) -> None:
    def add_and_fail() -> None:
        with database.write() as session:
            session.add(Model(id="0" * 64, name="m", filename="m", size_bytes=1))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    with database.read() as session:
        assert session.get(Model, "0" * 64) is None


def test_writers_wait_for_each_other(database: Database) -> None:
    def add(number: int) -> None:
        for index in range(10):
            with database.write() as session:
                # Reads first: a deferred transaction would fail here when another writer came between.
                session.get(Samples, "x")
                session.add(Samples(id=f"{number}-{index}", filename="s", size_bytes=1))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.query(Samples).count() == 40


def test_times_keep_their_zone(database: Database) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5)))
    with database.write() as session:
        session.add(Samples(id="s", filename="s", size_bytes=1, created_at=moment))
    with database.read() as session:
        row = session.get(Samples, "s")
        assert row is not None
        assert row.created_at == moment
        assert row.created_at.tzinfo is UTC
