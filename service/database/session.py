"""Sessions on the database: readers see a snapshot, and one writer at a time takes its lock when it begins.

SQLite has one writer by nature. On PostgreSQL a lock of ours says the same, because the service is written for it: a
transaction may read and then write what follows from it, and the ids of events become visible in their order, so that
a stream that has shown one never has to look before it. Writers hold the lock for milliseconds.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from service.database.base import to_json
from service.database.wall import ProjectSession, watch
from service.errors import DatabaseUnavailable, ServiceError, StorageFull

# Longest wait for another writer. Writers here hold the lock for milliseconds; this covers a slow disk.
BUSY_TIMEOUT_S = 15.0
# A job has hours of work to lose: it waits so long for a database server that does not answer, while one is restarted.
JOB_PATIENCE_S = 300.0
_RECONNECT_EVERY_S = 0.5
# The number of the writers' lock among the advisory locks of a PostgreSQL database; any would do.
_WRITER_LOCK = 0x7E55E7A
_POSTGRESQL = "postgresql+psycopg"
# What SQLite says of a full disk: the second where the index of its write-ahead log cannot grow.
_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_POSTGRESQL_FULL = "53100"


class Database:
    """One database, shared by the threads of a process. Not to be carried over a fork: make a new one.

    ``url`` is SQLAlchemy's (``sqlite:///…``, ``postgresql://…``). With ``patient_s`` transactions wait so long for a
    database server that does not answer before they raise `DatabaseUnavailable`. Its sessions see all projects.
    """

    def __init__(self, url: str | URL, *, patient_s: float = 0.0) -> None:
        self.url = _parse(url)
        self.engine = _make_engine(self.url)
        self._patient_s = patient_s
        self._writer = self.engine.execution_options(tessera_write=True)
        self._reader = self.engine
        if not self.is_sqlite:
            self._reader = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._projects: dict[str, ProjectDatabase] = {}

    def of_project(self, project: str) -> ProjectDatabase:
        """The same database as one project sees it."""
        return self._projects.setdefault(project, ProjectDatabase(self, project))

    @property
    def whole(self) -> Database:
        """With the rows of all projects: for what is nobody's, and is told to nobody."""
        return self

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def describe(self) -> str:
        """The kind of database and where it is, without a password."""
        return f"SQLite, {self.url.database}" if self.is_sqlite else f"PostgreSQL, {self.url.render_as_string()}"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; what it changes is not kept."""
        with self._connection(self._reader) as connection, self._session(connection) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction that is committed at the end, or rolled back by an exception.

        On SQLite it begins IMMEDIATE: a deferred transaction that reads first and then writes fails at once
        with "database is locked" when another writer came between, whatever the busy timeout is.
        Raises `StorageFull`, and nothing is changed, where the database's disk has no space left.
        """
        with (
            _full_disk_is_told(),
            self._connection(self._writer) as connection,
            self._session(connection) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def change_schema(self) -> Iterator[Connection]:
        """As `write`, but for the tables themselves.

        SQLite changes a table by making a new one and dropping the old one, which would delete every row that refers
        to it: foreign keys do not act meanwhile, and are checked at the end.
        """
        with self._connection(self._writer) as connection, _inactive_foreign_keys(connection), connection.begin():
            yield connection
            if self.is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                raise RuntimeError(f"a row of {broken[0]} would refer to a row of {broken[2]} that is not there")

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """As `read`, but at the tables themselves."""
        with self._connection(self._reader) as connection:
            yield connection

    def size_bytes(self) -> int:
        """What the database takes: its files on disk, the write-ahead log included, or what its server says."""
        if not self.is_sqlite:
            with self.look() as connection:
                return connection.scalar(text("SELECT pg_database_size(current_database())")) or 0
        files = (Path(f"{self.url.database}{suffix}") for suffix in ("", "-wal", "-shm"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        self.engine.dispose()

    def _session(self, connection: Connection) -> Session:
        return Session(connection, expire_on_commit=False)

    def _connection(self, engine: Engine) -> Connection:
        deadline = time.monotonic() + self._patient_s
        while True:
            try:
                return engine.connect()
            except OperationalError as error:
                if self.is_sqlite:
                    raise
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(
                        f"The database {self.url.render_as_string()} does not answer: {_first_line(error)}"
                    ) from error
            time.sleep(_RECONNECT_EVERY_S)


class ProjectDatabase(Database):
    """A database whose sessions are in one project (`service.database.wall`). What a project asks for takes this type;
    made by `Database.of_project`."""

    def __init__(self, whole: Database, project: str) -> None:
        self.url, self.engine, self._patient_s = whole.url, whole.engine, whole._patient_s
        self._writer, self._reader, self._projects = whole._writer, whole._reader, whole._projects
        self._whole = whole
        self.project = project

    @property
    def whole(self) -> Database:
        return self._whole

    def _session(self, connection: Connection) -> Session:
        return ProjectSession(connection, self.project)


@contextmanager
def _full_disk_is_told() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        on_sqlite = getattr(error.orig, "sqlite_errorcode", None) in _SQLITE_FULL
        if on_sqlite or getattr(error.orig, "sqlstate", None) == _POSTGRESQL_FULL:
            raise StorageFull("There is no space left for the database.") from error
        raise


@contextmanager
def _inactive_foreign_keys(connection: Connection) -> Iterator[None]:
    """On SQLite, where they can be switched only outside of a transaction; PostgreSQL changes tables in place."""
    if connection.dialect.name != "sqlite":
        yield
        return
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys=ON")


def _parse(text: str | URL) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        raise _unusable_url("TESSERA_DATABASE_URL is no URL.") from None
    match url.get_backend_name():
        case "sqlite":
            return url
        case "postgresql" | "postgres":
            return url.set(drivername=_POSTGRESQL)
    raise _unusable_url(f"There is no support for {url.get_backend_name()} databases.")


def _unusable_url(message: str) -> ServiceError:
    hint = "Use postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or leave TESSERA_DATABASE_URL unset for SQLite."
    return ServiceError(message, code="invalid_database_url", hint=hint)


def _first_line(error: OperationalError) -> str:
    return next(iter(str(error.orig).strip().splitlines()), "no reason given")


def _make_engine(url: URL) -> Engine:
    engine = _sqlite_engine(url) if url.get_backend_name() == "sqlite" else _postgresql_engine(url)
    watch(engine)
    return engine


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        json_serializer=to_json,
        hide_parameters=True,  # errors are logged, and some values are secrets
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, see `_begin`
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
        _to_write_ahead_log(cursor)
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("tessera_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _to_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """A new database is changed to it by whoever comes first; SQLite refuses the others at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _postgresql_engine(url: URL) -> Engine:
    try:
        engine = create_engine(
            url,
            json_serializer=to_json,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=5,
            max_overflow=35,  # as many as the server has threads
            connect_args={
                "application_name": "tessera",
                "connect_timeout": 10,
                "options": f"-c lock_timeout={int(BUSY_TIMEOUT_S * 1000)} -c timezone=UTC",
            },
        )
    except ModuleNotFoundError:
        raise ServiceError(
            "PostgreSQL needs its driver, which is not installed.",
            code="driver_not_installed",
            hint="Install it with: pip install 'tessera[postgresql]'",
        ) from None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("tessera_write", False):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")

    return engine
