"""A database as a file, and back: for backups, and to move from SQLite to PostgreSQL or the other way.

The file is zstd-compressed lines of JSON: a head, then for each table its columns and its rows. It is of one moment,
also while a server works. Tables are read and written as they are in the database at the file's revision, not as the
code knows them now: a file of an older Tessera is loaded at its own revision, and upgraded then.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

import zstandard
from sqlalchemy import JSON, Connection, DateTime, LargeBinary, MetaData, Table, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeEngine

from service import __version__
from service.database.base import now, to_json
from service.database.session import Database
from service.database.tables import Job
from service.database.upgrade import head_revision, migrate, read_revisions, revisions
from service.errors import Conflict, Invalid

_FORMAT = 1
_ROWS_AT_ONCE = 500
_VERSIONS = "alembic_version"


@dataclass(frozen=True, kw_only=True)
class Dumped:
    """What a file holds: the revision of its tables, and the rows of each."""

    revision: str
    rows: dict[str, int]


def dump(database: Database, file: IO[bytes]) -> Dumped:
    """Write everything of the database, which has to be at a revision (`Conflict` when it is empty)."""
    current = read_revisions(database).current
    if current is None:
        raise Conflict(
            "The database is empty.",
            code="database_empty",
            hint="Choose the right one: --data-dir, TESSERA_DATABASE_URL.",
        )
    counts: dict[str, int] = {}
    with (
        zstandard.ZstdCompressor(level=9).stream_writer(file, closefd=False) as packed,
        database.look() as connection,
    ):

        def write(line: Any) -> None:
            packed.write(to_json(line).encode() + b"\n")

        tables = _reflect(connection)
        head = {"format": _FORMAT, "revision": current, "tessera": __version__, "created_at": now().isoformat()}
        write(head | {"tables": [table.name for table in tables]})
        for table in tables:
            columns = [column.name for column in table.columns]
            write({"table": table.name, "columns": columns, "last_id": _last_id(connection, table)})
            encoders = [_encoder(column.type) for column in table.columns]
            counts[table.name] = 0
            for row in connection.execute(select(table).execution_options(yield_per=_ROWS_AT_ONCE)):
                write([encode(value) for encode, value in zip(encoders, row, strict=True)])
                counts[table.name] += 1
        write({"end": counts})
    return Dumped(revision=current, rows=counts)


def load(database: Database, file: IO[bytes]) -> Dumped:
    """Fill an empty database from a file of `dump`, all of it or nothing, and bring it to the newest revision.

    Raises `Conflict` (``database_not_empty``) where there are rows, `Invalid` (``dump_invalid``) for what is no such
    file, a cut one included, and ``dump_too_new`` for one of a newer Tessera.
    """
    lines = _lines(file)
    head = next(lines, None)
    if not isinstance(head, dict) or head.get("format") != _FORMAT or "revision" not in head:
        raise _invalid("It is no dump of a Tessera database.")
    revision = str(head["revision"])
    if revision not in revisions():
        raise Invalid(
            f"The file is of revision {revision}, this Tessera knows {head_revision()} as the newest.",
            code="dump_too_new",
            hint="Load it with the Tessera that wrote it, or a newer one.",
        )
    with database.change_schema() as connection:
        _require_empty(connection)
        migrate(connection, revision)
        try:
            counts = _fill(connection, head, lines)
        except (ValueError, TypeError, KeyError, SQLAlchemyError) as error:
            raise _invalid("Some of its rows are damaged.") from error
        migrate(connection, head_revision())
        # Processes of the installation that wrote the file: here, their numbers may be anybody's.
        connection.execute(update(Job).values(pid=None, pid_started_at=None))
    return Dumped(revision=revision, rows=counts)


def _fill(connection: Connection, head: dict[str, Any], lines: Iterator[Any]) -> dict[str, int]:
    tables = {table.name: table for table in _reflect(connection)}
    counts = {}
    line = next(lines, None)
    for name in head["tables"]:
        if not isinstance(line, dict) or line.get("table") != name or name not in tables:
            raise _invalid(f"It ends before, or in, the table {name}.")
        table, last_id = tables[name], line["last_id"]
        columns = [table.columns[column] for column in line["columns"]]
        decoders = [_decoder(column.type) for column in columns]
        names = [column.name for column in columns]
        batch: list[dict[str, Any]] = []
        counts[name] = 0
        while isinstance(line := next(lines, None), list):
            values = [decode(value) for decode, value in zip(decoders, line, strict=True)]
            batch.append(dict(zip(names, values, strict=True)))
            if len(batch) == _ROWS_AT_ONCE:
                connection.execute(table.insert(), batch)
                counts[name] += len(batch)
                batch = []
        if batch:
            connection.execute(table.insert(), batch)
            counts[name] += len(batch)
        if last_id is not None:
            _continue_after(connection, table, last_id)
    if not (isinstance(line, dict) and line.get("end") == counts):
        raise _invalid("A part of it is missing.")
    return counts


def _lines(file: IO[bytes]) -> Iterator[Any]:
    """The parsed lines of the file."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(file, closefd=False, read_across_frames=True) as packed:
            for line in io.BufferedReader(packed, 1024 * 1024):
                yield json.loads(line)
    except (zstandard.ZstdError, ValueError):
        raise _invalid("It is damaged, or no dump of a Tessera database.") from None


def _invalid(message: str) -> Invalid:
    return Invalid(
        f"The file cannot be loaded. {message}",
        code="dump_invalid",
        hint="Nothing was changed. Give a whole file of: tessera db dump",
    )


def _reflect(connection: Connection) -> list[Table]:
    """The tables as they are in the database, those first that others refer to."""
    metadata = MetaData()
    metadata.reflect(connection)
    tables = [table for table in metadata.sorted_tables if table.name != _VERSIONS]
    for column in (column for table in tables for column in table.columns if isinstance(column.type, JSON)):
        column.type = JSON(none_as_null=bool(column.nullable))
    return tables


def _require_empty(connection: Connection) -> None:
    for table in _reflect(connection):
        if count := connection.scalar(select(func.count()).select_from(table)):
            raise Conflict(
                f"The database is not empty: there are {count} rows in {table.name}.",
                code="database_not_empty",
                hint="Load into an empty one: another --data-dir or TESSERA_DATABASE_URL.",
            )


def _row_id(table: Table) -> str | None:
    """The column that numbers the table's rows by itself."""
    columns = list(table.primary_key.columns)
    return columns[0].name if len(columns) == 1 and columns[0].type.python_type is int else None


def _last_id(connection: Connection, table: Table) -> int | None:
    """The last number that was given to a row of the table, which may be deleted: it is not given again."""
    column = _row_id(table)
    if column is None:
        return None
    if connection.dialect.name == "sqlite":
        query = text("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = :table), 0)")
        return int(connection.scalar(query, {"table": table.name}))
    sequence = connection.scalar(_SEQUENCE, {"table": table.name, "column": column})
    return int(connection.scalar(text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")))


def _continue_after(connection: Connection, table: Table, last_id: int) -> None:
    """The next row of the table gets the number behind this one."""
    if connection.dialect.name == "sqlite":
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), {"table": table.name})
        insert = text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :last_id)")
        connection.execute(insert, {"table": table.name, "last_id": last_id})
    else:
        sequence = connection.scalar(_SEQUENCE, {"table": table.name, "column": _row_id(table)})
        connection.execute(
            text("SELECT setval(CAST(:sequence AS regclass), :next_id, false)"),
            {"sequence": sequence, "next_id": last_id + 1},
        )


_SEQUENCE = text("SELECT pg_get_serial_sequence(:table, :column)")


def _encoder(kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    """What makes JSON of a column's values. Times are of UTC where the database keeps no zone."""

    def time_text(value: datetime | None) -> str | None:
        if value is None:
            return None
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()

    if isinstance(kind, DateTime):
        return time_text
    if isinstance(kind, LargeBinary):
        return lambda value: None if value is None else base64.b64encode(value).decode()
    return lambda value: value


def _decoder(kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    if isinstance(kind, DateTime):
        return lambda value: None if value is None else datetime.fromisoformat(value)
    if isinstance(kind, LargeBinary):
        return lambda value: None if value is None else base64.b64decode(value)
    return lambda value: value
