"""``tessera jobs``, ``tessera download`` and ``tessera compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.options import AsJson, DataDir, OutDir, Token, Url, connect, print_json, print_table, say
from service.cli.values import show_duration, show_us

if TYPE_CHECKING:
    from service.schemas.jobs import JobSchema

app = typer.Typer(help="List, follow and cancel jobs.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="The job's id.", show_default=False)]


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Jobs, newest first."""
    with connect(url, token, data_dir) as client:
        jobs = client.jobs(limit=limit)
    if as_json:
        print_json(jobs)
        return
    rows = [
        [
            job.id,
            job.model_name,
            job.target,
            f"{job.state.value}{f' ({job.stage})' if job.state == 'running' and job.stage else ''}",
            f"{job.progress.trials_done}/{job.progress.trials_total or '–'}",
            show_us(job.best.latency_us) if job.best else "–",
            _speedup(job),
        ]
        for job in jobs
    ]
    columns = ["id", "model", "target", "state", "trials", "best", "× untuned"]
    print_table(columns, rows, empty="No jobs yet. Start one: tessera tune MODEL", right=columns[4:])


@app.command("show")
def show(
    job_id: JobId, as_json: AsJson = False, url: Url = None, token: Token = None, data_dir: DataDir = None
) -> None:
    """One job with its tasks."""
    with connect(url, token, data_dir) as client:
        job, tasks = client.job(job_id), client.tasks(job_id)
    if as_json:
        print_json({**job.model_dump(mode="json"), "tasks": [task.model_dump(mode="json") for task in tasks]})
        return
    print_table(["job", job.id], _facts(job), empty="")
    rows = [
        [
            task.name if task.used else f"{task.name} (not used)",
            str(task.weight),
            str(task.trials),
            show_us(task.best_us),
            f"{task.gflops:.3g}" if task.gflops else "–",
            f"{task.percent_of_roofline:.0f}%" if task.percent_of_roofline is not None else "–",
            f"{task.untuned_us / task.best_us:.2f}×" if task.untuned_us and task.best_us else "–",
            f"{task.share:.1%}" if task.share is not None else "–",
            " ".join(f"{name}={value}" for name, value in task.knobs.items())[:80],
        ]
        for task in tasks
    ]
    columns = ["task", "weight", "trials", "best", "GFLOP/s", "roofline", "× untuned", "share", "knobs"]
    print_table(columns, rows, empty="No tasks yet.", right=columns[1:8])


@app.command("watch")
def watch_job(
    job_id: JobId, as_json: AsJson = False, url: Url = None, token: Token = None, data_dir: DataDir = None
) -> None:
    """Follow a job to its end. Exit status 1 when it fails or is cancelled."""
    from service.cli.tune import show_result
    from service.cli.watching import watch

    with connect(url, token, data_dir, runs_jobs=True) as client:
        client.job(job_id)
        job = watch(client, job_id)
    if as_json:
        print_json(job)
    else:
        show_result(job, None)
    if job.state != "succeeded":
        raise typer.Exit(1)


@app.command("cancel")
def cancel(
    job_id: JobId, as_json: AsJson = False, url: Url = None, token: Token = None, data_dir: DataDir = None
) -> None:
    """Cancel a waiting or running job."""
    with connect(url, token, data_dir) as client:
        client.cancel(job_id)
        for _ in client.events(job_id):  # until the engine has ended its processes
            pass
        job = client.job(job_id)
    if as_json:
        print_json(job)
    else:
        print(f"The job is {job.state.value}.")


def download(
    job_id: JobId,
    out: OutDir = Path("."),
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Download the bundle of a job."""
    from service.cli.tune import download_bundle

    with connect(url, token, data_dir) as client:
        job = client.job(job_id)
        bundle = download_bundle(client, job_id, out)
    if bundle is None:
        say(f"Error: The job has no bundle; it is {job.state.value}.")
        if job.error:
            say(f"Hint: {job.error.message} {job.error.hint}")
        raise typer.Exit(1)
    if as_json:
        print_json({"job": job_id, "bundle": str(bundle)})
    else:
        print(bundle)


def compare(
    first: JobId,
    second: JobId,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Two jobs side by side; a difference within the measuring spread is none."""
    with connect(url, token, data_dir) as client:
        jobs = [client.job(first), client.job(second)]
    a, b = (job.best for job in jobs)
    ratio = a.latency_us / b.latency_us if a and b else None
    spread_us = (a.spread_us or 0.0) + (b.spread_us or 0.0) if a and b else 0.0
    alike = bool(a and b and abs(a.latency_us - b.latency_us) <= spread_us)
    if as_json:
        told = {"jobs": [job.model_dump(mode="json") for job in jobs], "latency_ratio": ratio, "within_spread": alike}
        print_json(told)
        return
    facts = [dict(_pairs(job)) for job in jobs]
    print_table(["", jobs[0].id, jobs[1].id], [[name, facts[0][name], facts[1][name]] for name in facts[0]], empty="")
    if ratio is None:
        print("At least one of them has no latency yet.")
    elif alike:
        print("No difference beyond the measuring spread.")
    else:
        print(f"The {'second' if ratio > 1 else 'first'} one is {max(ratio, 1 / ratio):.2f}× as fast.")


def _facts(job: JobSchema) -> list[list[str]]:
    facts = [[name, value] for name, value in _pairs(job)]
    if job.error is not None:
        facts += [["error", f"{job.error.code}: {job.error.message}"], ["hint", job.error.hint]]
    return facts


def _pairs(job: JobSchema) -> list[tuple[str, str]]:
    best, baseline = job.best, job.baseline
    return [
        ("model", job.model_name),
        ("target", job.target),
        ("state", f"{job.state.value}, waiting for {job.waiting_for}" if job.waiting_for else job.state.value),
        ("stage", job.stage or "–"),
        ("outcome", job.outcome or "–"),
        ("trials", f"{job.progress.trials_done} of {job.progress.trials_total or '–'}"),
        ("time left", show_duration(job.progress.eta_s)),
        ("best", f"{show_us(best.latency_us, best.spread_us)}{'' if best.measured else ' estimated'}" if best else "–"),
        ("untuned", show_us(baseline.latency_us, baseline.spread_us) if baseline else "–"),
        ("ONNX Runtime", show_us(baseline.onnxruntime_us) if baseline else "–"),
        ("× untuned", _speedup(job)),
        ("roofline", _roofline(job)),
        ("seed", str(job.seed)),
        ("attempts", str(job.attempts)),
    ]


def _roofline(job: JobSchema) -> str:
    if job.roofline is None:
        return "–"
    return f"{job.roofline.peak_gflops:.3g} GFLOP/s, {job.roofline.bandwidth_gb_s:.3g} GB/s of memory"


def _speedup(job: JobSchema) -> str:
    return f"{job.baseline.latency_us / job.best.latency_us:.2f}×" if job.best and job.baseline else "–"
