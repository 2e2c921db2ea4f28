"""``tessera targets`` and ``tessera devices``."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.installed import require_server
from service.cli.options import AsJson, DataDir, Token, Url, connect, existing_file, print_json, print_table
from service.dashboard.figures import ago
from tuner.targets import TargetSpec, find_target, read_targets

if TYPE_CHECKING:
    from service.schemas.targets import TargetSchema

app = typer.Typer(help="What can be built for.", no_args_is_help=True)
devices = typer.Typer(help="What can be measured on.", no_args_is_help=True)


@app.command("list")
def list_targets(as_json: AsJson = False, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Every target."""
    with connect(url, token, data_dir) as client:
        targets = client.targets()
    if as_json:
        print_json(targets)
        return
    rows = [
        [t.name, t.device, _bundle(t), "here" if t.measurable else "no", t.checked_on, str(t.threads), t.triple]
        for t in targets
    ]
    columns = ["name", "device", "bundle", "measured", "checked on", "threads", "triple"]
    print_table(columns, rows, empty="", right=["threads"])


def _bundle(target: TargetSchema) -> str:
    """What a bundle has: a library, object files, or nothing because no linker is here."""
    if target.module == "module.tar":
        return "object files"
    return target.module if target.linker else "no linker"


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """One target."""
    with connect(url, token, data_dir) as client:
        target = client.target(name)
    if as_json:
        print_json(target)
        return
    rows = [[field.replace("_", " "), str(value)] for field, value in target.model_dump(mode="json").items()]
    print_table(["target", name], rows, empty="")


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="A TOML file with a table for each target.", show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Add targets of one's own."""
    from service.schemas.targets import TargetCreate

    described = read_targets(existing_file(file).read_text(encoding="utf-8"))
    requests = [TargetCreate.model_validate(_fields(spec)) for spec in described]
    with connect(url, token, data_dir) as client:
        targets = [client.create_target(request) for request in requests]
    if as_json:
        print_json(targets)
        return
    for target in targets:
        print(f"Added {target.name}. Build for it with: tessera tune MODEL --target {target.name} --measure none")


def _fields(spec: TargetSpec) -> dict[str, object]:
    return asdict(spec) | {"features": list(spec.features)}


@devices.command("list")
def list_devices(as_json: AsJson = False, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Every device that can measure."""
    with connect(url, token, data_dir) as client:
        found = client.devices()
    if as_json:
        print_json(found)
        return
    rows = [
        [
            device.name,
            device.target,
            device.state,
            str(device.waiting_jobs),
            ago(device.last_seen) if device.last_seen else "now",
            device.description,
        ]
        for device in found
    ]
    columns = ["name", "target", "state", "waiting jobs", "last seen", "description"]
    print_table(columns, rows, empty="No devices.", right=["waiting jobs"])


@devices.command("serve")
def serve(
    host: Annotated[str, typer.Option(help="Address that boards reach; TVM RPC has no authentication.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the tracker.")] = 9190,
    target: Annotated[str, typer.Option(help="Target of the board whose command is shown.")] = "raspberry-pi-4",
) -> None:
    """Run the tracker that boards join, and show what to run on a board."""
    import os
    import signal
    import subprocess
    import sys

    require_server("tessera devices serve")
    from tuner.board_setup import board_commands

    spec = find_target(target)
    print(board_commands(spec, host=host, port=port), flush=True)
    command = [sys.executable, "-m", "tvm.exec.rpc_tracker", "--host", host, "--port", str(port)]
    # The tracker has a child of its own: both end with this command, however it ends.
    tracker = subprocess.Popen([*command, "--port-end", str(port + 1)], start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        status = tracker.wait()
    except KeyboardInterrupt:
        status = 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(tracker.pid, signal.SIGKILL)
    if status:
        raise typer.Exit(1)
