"""A database goes into a file and comes out of it again, on another kind of database, too."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from sqlalchemy import URL, MetaData, delete, select, update

from service.access.principal import DEFAULT_PROJECT
from service.database import Database
from service.database.base import now
from service.database.dump import dump, load
from service.database.tables import (
    AccessToken,
    AuditEntry,
    BrowserSession,
    Job,
    JobEvent,
    Model,
    Preference,
    Webhook,
    WebhookDelivery,
)
from service.database.upgrade import differences, head_revision, migrate, read_revisions, upgrade
from service.errors import ServiceError
from service.stores import DatabaseRecordStore
from tests.service.postgresql import PostgresqlServer
from tests.service.tuning import FINGERPRINT, add_job, record, workload

Make = Callable[[str], Database]


@pytest.fixture
def empty(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes databases without tables."""
    made: list[Database] = []

    def make(kind: str) -> Database:
        url: str | URL = f"sqlite:///{tmp_path / f'{len(made)}.sqlite3'}"
        if kind == "postgresql":
            server: PostgresqlServer = request.getfixturevalue("postgresql")
            url = server.empty()
        made.append(Database(url))
        return made[-1]

    yield make
    for database in made:
        database.close()


def _fill(database: Database) -> None:
    upgrade(database)
    project = database.of_project(DEFAULT_PROJECT)
    store = DatabaseRecordStore(project, add_job(project, "j"))
    store.add_workload(workload(1))
    store.add([record(1), record(2)])
    with project.write() as session:
        session.add(Webhook(id="w", url="https://ci.example.com", secret="s"))
        session.add(Preference(key="retention_days", value=30))
        session.add(AccessToken(id="t", name="ci", kind="made", scope="read", project="vision", secret_sha256="0" * 64))
        session.add(AuditEntry(who="ci", token_id="t", address="192.0.2.7", method="POST", path="/x", status=201))
        session.flush()
        session.add(WebhookDelivery(webhook_id="w", job_id="j", event="job.ended"))
        session.add(BrowserSession(id_sha256="1" * 64, token_id="t", expires_at=now()))
        session.add_all(JobEvent(job_id="j", kind="log", data={"message": "ü", "n": n}) for n in range(1200))
        session.flush()
        session.execute(delete(JobEvent).where(JobEvent.id > 1150))


def _everything(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """All rows by table, read through the tables of the code."""
    tables = Model.metadata.sorted_tables
    with database.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key.columns))]
            for table in tables
        }


@pytest.mark.parametrize("destination", ["sqlite", "postgresql"])
@pytest.mark.parametrize("source", ["sqlite", "postgresql"])
def test_everything_moves_to_another_database(empty: Make, source: str, destination: str) -> None:
    old, new, file = empty(source), empty(destination), io.BytesIO()
    _fill(old)
    written = dump(old, file)
    assert (written.rows["job_events"], written.rows["records"]) == (1150, 2)
    file.seek(0)
    assert load(new, file) == written
    assert _everything(new) == _everything(old)
    assert differences(new) == []
    moved = DatabaseRecordStore(new.of_project(DEFAULT_PROJECT), "j")
    assert moved.seen("workload-1", target_fingerprint=FINGERPRINT) == [record(1), record(2)]
    with new.read() as session:
        assert session.scalars(select(Job.id).where(Job.result.is_(None))).all() == ["j"]
    with new.write() as session:
        session.add(event := JobEvent(job_id="j", kind="log", data={}))
        session.flush()
        assert event.id == 1201  # 1151 to 1200 were given, and shown, before they were deleted


def test_a_file_of_an_older_revision_is_upgraded(empty: Make) -> None:
    old, new, file = empty("sqlite"), empty("sqlite"), io.BytesIO()
    _fill(old)
    with old.write() as session:  # only what everybody may see goes back to before there were projects
        session.execute(update(AccessToken).values(project=DEFAULT_PROJECT))
    with old.change_schema() as connection:
        migrate(connection, "0005")
    assert dump(old, file).revision == "0005"
    file.seek(0)
    assert "webhooks" not in load(new, file).rows
    assert read_revisions(new).current == head_revision()
    assert len(DatabaseRecordStore(new.of_project(DEFAULT_PROJECT), "j").own()) == 2


def test_a_database_with_rows_is_left_alone(empty: Make) -> None:
    database, file = empty("sqlite"), io.BytesIO()
    _fill(database)
    dump(database, file)
    file.seek(0)
    before = _everything(database)
    with pytest.raises(ServiceError) as raised:
        load(database, file)
    assert raised.value.code == "database_not_empty"
    assert _everything(database) == before


def test_an_empty_database_is_not_dumped(empty: Make) -> None:
    with pytest.raises(ServiceError) as raised:
        dump(empty("sqlite"), io.BytesIO())
    assert raised.value.code == "database_empty"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_is_loaded_of_a_file_that_is_cut_or_damaged(empty: Make, kind: str) -> None:
    old, new, file = empty("sqlite"), empty(kind), io.BytesIO()
    _fill(old)
    dump(old, file)
    packed = file.getvalue()
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(packed).splitlines(keepends=True)
    damaged = {
        "cut": packed[: len(packed) // 2],
        "bytes": packed[:100] + bytes(20) + packed[120:],
        "no end": zstandard.compress(b"".join(lines[:-1])),
        "half a table": zstandard.compress(b"".join([*lines[:50], *lines[-200:]])),
        "other": b"hello",
        "nothing": b"",
        "json": zstandard.compress(b"[1, 2]\n"),
    }
    for name, content in damaged.items():
        with pytest.raises(ServiceError) as raised:
            load(new, io.BytesIO(content))
        assert raised.value.code == "dump_invalid", name
    schema = MetaData()
    schema.reflect(new.engine)
    assert not schema.tables  # not even tables


def test_a_file_of_a_newer_tessera_says_so(empty: Make) -> None:
    head = b'{"format": 1, "revision": "9999", "tables": []}\n{"end": {}}\n'
    with pytest.raises(ServiceError) as raised:
        load(empty("sqlite"), io.BytesIO(zstandard.compress(head)))
    assert raised.value.code == "dump_too_new"
