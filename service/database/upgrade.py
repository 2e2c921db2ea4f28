"""Bringing a database to the newest revision, and saying whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from service.database.session import Database
from service.errors import ServiceError

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
    """Run the revisions that are missing; several processes may call it at once.

    Raises `ServiceError` (``database_too_new``) for a database that a newer Tessera has upgraded.
    """
    state = read_revisions(database)
    if state.at_head:
        return state
    require_known(state)
    # Writers take their lock when they begin: the second process waits here, and then finds nothing left to run.
    with database.change_schema() as connection:
        migrate(connection, head_revision())
    return read_revisions(database)


def require_known(state: Revisions) -> None:
    """Raises `ServiceError` (``database_too_new``)."""
    if state.current is not None and state.current not in revisions():
        raise ServiceError(
            f"The database is of revision {state.current}; the newest that this Tessera knows is {state.head}.",
            code="database_too_new",
            hint="Start the Tessera that upgraded it, or a newer one. Nothing was changed.",
        )


def read_revisions(database: Database) -> Revisions:
    with database.look() as connection:
        current = None
        if inspect(connection).has_table("alembic_version"):
            current = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return Revisions(current=current, head=head_revision())


def differences(database: Database) -> list[str]:
    """What the tables in the code have and the database has not, or the other way round; empty when alike."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from service.database.tables import metadata

    with database.look() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, metadata)]


def migrate(connection: Connection, revision: str) -> None:
    """Go up to the revision, or down to an earlier one (``base``: no tables), inside the connection's transaction."""
    from alembic import command  # half a second to import: only when there is something to do
    from alembic.migration import MigrationContext

    current = MigrationContext.configure(connection).get_current_revision()
    down = current is not None and (revision == "base" or revision < current)
    (command.downgrade if down else command.upgrade)(_config(connection), revision)


def revisions() -> list[str]:
    """Every revision, the first one first: the files of the chain start with their revision's number."""
    return sorted(path.stem.partition("_")[0] for path in (migrations_dir() / "versions").glob("[0-9]*.py"))


@cache
def head_revision() -> str:
    """The newest revision."""
    return revisions()[-1]


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
