"""Options that many commands share, and how results are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.installed import require_server
from service.errors import Invalid

if TYPE_CHECKING:
    from pydantic import BaseModel

    from service.client import Client
    from service.settings import Settings

_PIPE_WIDTH = 400

Url = Annotated[
    str | None,
    typer.Option(envvar="TESSERA_URL", help="A running server; without one, an engine runs in this process."),
]
Token = Annotated[
    str | None,
    typer.Option(envvar="TESSERA_TOKEN", help="Token for that server; without one, that of the data directory."),
]
DataDir = Annotated[
    Path | None, typer.Option(envvar="TESSERA_DATA_DIR", help="Data directory, when no server is given.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutDir = Annotated[Path, typer.Option("--out", help="Folder for the bundle.", file_okay=False)]
TargetName = Annotated[str, typer.Option("--target", "-t", help="What to build for; see: tessera targets list")]


def load_settings(data_dir: Path | None = None, **changes: Any) -> Settings:
    """The settings of the environment; raises `Invalid` (``invalid_settings``) naming what is wrong."""
    from pydantic import ValidationError

    from service.settings import Settings

    if data_dir is not None:
        changes["data_dir"] = data_dir
    try:
        return Settings(**{name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid(
            f"The setting {'.'.join(map(str, first['loc']))} is wrong: {first['msg']}",
            code="invalid_settings",
            hint="Settings come from the environment: TESSERA_<NAME>.",
        ) from None


@contextmanager
def connect(url: str | None, token: str | None, data_dir: Path | None, *, runs_jobs: bool = False) -> Iterator[Client]:
    """A client of the server given, else of the one that owns the data directory, else of one in this process.

    Without a token it is the one that the server wrote into the data directory: only that server is shown it.

    The one in this process starts jobs only with ``runs_jobs``: `jobs list` must not begin to tune.
    """
    from service.access.local_token import read_local_token, token_for
    from service.client import Client
    from service.ownership import is_owned, wait_for_owner_url

    settings = load_settings(data_dir)
    if url is not None:
        with Client(url, token=token or token_for(url, settings)) as client:
            yield client
        return
    if is_owned(settings):
        with Client(wait_for_owner_url(settings), token=token or read_local_token(settings)) as client:
            yield client
        return
    require_server(
        "Without a server's address this command runs one itself, which",
        hint="Name a server (--url, TESSERA_URL), or: pip install 'tessera[server]'",
    )
    from service.embedded import serve_embedded

    if not runs_jobs:
        settings = settings.model_copy(update={"max_parallel_jobs": 0})
    with serve_embedded(settings) as embedded_url, Client(embedded_url, token=read_local_token(settings)) as client:
        yield client


def existing_file(path: Path) -> Path:
    """Raises `Invalid` (``file_not_found``)."""
    if not path.is_file():
        raise Invalid(f"There is no file {path}.", code="file_not_found", hint="Check the path.")
    return path


def say(text: str) -> None:
    """One line for people; kept apart from results, which go to standard output."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    if isinstance(value, dict):
        plain: Any = value
    elif isinstance(value, Sequence):
        plain = [item.model_dump(mode="json") for item in value]
    else:
        plain = value.model_dump(mode="json")
    print(json.dumps(plain, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str, right: Sequence[str] = ()
) -> None:
    """A table on standard output; ``right`` names the columns of numbers, which stay whole on narrow terminals."""
    if not rows:
        print(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column in right)
    for row in rows:
        table.add_row(*row)
    # In a pipe nothing is cut to the width of a terminal that is not there.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(table)
