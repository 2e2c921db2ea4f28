"""Bringing a database to the newest revision, and saying whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from service.database.session import Database

if TYPE_CHECKING:
    from alembic.config import Config


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """``current`` is None for an empty database."""

    current: str | None
    head: str

    @property
    def at_head(self) -> bool:
        return self.current == self.head


def upgrade(database: Database) -> Revisions:
    """Run the revisions that are missing; several processes may call it at once."""
    revisions = read_revisions(database)
    if revisions.at_head:
        return revisions
    from alembic import command  # half a second to import: only when there is something to do

    # BEGIN IMMEDIATE: the second process waits here, and then finds nothing left to run.
    with database.engine.execution_options(tessera_write=True).begin() as connection:
        command.upgrade(_config(connection), "head")
    return read_revisions(database)


def read_revisions(database: Database) -> Revisions:
    with database.engine.connect() as connection:
        current = None
        if inspect(connection).has_table("alembic_version"):
            current = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return Revisions(current=current, head=head_revision())


def differences(database: Database) -> list[str]:
    """What the tables in the code have and the database has not, or the other way round; empty when alike."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from service.database.tables import metadata

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, metadata)]


@cache
def head_revision() -> str:
    """The newest revision: the last file of the chain, whose names start with their revision's number."""
    return max(path.stem for path in (migrations_dir() / "versions").glob("[0-9]*.py")).partition("_")[0]


@cache
def migrations_dir() -> Path:
    """Beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parents[1]
    for place in (package / "migrations", package.parent / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise FileNotFoundError("the migrations are not installed with the package")


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
