"""``tessera doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from service.cli.installed import require_server
from service.cli.options import AsJson, DataDir, load_settings, print_json, print_table, say


def doctor(
    data_dir: DataDir = None,
    clean: Annotated[bool, typer.Option("--clean", help="Delete blobs that nothing names any more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at what a server here would need, and at what it keeps. Exit status 1: something is wrong."""
    require_server("tessera doctor")
    from service import checkup

    settings = load_settings(data_dir)
    if clean:
        say(f"deleted {checkup.clean(settings)} blobs")
    checks = list(checkup.check_up(settings))
    if as_json:
        print_json({"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks]})
    else:
        rows = [[check.name, "ok" if check.ok else "WRONG", check.detail] for check in checks]
        print_table(["what", "", "found"], rows, empty="")
        for check in checks:
            if check.hint:
                print(f"{check.name}: {check.hint}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
