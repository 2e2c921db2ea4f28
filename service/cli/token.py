"""``tessera token``: on the database itself, so that the first token is made where there is none."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.access.principal import DEFAULT_PROJECT
from service.cli.installed import require_server
from service.cli.options import AsJson, DataDir, Token, Url, connect, load_settings, print_json, print_table, say
from service.cli.values import parse_duration_s
from service.dashboard.figures import ago

if TYPE_CHECKING:
    from datetime import datetime

    from service.access.principal import Principal
    from service.database import Database
    from service.schemas.access import TokenSchema

app = typer.Typer(help="Who may use the server, and for what.", no_args_is_help=True)
Scope = Literal["read", "submit", "admin"]


@contextmanager
def _open(data_dir: Path | None) -> Iterator[Database]:
    """The database at its newest revision."""
    require_server("tessera token")
    from service.database import Database
    from service.database.upgrade import upgrade
    from service.ownership import make_data_dir

    settings = load_settings(data_dir)
    make_data_dir(settings)
    database = Database(settings.sqlalchemy_url)
    try:
        upgrade(database)
        yield database
    finally:
        database.close()


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who or what it is for.", show_default=False)],
    scope: Annotated[Scope, typer.Option(help="What it allows; each includes the ones before it.")] = "read",
    project: Annotated[str, typer.Option(help="Whose models, jobs and records it sees.")] = DEFAULT_PROJECT,
    expires: Annotated[str | None, typer.Option(help="How long it lives: 12h, 90d. Without: until revoked.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it: it is not shown again."""
    from pydantic import ValidationError

    from service.access.scopes import AccessScope
    from service.errors import Invalid
    from service.schemas.access import TokenCreate

    expires_in_s = parse_duration_s(expires) if expires is not None else None
    try:
        wanted = TokenCreate(name=name, scope=AccessScope(scope), project=project, expires_in_s=expires_in_s)
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{first['loc'][0]}: {first['msg']}"
        raise Invalid(told, code="invalid_option", hint="See: tessera token create --help") from None
    with _open(data_dir) as database:
        from service.access import tokens

        made = tokens.create_token(database, wanted)
        _note(database, f"tessera token create {made.name} --scope {made.scope.value} --project {made.project}")
    if as_json:
        print_json(made)
        return
    say(f"The token {made.name} ({made.scope.value}) lives until {_end(made)}. It is not shown again:")
    print(made.token)


@app.command("list")
def list_tokens(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Every token, also those that have ended."""
    with _open(data_dir) as database:
        from service.access import tokens

        found = tokens.list_tokens(database)
    if as_json:
        print_json(found)
        return
    divided = any(each.project != DEFAULT_PROJECT for each in found)
    rows = [
        [
            each.name,
            each.scope.value,
            *([each.project] if divided else []),
            each.kind,
            _ago(each.created_at),
            _ago(each.last_used_at),
            _end(each),
            each.id,
        ]
        for each in found
    ]
    columns = ["name", "scope", *(["project"] if divided else []), "kind", "made", "last used", "lives until", "id"]
    print_table(columns, rows, empty="No tokens.")


@app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(help="Its name or id.", show_default=False)],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a token and the browser sessions that it opened; a running server notices within a second."""
    with _open(data_dir) as database:
        from service.access import tokens

        revoked = tokens.revoke_token(database, token)
        _note(database, f"tessera token revoke {revoked.name}")
    if as_json:
        print_json(revoked)
    else:
        print(f"Revoked {revoked.name}.")


@app.command("link")
def link(as_json: AsJson = False, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Print a link that signs one browser in, once, on a server that runs."""
    from service.client import ServerUnreachable
    from service.ownership import is_owned

    if url is None and not is_owned(load_settings(data_dir)):
        raise ServerUnreachable("No server runs on this data directory.")
    with connect(url, token, data_dir) as client:
        made = client.create_sign_in_link()
    if as_json:
        print_json(made)
    else:
        print(made.url)


def _note(database: Database, command: str) -> None:
    from service.access import audit

    audit.record(database, _this_user(), address="", method="command", path=command)


def _this_user() -> Principal:
    from service.access.principal import Principal
    from service.access.scopes import AccessScope

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = "somebody"
    return Principal(name=f"{name} on the server's machine", scope=AccessScope.ADMIN)


def _ago(when: datetime | None) -> str:
    return ago(when) if when is not None else "–"


def _end(token: TokenSchema) -> str:
    if token.revoked_at is not None:
        return "– (revoked)"
    return token.expires_at.strftime("%Y-%m-%d %H:%M UTC") if token.expires_at is not None else "it is revoked"
