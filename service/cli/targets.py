"""``tessera targets`` and ``tessera devices``."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.options import AsJson, DataDir, Token, Url, connect, print_json, print_table

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
    rows = [[t.name, t.device, str(t.tvm.get("mcpu", "–")), str(t.threads), t.triple, t.fingerprint] for t in targets]
    print_table(["name", "device", "cpu", "threads", "triple", "fingerprint"], rows, empty="", right=["threads"])


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


@devices.command("list")
def list_devices(as_json: AsJson = False, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Every device that can measure."""
    with connect(url, token, data_dir) as client:
        found = client.devices()
    if as_json:
        print_json(found)
        return
    rows = [[device.name, device.target, device.state, device.description] for device in found]
    print_table(["name", "target", "state", "description"], rows, empty="No devices.")
