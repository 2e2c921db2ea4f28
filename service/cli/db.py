"""``tessera db``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from service.cli.installed import require_server
from service.cli.options import AsJson, DataDir, existing_file, load_settings, print_json, say
from service.errors import Invalid

if TYPE_CHECKING:
    from service.database import Database
    from service.database.dump import Dumped

app = typer.Typer(help="The database: its schema, and copies of it.", no_args_is_help=True)

_STANDARD = Path("-")


@contextmanager
def _open(data_dir: Path | None) -> Iterator[Database]:
    require_server("tessera db")
    from service.database import Database
    from service.ownership import make_data_dir

    settings = load_settings(data_dir)
    make_data_dir(settings)
    database = Database(settings.sqlalchemy_url)
    try:
        yield database
    finally:
        database.close()


@app.command("upgrade")
def upgrade_database(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the schema to the newest revision. `tessera serve` does so by itself."""
    with _open(data_dir) as database:
        from service.database.upgrade import upgrade

        revisions = upgrade(database)
    if as_json:
        print_json({"current": revisions.current, "head": revisions.head})
    else:
        print(f"The database is at revision {revisions.current}.")


@app.command("check")
def check_database(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Exit status 1 when the schema is not the newest one."""
    with _open(data_dir) as database:
        from service.database.upgrade import differences, read_revisions

        revisions = read_revisions(database)
        found = differences(database) if revisions.at_head else []
    fine = revisions.at_head and not found
    if as_json:
        print_json({"ok": fine, "current": revisions.current, "head": revisions.head, "differences": found})
    elif fine:
        print(f"OK: the database is at revision {revisions.current}.")
    elif not revisions.at_head:
        print(f"The database is at revision {revisions.current}; the newest is {revisions.head}.")
        print("Upgrade it with: tessera db upgrade")
    else:
        print("\n".join(["The schema differs from its revision:", *found]))
    if not fine:
        raise typer.Exit(1)


@app.command("dump")
def dump_database(
    path: Annotated[Path, typer.Argument(help="File to write; - is standard output.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write everything of the database to a file, as of one moment, also while a server works."""
    with _open(data_dir) as database:
        from service.database.dump import dump

        if path == _STANDARD:
            _require_no_terminal(sys.stdout)
            _tell(dump(database, sys.stdout.buffer), "Wrote", as_json=False)
            return
        partial = path.with_name(f".{path.name}.part")
        try:
            with partial.open("wb") as file:
                written = dump(database, file)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    _tell(written, "Wrote", as_json=as_json)


@app.command("load")
def load_database(
    path: Annotated[Path, typer.Argument(help="File of `tessera db dump`; - is standard input.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Fill an empty database from such a file, all of it or nothing, and upgrade it. No server may use it yet."""
    with _open(data_dir) as database:
        from service.database.dump import load

        if path == _STANDARD:
            _require_no_terminal(sys.stdin)
            loaded = load(database, sys.stdin.buffer)
        else:
            with existing_file(path).open("rb") as file:
                loaded = load(database, file)
    _tell(loaded, "Loaded", as_json=as_json)


def _require_no_terminal(stream: IO[str]) -> None:
    if stream.isatty():
        raise Invalid(
            "Dumps are compressed: a terminal cannot show or give one.",
            code="invalid_option",
            hint="Name a file, or redirect.",
        )


def _tell(dumped: Dumped, verb: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"revision": dumped.revision, "rows": dumped.rows})
        return
    shown = ", ".join(f"{count} {name}" for name, count in dumped.rows.items() if count) or "no rows"
    say(f"{verb} revision {dumped.revision}: {shown}")
