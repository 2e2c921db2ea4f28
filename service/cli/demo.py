"""``tessera demo``: the shipped example through the whole house, with a result table and one JSON line."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.installed import require_server
from service.cli.options import DataDir, connect, existing_file, print_table, say
from service.cli.values import show_duration, show_us
from service.errors import ServiceError

if TYPE_CHECKING:
    from service.client import Client
    from service.schemas.jobs import JobSchema

_EXAMPLES = Path(__file__).parents[2] / "examples"
_DATA_DIR = Path(".tessera/demo")
# Pictures that the job itself verifies on, beside its random inputs; all of them are judged at the end.
_SAMPLES = 8


def demo(
    trials: Annotated[int, typer.Option(min=1, help="Candidates to measure.")] = 640,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for the bundle.", file_okay=False)] = _DATA_DIR,
    data_dir: DataDir = None,
) -> None:
    """Tune a small CNN that reads digits, and show what that changed. The last line is one JSON object."""
    require_server("tessera demo")
    from service.cli.bundles import unpacked
    from service.cli.digits import accuracies

    started = time.monotonic()
    model = existing_file(_EXAMPLES / "digits_cnn.onnx")
    images = existing_file(_EXAMPLES / "digits_test.npz")
    with connect(None, None, data_dir or _DATA_DIR, runs_jobs=True) as client:
        job, bundle = _tune(client, model, images, trials=trials, seed=seed, out=out)
        url = f"{client.url}/jobs/{job.id}"
    with unpacked(bundle) as folder:
        before, after = accuracies(folder, model, images)
    seconds = round(time.monotonic() - started, 1)
    figures = _figures(job, accuracies=(before, after), seconds=seconds, bundle=bundle, url=url)
    _show(figures)
    say(f"Look at the job in the dashboard: tessera serve --data-dir {data_dir or _DATA_DIR}")
    print(json.dumps(figures), flush=True)
    if not _right(figures):
        raise typer.Exit(1)


def _tune(client: Client, model: Path, images: Path, *, trials: int, seed: int, out: Path) -> tuple[JobSchema, Path]:
    from service.cli.digits import write_samples
    from service.cli.tune import download_bundle, run_job
    from service.schemas.jobs import JobCreate

    uploaded = client.upload_model(model)
    with tempfile.TemporaryDirectory() as temporary:
        samples = Path(temporary) / "digits.npz"
        write_samples(images, samples, input_name=uploaded.inputs[0].name, count=_SAMPLES)
        samples_id = client.upload_samples(samples).id
    request = JobCreate(model_id=uploaded.id, target="host", trials=trials, seed=seed, samples=samples_id)
    job = run_job(client, request, ours=True)
    if job.state != "succeeded":
        error = job.error
        raise ServiceError(
            f"The demo's job {job.state.value}: {error.message if error else 'no reason was given'}",
            code=error.code if error else "job_failed",
            hint=error.hint if error else "Start it again.",
        )
    bundle = download_bundle(client, job.id, out)
    if bundle is None:
        raise ServiceError("The demo's job has no bundle.", code="job_failed")
    return job, bundle


def _figures(
    job: JobSchema, *, accuracies: tuple[float, float], seconds: float, bundle: Path, url: str
) -> dict[str, Any]:
    """The JSON of the last line, with the keys in their promised order."""
    result = job.result
    tuned_us = result.tuned_us if result else None
    untuned_us = result.untuned_us if result else None
    return {
        "model": job.model_name,
        "target": job.target,
        "untuned_us": untuned_us,
        "tuned_us": tuned_us,
        "speedup": untuned_us / tuned_us if tuned_us and untuned_us else None,
        "onnxruntime_us": result.onnxruntime_us if result else None,
        "max_abs_error": result.max_abs_error if result else None,
        "max_rel_error": result.max_rel_error if result else None,
        "accuracy_before": accuracies[0],
        "accuracy_after": accuracies[1],
        "trials": job.progress.trials_done,
        "seconds": seconds,
        "bundle": str(bundle),
        "url": url,
    }


def _show(figures: dict[str, Any]) -> None:
    def ratio(latency_us: float | None) -> str:
        return f"{latency_us / figures['tuned_us']:.2f}×" if latency_us and figures["tuned_us"] else "–"

    rows = [
        ["tuned", show_us(figures["tuned_us"]), "1.00×"],
        ["untuned (TVM's default build)", show_us(figures["untuned_us"]), ratio(figures["untuned_us"])],
        ["ONNX Runtime", show_us(figures["onnxruntime_us"]), ratio(figures["onnxruntime_us"])],
    ]
    columns = [figures["model"], "latency", "of tuned"]
    print_table(columns, rows, empty="", right=columns[1:])
    print(f"accuracy {figures['accuracy_before']:.1%} before, {figures['accuracy_after']:.1%} after")
    print(f"largest error {figures['max_abs_error']:.2g}, relative {figures['max_rel_error']:.2g}")
    print(f"{figures['trials']} trials, {show_duration(figures['seconds'])}")


def _right(figures: dict[str, Any]) -> bool:
    """Whether the tuned module is as right as the model was."""
    if figures["accuracy_after"] < figures["accuracy_before"]:
        say("Error: The tuned module is less accurate than the model.")
        return False
    return True
