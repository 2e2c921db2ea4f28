"""``tessera run`` and ``tessera verify``: a bundle is unpacked and its own run.py is run, in a child process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.installed import require_server
from service.cli.options import AsJson, DataDir, OutDir, existing_file, load_settings, print_json

if TYPE_CHECKING:
    from service.settings import Settings

_RUNTIME_HINT = "Install what the bundle's requirements.txt names, or: pip install 'tessera[server]'"
BundlePath = Annotated[Path, typer.Argument(help="A bundle (.tar.gz).", show_default=False)]


def run(
    context: typer.Context,
    bundle: BundlePath,
    device: Annotated[
        str | None, typer.Option(metavar="KEY", help="Run it on a board of the fleet that has joined under this key.")
    ] = None,
) -> None:
    """Run a bundle's run.py; further options are passed on, such as --benchmark or --profile."""
    from tuner.bundle import RUNTIME_MODULES

    require_server("Running a bundle", modules=RUNTIME_MODULES, hint=_RUNTIME_HINT)
    on_board = [] if device is None else ["-m", "tuner.board_bundle", _tracker_with(device, bundle), device]
    with unpacked(bundle) as folder:
        program = [*on_board, str(folder)] if on_board else ["-P", str(folder / "run.py")]
        done = subprocess.run([sys.executable, *program, *context.args], check=False)
    if done.returncode:
        raise typer.Exit(1)


def _tracker_with(key: str, bundle: Path) -> str:
    """The address of the tracker that has a board of this key, for a bundle that such a board can load."""
    from service.errors import Conflict, Invalid
    from tuner.bundle import read_manifest, target_of
    from tuner.measure.tracker import Tracker
    from tuner.targets import list_targets

    address = load_settings().tracker
    if address is None:
        raise Invalid(
            "No tracker is set, so that there are no boards.",
            code="no_tracker",
            hint="TESSERA_TRACKER=HOST:PORT is the tracker that tessera devices serve has started.",
        )
    keys = sorted({board.key for board in Tracker.parse(address).fleet().boards})
    if key not in keys:
        raise Conflict(
            f"No board has joined under the key {key}.",
            code="no_device",
            hint=f"There are: {', '.join(keys)}." if keys else "None has joined: tessera devices serve says how.",
        )
    needed = target_of(read_manifest(existing_file(bundle))).triple
    theirs = next((spec.triple for spec in list_targets() if spec.name == key), needed)
    if theirs != needed:
        raise Conflict(
            f"{bundle.name} is for {needed}, boards of {key} are {theirs}.",
            code="wrong_target",
            hint=f"Build one for them: tessera tune MODEL --target {key}",
        )
    return address


def verify(
    bundle: BundlePath,
    key: Annotated[str | None, typer.Option(help="Public key that must have signed it (tessera doctor).")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Check the signature, every file's SHA-256, and the module's outputs on the samples where this machine can run
    it. Exit status 1: something differs."""
    from tuner.bundle import verify_bundle

    signer = _signer(existing_file(bundle), key, load_settings(data_dir))
    checked = verify_bundle(bundle)
    if as_json:
        print_json({**checked.as_dict(), "signature": signer})
    else:
        print(signer["told"])
        for problem in checked.problems:
            print(f"WRONG: {problem}")
        if not checked.ok:
            print(f"{bundle.name} is not right.")
        elif checked.not_run:
            print(f"OK: {bundle.name} is whole. {checked.not_run}, so that it was not run.")
        else:
            print(f"OK: {bundle.name} is whole and agrees with its samples.")
    if not checked.ok:
        raise typer.Exit(1)


def wheel(bundle: BundlePath, out: OutDir = Path(".")) -> None:
    """Make a Python wheel of a bundle: pip install it on the device, then import the model's name."""
    from tuner.wheel import write_wheel

    print(f"wheel: {write_wheel(existing_file(bundle), out)}")


def _signer(bundle: Path, key: str | None, settings: Settings) -> dict[str, object]:
    """What there is to say of the signature beside a bundle; raises `SignatureError` for one that is wrong."""
    from service.signing import SUFFIX, SignatureError, check_signature, known_key, parse_key

    trusted = parse_key(key) if key else None
    signature = bundle.with_name(bundle.name + SUFFIX)
    if not signature.exists():
        if trusted is not None:
            raise SignatureError(f"{bundle.name} has no signature.", hint=f"Put {signature.name} beside it.")
        return {"fingerprint": None, "told": f"not signed: there is no {signature.name} beside it"}
    signer = check_signature(bundle, signature.read_bytes(), trusted=trusted)
    ours = known_key(settings)
    whose = "the key that was given" if trusted else "this installation" if signer == ours else "a key unknown here"
    return {"fingerprint": signer.fingerprint, "told": f"signed by {whose}, {signer.fingerprint}"}


@contextlib.contextmanager
def unpacked(bundle: Path) -> Iterator[Path]:
    """A temporary folder with the bundle's files; raises `BundleError`."""
    from tuner.bundle import unpack_bundle

    existing_file(bundle)
    with tempfile.TemporaryDirectory(prefix="tessera-bundle-") as folder:
        unpack_bundle(bundle, Path(folder))
        yield Path(folder)
