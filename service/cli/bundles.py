"""``tessera run`` and ``tessera verify``: a bundle is unpacked and its own run.py is run, in a child process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import AsJson, existing_file, print_json

BundlePath = Annotated[Path, typer.Argument(help="A bundle (.tar.gz).", show_default=False)]


def run(context: typer.Context, bundle: BundlePath) -> None:
    """Run a bundle's run.py; further options are passed on, such as --benchmark."""
    with unpacked(bundle) as folder:
        done = subprocess.run([sys.executable, "-P", str(folder / "run.py"), *context.args], check=False)
    if done.returncode:
        raise typer.Exit(1)


def verify(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Check every file's SHA-256 and the module's outputs on the samples. Exit status 1: something differs."""
    from tuner.bundle import verify_bundle

    checked = verify_bundle(existing_file(bundle))
    if as_json:
        print_json(checked.as_dict())
    else:
        for problem in checked.problems:
            print(f"WRONG: {problem}")
        verdict = "OK: {} is whole and agrees with its samples." if checked.ok else "{} is not right."
        if checked.ok and checked.result is None:
            verdict = (
                f"OK: {{}} is whole. It is for {checked.manifest['target']['device']}, so that it was not run here."
            )
        print(verdict.format(bundle.name))
    if not checked.ok:
        raise typer.Exit(1)


@contextlib.contextmanager
def unpacked(bundle: Path) -> Iterator[Path]:
    """A temporary folder with the bundle's files; raises `BundleError`."""
    from tuner.bundle import unpack_bundle

    existing_file(bundle)
    with tempfile.TemporaryDirectory(prefix="tessera-bundle-") as folder:
        unpack_bundle(bundle, Path(folder))
        yield Path(folder)
