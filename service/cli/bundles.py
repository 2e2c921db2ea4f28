"""``tessera run`` and ``tessera verify``: a bundle is unpacked and its own run.py is run, in a child process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import AsJson, existing_file, print_json
from service.errors import ServiceError

BundlePath = Annotated[Path, typer.Argument(help="A bundle (.tar.gz).", show_default=False)]


class BadBundle(ServiceError):
    code = "not_a_bundle"
    hint = "Download it again with: tessera download JOB"


def run(context: typer.Context, bundle: BundlePath) -> None:
    """Run a bundle's run.py; further options are passed on, such as --benchmark."""
    with unpacked(bundle) as folder:
        done = subprocess.run([sys.executable, "-P", str(folder / "run.py"), *context.args], check=False)
    if done.returncode:
        raise typer.Exit(1)


def verify(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Check every file's SHA-256 and the module's outputs on the samples. Exit status 1: something differs."""
    with unpacked(bundle) as folder:
        done = subprocess.run(
            [sys.executable, "-P", str(folder / "run.py"), "--json"], check=False, capture_output=True, text=True
        )
    try:
        result = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        result = {"ok": False, "problems": [f"run.py failed: {last}"]}
    fine = bool(result.get("ok")) and done.returncode == 0
    if as_json:
        print_json({**result, "ok": fine})
    else:
        for problem in result.get("problems", []):
            print(f"WRONG: {problem}")
        print(f"OK: {bundle.name} is whole and agrees with its samples." if fine else f"{bundle.name} is not right.")
    if not fine:
        raise typer.Exit(1)


@contextlib.contextmanager
def unpacked(bundle: Path) -> Iterator[Path]:
    """A temporary folder with the bundle's files; raises `BadBundle`."""
    existing_file(bundle)
    with tempfile.TemporaryDirectory(prefix="tessera-bundle-") as temporary:
        folder = Path(temporary)
        try:
            with tarfile.open(bundle, "r:gz") as archive:
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise BadBundle(f"{bundle} is no bundle: {error}") from None
        found = sorted(folder.rglob("run.py"), key=lambda path: len(path.parts))
        if not found or not (found[0].parent / "manifest.json").is_file():
            raise BadBundle(f"{bundle} is no bundle: it has no run.py and manifest.json.")
        yield found[0].parent
