"""``tessera records`` and ``tessera cost-models``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import (
    AsJson,
    DataDir,
    TargetName,
    Token,
    Url,
    connect,
    existing_file,
    print_json,
    print_table,
    say,
)

app = typer.Typer(help="What was measured: export and import.", no_args_is_help=True)
cost_models = typer.Typer(help="The cost model of each target.", no_args_is_help=True)
# The figures of a version by the column that they are shown in.
_FIGURES = {"pairwise accuracy": "pairwise_accuracy", "top-1": "top_1", "top-5": "top_5"}


@app.command("export")
def export_records(
    target: TargetName = "host",
    out: Annotated[Path | None, typer.Option("--out", help="File to write; standard output when unset.")] = None,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """A target's records as NDJSON."""
    with connect(url, token, data_dir) as client:
        lines = client.export_records(target=target)
        if out is None:
            for chunk in lines:
                sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            return
        partial = out.with_name(f".{out.name}.part")
        try:
            with partial.open("wb") as file:
                for chunk in lines:
                    file.write(chunk)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    say(f"wrote {out}")


@app.command("import")
def import_records(
    path: Annotated[Path, typer.Argument(help="NDJSON of an export, or a bundle's records.json.")],
    target: Annotated[str | None, typer.Option("--target", "-t", help="Accept records of this target only.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Store records that another Tessera measured on the same target."""
    existing_file(path)
    with connect(url, token, data_dir) as client:
        imported = client.import_records(path, target=target)
    if as_json:
        print_json(imported)
    else:
        print(f"{imported.records} records of {imported.workloads} new workloads; {imported.skipped} were here already")


@cost_models.command("list")
def list_cost_models(as_json: AsJson = False, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """The newest cost model of every target."""
    with connect(url, token, data_dir) as client:
        models = client.cost_models()
    if as_json:
        print_json(models)
        return
    rows = [
        [
            model.target or model.target_fingerprint,
            str(model.version),
            str(model.sample_count),
            *_quality(model.rank_quality),
        ]
        for model in models
    ]
    columns = ["target", "version", "samples", *_FIGURES]
    print_table(columns, rows, empty="No cost model yet: the first job trains one.", right=columns[1:])


@cost_models.command("show")
def show_cost_model(
    target: Annotated[str, typer.Argument(show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """All versions of a target's cost model, with their rank quality on held-out workloads."""
    with connect(url, token, data_dir) as client:
        model = client.cost_model(target)
    if as_json:
        print_json(model)
        return
    rows = [
        [
            str(version.version),
            str(version.sample_count),
            f"{version.created_at:%Y-%m-%d %H:%M}",
            *_quality(version.rank_quality),
        ]
        for version in model.versions
    ]
    columns = ["version", "samples", "trained", *_FIGURES]
    print_table(columns, rows, empty="", right=columns[:2] + columns[3:])


@cost_models.command("restore")
def restore_cost_model(
    target: Annotated[str, typer.Argument(show_default=False)],
    version: Annotated[int, typer.Argument(show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Go back to an earlier version of a target's cost model."""
    with connect(url, token, data_dir) as client:
        model = client.restore_cost_model(target, version)
    if as_json:
        print_json(model)
    else:
        print(f"Version {version} is in use again, as version {model.version}.")


def _quality(quality: dict[str, float]) -> list[str]:
    return [f"{quality[name]:.3f}" if name in quality else "–" for name in _FIGURES.values()]
