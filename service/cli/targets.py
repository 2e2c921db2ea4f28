"""``tessera targets`` and ``tessera devices``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import AsJson, DataDir, Token, Url, connect, existing_file, print_json, print_table
from tuner.targets import TargetSpec, read_targets

if TYPE_CHECKING:
    from service.api.schemas import TargetSchema

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
    rows = [[t.name, t.device, _bundle(t), "here" if t.measurable else "no", str(t.threads), t.triple] for t in targets]
    print_table(["name", "device", "bundle", "measured", "threads", "triple"], rows, empty="", right=["threads"])


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
    from service.api.schemas import TargetCreate

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
    return {name: value for name, value in spec.as_dict().items() if name != "fingerprint"}


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
