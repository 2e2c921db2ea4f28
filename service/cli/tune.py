"""``tessera check`` and ``tessera tune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import (
    AsJson,
    DataDir,
    OutDir,
    TargetName,
    Token,
    Url,
    connect,
    existing_file,
    print_json,
    print_table,
    say,
)
from service.cli.values import InvalidOption, parse_bytes, parse_duration_s, parse_shapes, show_us

if TYPE_CHECKING:
    from service.client import Client
    from service.schemas.jobs import JobCreate, JobSchema

ModelPath = Annotated[Path, typer.Argument(help="An ONNX file.", show_default=False)]
InputShapes = Annotated[
    list[str] | None, typer.Option("--input-shape", help="Shape of an input, such as x=1x3x224x224; repeatable.")
]


def check(
    model: ModelPath,
    target: TargetName = "host",
    input_shape: InputShapes = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Can this model be tuned for this target? Exit status 1: no, and why."""
    shapes = parse_shapes(input_shape or [])
    with connect(url, token, data_dir) as client:
        client.target(target)
        uploaded = client.upload_model(existing_file(model))
        report = client.check(uploaded.id, target=target, input_shapes=shapes)
    if as_json:
        print_json(report)
        return
    rows = [
        [name.replace("_", " "), _short(value)]
        for name, value in report.model_dump(mode="json").items()
        if name != "model_id"
    ]
    print_table(["what", "value"], rows, empty="")
    print(f"OK: {model.name} can be tuned for {target}.")


def tune(
    model: ModelPath,
    target: TargetName = "host",
    trials: Annotated[int | None, typer.Option(help="Candidates to measure (512 when no time is given).")] = None,
    time: Annotated[str | None, typer.Option("--time", help="Longest time of the search, such as 10m.")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="Most activation memory, such as 2MiB.")] = None,
    input_shape: InputShapes = None,
    samples: Annotated[Path | None, typer.Option(help="Inputs to verify with (.npz).")] = None,
    measure: Annotated[str, typer.Option(help="device, or none to build without measuring.")] = "device",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    out: OutDir = Path("."),
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Tune a model and download its bundle."""
    from service.schemas.jobs import JobCreate, Measure

    existing_file(model)
    if trials is not None and trials < 1:
        raise InvalidOption(f"--trials {trials}: the number of trials must be positive.", code="invalid_budget")
    if measure not in list(Measure):
        raise InvalidOption(f"--measure is device or none, not {measure!r}.")
    if seed < 0:
        raise InvalidOption("--seed must not be negative.")
    shapes = parse_shapes(input_shape or [])
    time_limit_s = parse_duration_s(time) if time else None
    memory_limit_bytes = parse_bytes(memory_limit) if memory_limit else None
    with connect(url, token, data_dir, runs_jobs=True) as client:
        client.target(target)
        model_id = client.upload_model(model).id
        samples_id = client.upload_samples(existing_file(samples)).id if samples else None
        request = JobCreate(
            model_id=model_id,
            target=target,
            trials=trials,
            time_limit_s=time_limit_s,
            memory_limit_bytes=memory_limit_bytes,
            input_shapes=shapes,
            samples=samples_id,
            measure=Measure(measure),
            seed=seed,
        )
        job = run_job(client, request, ours=url is None)
        bundle = download_bundle(client, job.id, out) if job.state == "succeeded" else None
    if as_json:
        print_json({"job": job.model_dump(mode="json"), "bundle": str(bundle) if bundle else None})
    else:
        show_result(job, bundle)
    if bundle is None:
        raise typer.Exit(1)


def run_job(client: Client, request: JobCreate, *, ours: bool) -> JobSchema:
    """Start a job and follow it to its end. Ctrl-C cancels it when its engine is ours, and leaves it alone else."""
    from service.cli.watching import watch

    job = client.create_job(request)
    say(f"job {job.id}: {client.url}/jobs/{job.id}")
    if (job.queue_position or 0) > 1:
        say(f"{(job.queue_position or 1) - 1} jobs are before it")
    try:
        return watch(client, job.id)
    except KeyboardInterrupt:
        if not ours:
            say(f"The job goes on. Follow it with: tessera jobs watch {job.id}")
            say(f"End it with: tessera jobs cancel {job.id}")
            raise
        say("Cancelling the job …")
        client.cancel(job.id)
        watch(client, job.id)
        raise


def download_bundle(client: Client, job_id: str, folder: Path) -> Path | None:
    """The job's bundle, with its signature beside it."""
    downloaded = {
        artifact.kind: client.download(artifact, folder)
        for artifact in client.artifacts(job_id)
        if artifact.kind in ("bundle", "signature")
    }
    return downloaded.get("bundle")


def show_result(job: JobSchema, bundle: Path | None) -> None:
    if job.error is not None:
        say(f"Error: {job.error.message}")
        say(f"Hint: {job.error.hint}")
        return
    if job.result is None:
        say(f"The job was {job.state.value}.")
        return
    result = job.result
    if job.outcome == "unmeasured":
        print(f"Built for {job.target} without measuring: run the bundle there to check and time it.")
        if bundle is not None:
            print(f"bundle: {bundle}")
        return
    rows = [
        ["tuned", show_us(result.tuned_us, result.tuned_spread_us)],
        ["untuned (TVM's default build)", show_us(result.untuned_us)],
        ["ONNX Runtime", show_us(result.onnxruntime_us)],
    ]
    print_table([job.model_name, "latency"], rows, empty="", right=["latency"])
    if result.tuned_us and result.untuned_us:
        print(f"{result.untuned_us / result.tuned_us:.2f}× the untuned build ({job.outcome})")
    if bundle is not None:
        print(f"bundle: {bundle}")


def _short(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}…"
