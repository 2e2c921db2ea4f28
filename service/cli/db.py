"""``tessera db``."""

from __future__ import annotations

import typer

from service.cli.installed import require_server
from service.cli.options import AsJson, DataDir, load_settings, print_json

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.command("upgrade")
def upgrade_database(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Bring the schema to the newest revision. `tessera serve` does so by itself."""
    require_server("tessera db")
    from service.database import Database
    from service.database.upgrade import upgrade

    settings = load_settings(data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url)
    try:
        revisions = upgrade(database)
    finally:
        database.close()
    if as_json:
        print_json({"current": revisions.current, "head": revisions.head})
    else:
        print(f"The database is at revision {revisions.current}.")


@app.command("check")
def check_database(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Exit status 1 when the schema is not the newest one."""
    require_server("tessera db")
    from service.database import Database
    from service.database.upgrade import differences, read_revisions

    settings = load_settings(data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url)
    try:
        revisions = read_revisions(database)
        found = differences(database) if revisions.at_head else []
    finally:
        database.close()
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
