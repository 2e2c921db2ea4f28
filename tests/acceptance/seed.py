"""Fills a server's database the way jobs do: uploads, the queue, the stores and the reporter. Seeded, no TVM."""

from __future__ import annotations

import io
import json
import math
import random
import tarfile
from pathlib import Path
from typing import Any

from service.jobs import queue
from service.jobs.artifacts import Shelf, store_artifacts, store_schedules
from service.jobs.commands import cancel_job, create_job
from service.jobs.states import JobState
from service.schemas.jobs import JobCreate
from service.services import ProjectServices
from service.signing import SUFFIX, sign
from service.stores import DatabaseCostModelStore, DatabaseRecordStore, JobReporter
from tests import models as onnx_models
from tests import signed_in
from tests.service.tuning import claimed
from tuner.cost_model_store import HeldOutPoint, StoredCostModel
from tuner.events import (
    BaselineMeasured,
    DriftMeasured,
    Finished,
    Log,
    Preflight,
    Progress,
    RooflineMeasured,
    Stage,
    StageStarted,
    TasksExtracted,
    TaskSummary,
    TrialMeasured,
    UntunedTaskMeasured,
)
from tuner.records import FailureKind, Record, Workload
from tuner.search.alternatives import Use, most_calls
from tuner.targets import host_target, tvm_version

LONG_NAME = "a_model_with_a_really_long_name_that_somebody_exported_from_a_training_script_2026_11_23_final_v2"
MANY_TRIALS = 10_000
AT_ONCE = 16  # so many trials are told of together
# Name, calls, FLOPs, bytes of its arguments.
TASKS = (
    ("conv2d_3x3_56_relu", 4, 2.3e8, 2_600_000),
    ("conv2d_1x1_28", 8, 5.1e7, 1_400_000),
    ("fused_conv2d_transpose_add_batch_norm_relu_with_a_name_that_goes_on", 1, 1.8e7, 900_000),
    ("matmul", 2, 1.0e7, 1_250_000),
)
# Of a convolution and a mean that a real job tuned, and of a chain by windows, under the keys of TASKS.
SCHEDULES = Path(__file__).with_name("schedules.json")
UNTUNED_US, ONNXRUNTIME_US = 180_000.0, 9_100.0


def upload(url: str, path: Path) -> str:
    """Uploads a file over REST; returns the model's id."""
    answer = signed_in.post(f"{url}/api/v1/models", params={"filename": path.name}, content=path.read_bytes())
    answer.raise_for_status()
    return str(answer.json()["id"])


def add_models(url: str, folder: Path) -> dict[str, str]:
    """Uploads models of several kinds; returns their ids by file stem."""
    made = {
        "convolutional": onnx_models.convolutional(),
        LONG_NAME: onnx_models.perceptron(),
        "dynamic_sides": onnx_models.dynamic_sides(),
        "unsupported": onnx_models.unsupported(),
    }
    return {name: upload(url, onnx_models.write(model, folder / f"{name}.onnx")) for name, model in made.items()}


def add_jobs(services: ProjectServices, models: dict[str, str]) -> dict[str, str]:
    """A job in every state, oldest first, by what it shows. The last two wait, so the next claim takes ``queued``."""
    jobs: dict[str, str] = {}

    def start(name: str, model: str, *, trials: int) -> JobReporter:
        jobs[name] = create_job(services, JobCreate(model_id=models[model], trials=trials, seed=7)).job.id
        assert claimed(services.database) == jobs[name]
        reporter = JobReporter(services.database, jobs[name])
        reporter.emit(StageStarted(stage=Stage.IMPORT))
        return reporter

    reporter = start("failed", LONG_NAME, trials=256)
    reporter.emit(Log(message="unsupported_operators: LSTM, Celu", level="error"))
    error = {
        "code": "unsupported_operators",
        "message": "These operators cannot be imported: Celu (2), LSTM (1).",
        "hint": "Replace the listed operators, or export the model with an opset that avoids them.",
    }
    queue.finish(services.database, jobs["failed"], JobState.FAILED, error=error)

    reporter = start("many", "convolutional", trials=MANY_TRIALS)
    tune(services, jobs["many"], reporter, trials=MANY_TRIALS, total=MANY_TRIALS)
    succeed(services, jobs["many"], reporter, tuned_us=7460.0)

    reporter = start("no_improvement", LONG_NAME, trials=64)
    tune(services, jobs["no_improvement"], reporter, trials=64, total=64)
    succeed(services, jobs["no_improvement"], reporter, tuned_us=None)

    reporter = start("cancelled", "convolutional", trials=256)
    tune(services, jobs["cancelled"], reporter, trials=40, total=256)
    cancel_job(services, jobs["cancelled"])
    queue.finish(services.database, jobs["cancelled"], JobState.CANCELLED)

    reporter = start("cancelling", "convolutional", trials=256)
    cancel_job(services, jobs["cancelling"])

    reporter = start("running", "convolutional", trials=256)
    operators = {"Flatten": 1, "Conv": 2}
    reporter.emit(
        Preflight(report={"operators": operators, "flops": 2.3e8, "weights_bytes": 2048, "peak_activation_bytes": 9216})
    )
    tune(services, jobs["running"], reporter, trials=128, total=256)

    jobs["queued"] = create_job(services, JobCreate(model_id=models[LONG_NAME], trials=512)).job.id
    jobs["later"] = create_job(services, JobCreate(model_id=models["convolutional"], time_limit_s=600)).job.id
    add_cost_models(services)
    return jobs


def add_cost_models(services: ProjectServices) -> None:
    """Five versions: the first too small to be judged, the last with points to draw."""
    store = DatabaseCostModelStore(services.database, services.blobs)
    versions: tuple[tuple[int, dict[str, float]], ...] = (
        (96, {}),
        (980, {"pairwise_accuracy": 0.784, "top_1": 0.812, "top_5": 0.903}),
        (3_410, {"pairwise_accuracy": 0.862, "top_1": 0.874, "top_5": 0.951}),
        (6_200, {"pairwise_accuracy": 0.851, "top_1": 0.902, "top_5": 0.948}),
        (10_168, {"pairwise_accuracy": 0.911, "top_1": 0.934, "top_5": 0.976}),
    )
    for number, (samples, quality) in enumerate(versions, 1):
        store.save(
            StoredCostModel(
                target_fingerprint=host_target().fingerprint,
                features_version=1,
                model=b"ubjson" * 10_000 * number,
                samples=b"npz" * number,
                sample_count=samples,
                training_set_sha256=f"{number}b" * 32,
                rank_quality=quality,
                held_out=_held_out(random.Random(number)) if number == len(versions) else (),
            )
        )


def _held_out(rng: random.Random) -> tuple[HeldOutPoint, ...]:
    """400 points of 12 workloads, each predicted with an error of its own and one of its workload."""
    points = []
    for workload in range(12):
        shift = rng.gauss(0, 0.2)
        measured = [0.0, *(-min(rng.expovariate(0.7), 4.0) for _ in range(33 if workload < 4 else 32))]
        points += [
            HeldOutPoint(
                workload=workload,
                measured_log2=round(each, 3),
                predicted_log2=round(min(0.9 * each - 0.15 + shift + rng.gauss(0, 0.3), 0.2), 3),
            )
            for each in measured
        ]
    return tuple(points)


def tune(services: ProjectServices, job_id: str, reporter: JobReporter, *, trials: int, total: int) -> None:
    """Extracts tasks, measures the baseline, and runs that many trials, a few of them failures."""
    rng = random.Random(trials)
    summaries = tuple(
        TaskSummary(
            key=f"task{index}",
            name=name,
            workload=f"workload{index}",
            uses=(Use(count=weight),),
            flops=flops,
            traffic_bytes=traffic_bytes,
        )
        for index, (name, weight, flops, traffic_bytes) in enumerate(TASKS)
    )
    default = TaskSummary(
        key="task9", name="softmax", workload="workload9", uses=(Use(count=1),), flops=3e3, tunable=False
    )
    reporter.emit(StageStarted(stage=Stage.EXTRACT))
    reporter.emit(TasksExtracted(tasks=(*summaries, default)))
    reporter.emit(RooflineMeasured(peak_gflops=412.0, bandwidth_gb_s=18.4))
    reporter.emit(BaselineMeasured(latency_us=UNTUNED_US, spread_us=2400.0, onnxruntime_us=ONNXRUNTIME_US))
    reporter.emit(StageStarted(stage=Stage.TUNE))
    store = DatabaseRecordStore(services.database, job_id)
    for summary in summaries:
        store.add_workload(
            Workload(
                key=summary.workload,
                tvm_version=tvm_version(),
                name=summary.name,
                module_json="{}",
                flops=summary.flops,
            )
        )
    best: dict[str, float] = {}
    records, told = [], []
    for number in range(1, trials + 1):
        task = summaries[(number // 8) % len(summaries)]
        failure = rng.choice([FailureKind.BUILD_ERROR, FailureKind.RUN_TIMEOUT]) if rng.random() < 0.06 else None
        slowness = 1 + 5 * math.exp(-6 * number / trials) + rng.expovariate(1.2)
        latency_us = None if failure else task.flops / 6e4 * slowness / 3
        if latency_us is not None:
            best[task.key] = min(latency_us, best.get(task.key, latency_us))
        known = len(best) == len(summaries)
        knobs = _knobs(rng)
        records.append(_record(task.workload, latency_us, failure, knobs))
        told.append(
            TrialMeasured(
                number=number,
                task=task.key,
                latency_us=latency_us,
                failure=failure.value if failure else None,
                task_best_us=best.get(task.key),
                estimated_us=sum(most_calls(each.uses) * best[each.key] for each in summaries) if known else None,
                knobs=knobs,
            )
        )
    store.add(records)
    for first in range(0, trials, AT_ONCE):
        reporter.emit(*told[first : first + AT_ONCE])
    reporter.emit(
        Progress(
            trials_done=trials,
            trials_total=total,
            fraction=trials / total,
            eta_s=95.0,
            estimated_us=told[-1].estimated_us,
        )
    )
    for drift in (1.0, 1.08):
        reporter.emit(DriftMeasured(latency_us=412.0 * drift, drift=drift, noise=0.006, timings=2))
    for line in range(30):
        level = "warning" if line == 11 else "info"
        reporter.emit(Log(message=f"batch {line}: {TASKS[line % 4][0]}, 16 trials, best {400 - line} µs", level=level))


def measure_one(services: ProjectServices, job_id: str, *, number: int, latency_us: float) -> None:
    """One more trial of the first task, stored and told."""
    store_one(services, job_id, number=number, latency_us=latency_us)
    tell_one(services, job_id, number=number, latency_us=latency_us)


def store_one(services: ProjectServices, job_id: str, *, number: int, latency_us: float) -> None:
    knobs = _knobs(random.Random(number))
    DatabaseRecordStore(services.database, job_id).add([_record("workload0", latency_us, None, knobs)])


def tell_one(services: ProjectServices, job_id: str, *, number: int, latency_us: float) -> None:
    JobReporter(services.database, job_id).emit(
        TrialMeasured(
            number=number,
            task="task0",
            latency_us=latency_us,
            failure=None,
            task_best_us=latency_us,
            estimated_us=latency_us * 4 + 5000,
            knobs=_knobs(random.Random(number)),
        )
    )


def succeed(services: ProjectServices, job_id: str, reporter: JobReporter, *, tuned_us: float | None) -> None:
    """Verifies, packs a bundle and ends the job; without ``tuned_us`` no faster build was found."""
    outcome = "no_improvement" if tuned_us is None else "improved"
    # Of the last task it could not be measured.
    for index, (_, _, flops, _) in enumerate(TASKS[:-1]):
        reporter.emit(UntunedTaskMeasured(task=f"task{index}", latency_us=flops / 8e3))
    for stage in (Stage.BUILD, Stage.VERIFY, Stage.BENCHMARK, Stage.PACKAGE):
        reporter.emit(StageStarted(stage=stage))
    reporter.emit(
        Finished(
            outcome=outcome,
            tuned_us=tuned_us or UNTUNED_US * 1.02,
            tuned_spread_us=52.0,
            untuned_us=UNTUNED_US,
            onnxruntime_us=ONNXRUNTIME_US,
            max_abs_error=3.1e-6,
            max_rel_error=1.2e-6,
        )
    )
    bundle = services.settings.jobs_dir / job_id / "bundle-host.tar.gz"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(bundle, "w:gz") as archive:
        for name in ("manifest.json", "records.json"):
            content = json.dumps({"job": job_id, "memory": _memory() if tuned_us else {}}).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    signature = bundle.with_name(bundle.name + SUFFIX)
    signature.write_bytes(sign(services.settings, bundle))
    shelf = Shelf(services.database, services.blobs, job_id, attempt=1)
    store_artifacts(shelf, bundle, signature)
    if tuned_us:
        store_schedules(shelf, json.loads(SCHEDULES.read_text()))
    queue.finish(services.database, job_id, JobState.SUCCEEDED, outcome=outcome)


def _memory() -> dict[str, Any]:
    """Memory of a network with two chains by windows, as a bundle's manifest has it."""
    operators = [
        {"operator": name, "kernel": [kernel, kernel], "stride": 1, "output": [56, 56, channels], **ring}
        for name, kernel, channels, ring in (
            ("convolution", 1, 24, {"ring_rows": 3, "ring_bytes": 33_408}),
            ("depthwise", 3, 24, {"ring_rows": 1, "ring_bytes": 10_752}),
            ("convolution", 1, 8, {"ring_rows": None, "ring_bytes": None}),
        )
    ]
    part = {"source": [56, 56, 8], "operators": operators, "rows_per_step": 1, "macs": 1_881_600}
    windows = [
        {
            "chain": f"56×56×8→56×56×8, {3 * parts} operators",
            "way": f"windows {strips}×1",
            "count": 3,
            "parts": [{**part, "strips": strips, "computed_macs": 1_881_600 + 21_504 * (strips - 1)}] * parts,
        }
        for parts, strips in ((1, 2), (2, 1))
    ]
    return {
        "planned_peak_bytes": 1_212_416,
        "measured_peak_bytes": 1_220_608,
        "limit_bytes": 1_500_000,
        "timeline": [{"function": "f", "bytes": size} for size in (602_112, 1_204_224, 752_640, 301_056, 4_000)],
        "usual_timeline": [{"function": "f", "bytes": 40_000 * each} for each in (15, 60, 147, 90, 30, 60, 20, 4)],
        "windows": windows,
        "front": [
            {"peak_bytes": 800_000, "estimated_us": 9_800.0, "ways": {"a": "windows 1×1", "b": "windows 1×1"}},
            {"peak_bytes": 1_212_416, "estimated_us": 8_300.0, "ways": {"a": "windows 2×1"}},
            {"peak_bytes": 4_900_000, "estimated_us": 8_100.0, "ways": {}},
        ],
    }


def _knobs(rng: random.Random) -> dict[str, object]:
    tiles = {"h": [7, 2, 4, 1], "w": [7, 1, 8, 1], "co": [4, 1, 1, rng.choice([8, 16])], "ci": [8, 4]}
    return {"tiles": tiles, "unroll": rng.choice([0, 16, 64]), "vector_width": 16, "parallel": 28, "space": 1}


def _record(workload: str, latency_us: float | None, failure: FailureKind | None, knobs: dict[str, object]) -> Record:
    return Record(
        workload=workload,
        target_fingerprint=host_target().fingerprint,
        variant="tiling",
        decisions=((7, 2, 4, 1),),
        trace="{}",
        latency_us=latency_us,
        spread_us=None if latency_us is None else latency_us * 0.02,
        failure=failure,
        failure_message="it did not end within 10 s" if failure else "",
        knobs=knobs,
    )
