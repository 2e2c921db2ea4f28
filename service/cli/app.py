"""All commands. Each imports what it needs when it runs: ``tessera --help`` is to answer at once."""

from __future__ import annotations

from typing import Annotated

import typer

from service import __version__
from service.cli import bundles, db, demo, doctor, jobs, records, serve, targets, token, tune

app = typer.Typer(
    name="tessera",
    help="Tune machine-learning models for a device, and get a verified, compiled module.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("check")(tune.check)
app.command("tune")(tune.tune)
app.add_typer(jobs.app, name="jobs")
app.command("download")(jobs.download)
app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(bundles.run)
app.command("verify")(bundles.verify)
app.command("wheel")(bundles.wheel)
app.command("compare")(jobs.compare)
app.add_typer(targets.app, name="targets")
app.add_typer(targets.devices, name="devices")
app.add_typer(records.app, name="records")
app.add_typer(records.cost_models, name="cost-models")
app.add_typer(token.app, name="token")
app.add_typer(db.app, name="db")
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tessera {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""
