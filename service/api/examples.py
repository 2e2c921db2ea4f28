"""An example of what each operation is sent and answers, by the operation's id; `service.api.openapi` shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON, NDJSON, TEXT, EVENTS = "application/json", "application/x-ndjson", "text/plain", "text/event-stream"
BYTES, FORM, GZIP, PARTS = "application/octet-stream", "multipart/form-data", "application/gzip", "multipart/byteranges"


@dataclass(frozen=True, kw_only=True)
class Example:
    """Bodies by media type: of the request, of every successful answer, and of answers with another status."""

    request: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _answers(body: Any, *, request: Any = None) -> Example:
    return Example(request={} if request is None else {JSON: request}, answer={JSON: body})


def _page(*items: Any, next_cursor: str | None = None) -> Any:
    return {"items": list(items), "next_cursor": next_cursor}


def _lines(*values: Any) -> str:
    return "".join(f"{json.dumps(value)}\n" for value in values)


def _events(*events: tuple[int | None, str, Any]) -> str:
    sent = ["retry: 500\n\n"]
    for number, kind, data in events:
        identity = "" if number is None else f"id: {number}\n"
        sent.append(f"event: {kind}\ndata: {json.dumps(data)}\n{identity}\n")
    return "".join(sent)


_MODEL_ID = "9f2feb0f1ef425b292f2f94bcbb5b3a6e3a1f0c3e2d1b0a9f8e7d6c5b4a39281"
_SHA256 = "3b1c0d94a7d5e2f6081726354453627180fedcba98765432100123456789abcd"
_JOB_ID, _OTHER_JOB_ID = "01938f2e-7a3c-7c4e-9d57-2f6b1c0a9e11", "01938f31-0b52-7d19-8a44-6c1f2e3d4b5a"
_ARTIFACT_ID, _WEBHOOK_ID = "01938f3a-51d7-7b02-a6c8-90e4f1d2c3b4", "01938e00-3c1d-7f5a-9b2e-7d6c5b4a3921"
_TOKEN_ID = "01938e00-5b1e-7a40-8c33-0a1b2c3d4e5f"
_FINGERPRINT, _WORKLOAD, _TASK = "3f0c5b7a91d2e846", "a1f9c3d27b5e4860", "fused_conv2d_add_relu"
_STARTED, _MEASURED, _ENDED = "2026-11-23T10:00:00Z", "2026-11-23T10:00:41Z", "2026-11-23T10:03:12Z"
# What a path's placeholders stand for in examples.
PATH_VALUES = {
    "model_id": _MODEL_ID,
    "job_id": _JOB_ID,
    "artifact_id": _ARTIFACT_ID,
    "webhook_id": _WEBHOOK_ID,
    "token_id": _TOKEN_ID,
    "name": "host",
    "target": "host",
    "version": 3,
}

_INPUT = {"name": "x", "dtype": "float32", "shape": [1, 1, 32, 32]}
_OUTPUT = {"name": "logits", "dtype": "float32", "shape": [1, 10]}
_MODEL = {
    "id": _MODEL_ID,
    "name": "digits_cnn",
    "filename": "digits_cnn.onnx",
    "size_bytes": 412_033,
    "producer": "skl2onnx 1.17",
    "ir_version": 8,
    "opset": 17,
    "node_count": 12,
    "inputs": [_INPUT],
    "outputs": [_OUTPUT],
    "created_at": _STARTED,
    "job_count": 2,
}
_SAMPLES = {"id": _SHA256, "filename": "inputs.npz", "size_bytes": 33_024, "created_at": _STARTED}
_PREFLIGHT = {
    "operators": {"Conv": 3, "Relu": 3, "MaxPool": 2, "Gemm": 1},
    "opset": 17,
    "inputs": [_INPUT],
    "outputs": [_OUTPUT],
    "flops": 9_437_184.0,
    "weights_bytes": 398_376,
    "peak_activation_bytes": 196_608,
    "seconds_per_100_trials": 13.2,
    "least_memory_bytes": 81_920,
}
_TARGET = {
    "name": "host",
    "description": "this machine",
    "device": "AMD EPYC 7B13",
    "tvm": {"kind": "llvm", "mcpu": "znver3", "num-cores": 4},
    "triple": "x86_64-linux-gnu",
    "threads": 4,
    "features": ["avx2", "fma"],
    "vector_bits": 256,
    "cache_bytes": {"l1": 32_768, "l2": 524_288, "l3": 33_554_432},
    "memory_bytes": 16_777_216_000,
    "has_runtime": True,
    "processor": "znver3",
    "fingerprint": _FINGERPRINT,
    "builtin": True,
    "module": "module.so",
    "linker": "zig cc",
    "measurable": True,
    "checked_on": "host",
}
_NEW_TARGET = {
    "name": "host-1t",
    "tvm": {"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1},
    "triple": "x86_64-linux-gnu",
    "threads": 1,
}
_ADDED_TARGET = {
    **_TARGET,
    **_NEW_TARGET,
    "description": "",
    "features": [],
    "vector_bits": 128,
    "cache_bytes": {},
    "memory_bytes": None,
    "processor": "x86-64-v3",
    "fingerprint": "8d7c2f10a9b34e65",
    "builtin": False,
}
_DEVICE = {
    "name": "host",
    "description": "this machine",
    "target": "host",
    "state": "measuring",
    "running_job_id": _JOB_ID,
    "address": None,
    "last_seen": None,
    "waiting_jobs": 1,
}
_BOARD = {
    "name": "raspberry-pi-4 at 192.0.2.17:9090",
    "description": "a board of the fleet",
    "target": "raspberry-pi-4",
    "state": "idle",
    "running_job_id": None,
    "address": "192.0.2.17:9090",
    "last_seen": _MEASURED,
    "waiting_jobs": 0,
}

_QUEUED: dict[str, Any] = {
    "id": _JOB_ID,
    "model_id": _MODEL_ID,
    "model_name": "digits_cnn",
    "target": "host",
    "target_fingerprint": _FINGERPRINT,
    "state": "queued",
    "stage": None,
    "outcome": None,
    "queue_position": 1,
    "waiting_for": None,
    "budget": {"trials": 256, "time_limit_s": 600.0},
    "memory_limit_bytes": None,
    "input_shapes": {},
    "samples": None,
    "measure": "device",
    "seed": 0,
    "attempts": 0,
    "submitted_by": "ci",
    "created_at": _STARTED,
    "started_at": None,
    "finished_at": None,
    "progress": {"trials_done": 0, "trials_total": 256, "fraction": 0.0, "eta_s": None},
    "best": None,
    "baseline": None,
    "roofline": None,
    "convergence": [],
    "result": None,
    "preflight": None,
    "error": None,
}
_RUNNING = {
    **_QUEUED,
    "state": "running",
    "stage": "tune",
    "queue_position": None,
    "attempts": 1,
    "started_at": _STARTED,
    "progress": {"trials_done": 64, "trials_total": 256, "fraction": 0.25, "eta_s": 93.0},
    "best": {"latency_us": 412.0, "measured": False, "estimated_us": 412.0, "spread_us": None},
    "baseline": {"latency_us": 2140.0, "spread_us": 31.0, "onnxruntime_us": 455.0},
    "roofline": {"peak_gflops": 118.0, "bandwidth_gb_s": 17.5},
    "convergence": [[1, 1904.0], [16, 655.0], [64, 412.0]],
    "preflight": _PREFLIGHT,
}
_JOB_REQUEST = {"model_id": _MODEL_ID, "target": "host", "trials": 256, "time_limit_s": 600, "seed": 0}
_KNOBS = {"tile": [4, 16], "unroll": 16}
_TASK_EXAMPLE = {
    "key": "task0",
    "name": _TASK,
    "workload": _WORKLOAD,
    "weight": 2,
    "flops": 4_718_592.0,
    "traffic_bytes": 151_552,
    "tunable": True,
    "trials": 40,
    "failures": 1,
    "best_us": 96.4,
    "knobs": _KNOBS,
    "share": 0.47,
    "gflops": 48.9,
    "percent_of_roofline": 41.5,
    "untuned_us": 1_310.0,
    "uses": [{"count": 2, "choice": None, "way": None}],
    "way": None,
    "used": True,
}
_TRIAL = {
    "number": 1,
    "task": "task0",
    "latency_us": 131.8,
    "failure": None,
    "failure_message": "",
    "knobs": _KNOBS,
    "task_best_us": 131.8,
    "estimated_us": 1904.0,
    "created_at": _MEASURED,
}
_FAILED_TRIAL = {
    **_TRIAL,
    "number": 2,
    "latency_us": None,
    "failure": "run_timeout",
    "failure_message": "It ran for longer than 10 s.",
}
_ARTIFACT = {
    "id": _ARTIFACT_ID,
    "job_id": _JOB_ID,
    "kind": "bundle",
    "filename": "digits_cnn-host.tar.gz",
    "content_type": GZIP,
    "size_bytes": 611_204,
    "sha256": _SHA256,
    "created_at": _ENDED,
    "download_url": f"/api/v1/artifacts/{_ARTIFACT_ID}/download",
}
_POINT = {
    "name": "tuned",
    "latency_us": 398.0,
    "spread_us": 4.0,
    "estimated_us": None,
    "peak_bytes": 196_608,
    "measured_peak_bytes": 200_704,
    "ways": {},
    "shipped": True,
}
_FRONT = [
    _POINT,
    {
        **_POINT,
        "name": "1 parts in other ways",
        "latency_us": None,
        "spread_us": None,
        "estimated_us": 431.0,
        "peak_bytes": 81_920,
        "measured_peak_bytes": None,
        "ways": {"chain0": "roll 4"},
        "shipped": False,
    },
]

_RECORD = {
    "kind": "record",
    "workload": _WORKLOAD,
    "target_fingerprint": _FINGERPRINT,
    "variant": "full",
    "decisions": [[4, 16], [2, 8]],
    "trace": "[…]",
    "latency_us": 131.8,
    "spread_us": 1.5,
    "failure_message": "",
    "knobs": _KNOBS,
    "features": [0.5, 12.0],
    "features_version": 1,
    "cost_s": 0.13,
}
_RECORDS = _lines(
    {
        "kind": "workload",
        "key": _WORKLOAD,
        "tvm_version": "0.27.0",
        "name": _TASK,
        "module_json": "{…}",
        "flops": 4_718_592.0,
    },
    _RECORD,
)
_COST_MODEL = {
    "target": "host",
    "target_fingerprint": _FINGERPRINT,
    "version": 7,
    "features_version": 1,
    "sample_count": 4120,
    "training_set_sha256": _SHA256,
    "rank_quality": {"pairwise_accuracy": 0.884, "top_1": 0.921, "top_5": 0.972},
    "size_bytes": 412_033,
    "created_at": _ENDED,
}
_HELD_OUT = [
    {"workload": 0, "measured_log2": 0.0, "predicted_log2": -0.118},
    {"workload": 0, "measured_log2": -1.402, "predicted_log2": -1.273},
]
_COST_MODEL_DETAIL = {**_COST_MODEL, "versions": [_COST_MODEL], "held_out": _HELD_OUT}
_RESTORED = {**_COST_MODEL, "version": 8}

_WEBHOOK_REQUEST = {"url": "https://ci.example.com/tessera"}
_WEBHOOK = {
    "id": _WEBHOOK_ID,
    **_WEBHOOK_REQUEST,
    "created_at": _STARTED,
    "pending": 0,
    "delivered": 12,
    "failed": 0,
}
_SECRET = "6f1c2b3a4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8"
_DELIVERY = {
    "id": 41,
    "event": "job.ended",
    "job_id": _JOB_ID,
    "state": "delivered",
    "attempts": 1,
    "due_at": _ENDED,
    "status": 204,
    "error": None,
    "created_at": _ENDED,
    "ended_at": _ENDED,
}
_TEST_DELIVERY = {
    **_DELIVERY,
    "event": "test",
    "job_id": None,
    "state": "pending",
    "attempts": 0,
    "status": None,
    "ended_at": None,
}
_STORAGE = {
    "kept": [
        {"name": "Models", "count": 3, "size_bytes": 17_301_504},
        {"name": "Jobs", "count": 14, "size_bytes": None},
    ],
    "database_bytes": 8_388_608,
    "free_bytes": 120_259_084_288,
    "retention_days": 90,
}
_CLEAN_UP = {
    "days": 30,
    "deleted": False,
    "size_bytes": 611_204,
    "jobs": [{"id": _OTHER_JOB_ID, "name": "digits_cnn", "size_bytes": 611_204}],
    "models": [],
    "samples": [],
    "cost_models": [],
}
_TOKEN = {
    "id": _TOKEN_ID,
    "name": "ci",
    "kind": "made",
    "scope": "submit",
    "project": "vision",
    "created_at": _STARTED,
    "expires_at": "2027-02-21T10:00:00Z",
    "revoked_at": None,
    "last_used_at": _MEASURED,
}
_NEW_TOKEN = {"name": "ci", "scope": "submit", "project": "vision", "expires_in_s": 7_776_000}
_CHANGE = {
    "id": 12,
    "at": _STARTED,
    "who": "ci",
    "token_id": _TOKEN_ID,
    "address": "192.0.2.7",
    "method": "POST",
    "path": "/api/v1/jobs",
    "status": 201,
}
_CHECKS = [
    {"name": "database", "ok": True, "detail": "revision 0012"},
    {"name": "blobs", "ok": True, "detail": ""},
    {"name": "disk", "ok": True, "detail": ""},
    {"name": "engine", "ok": True, "detail": "local, 1 job at once"},
]
_NO_ENGINE = [*_CHECKS[:-1], {"name": "engine", "ok": False, "detail": "its thread has ended"}]
_METRICS = """# HELP tessera_jobs Jobs by state.
# TYPE tessera_jobs gauge
tessera_jobs{state="queued"} 1.0
tessera_jobs{state="running"} 1.0
"""


def _file(what: str, media_type: str = BYTES) -> Example:
    return Example(answer={media_type: f"({what})", PARTS: f"(parts of {what})"})


def _upload(what: str, answer: Any) -> Example:
    return Example(request={BYTES: f"({what})", FORM: {"file": f"({what})"}}, answer={JSON: answer})


EXAMPLES: dict[str, Example] = {
    "upload_model": _upload("the bytes of the .onnx file", {**_MODEL, "job_count": 0}),
    "upload_samples": _upload("the bytes of the .npz file", _SAMPLES),
    "list_models": _answers(_page(_MODEL)),
    "get_model": _answers(_MODEL),
    "download_model": _file("the bytes of the .onnx file"),
    "delete_model": Example(),
    "check_model": _answers({"model_id": _MODEL_ID, "target": "host", **_PREFLIGHT}, request={"target": "host"}),
    "list_targets": _answers(_page(_TARGET)),
    "get_target": _answers(_TARGET),
    "create_target": _answers(_ADDED_TARGET, request=_NEW_TARGET),
    "list_devices": _answers(_page(_DEVICE, _BOARD)),
    "create_job": _answers(_QUEUED, request=_JOB_REQUEST),
    "list_jobs": _answers(_page(_RUNNING, next_cursor="WyIwMTkzOGYyZSJd")),
    "get_job": _answers(_RUNNING),
    "cancel_job": _answers({**_RUNNING, "state": "cancelling"}),
    "delete_job": Example(),
    "list_tasks": _answers(_page(_TASK_EXAMPLE)),
    "list_trials": _answers(_page(_TRIAL, _FAILED_TRIAL, next_cursor="WzJd")),
    "get_log": Example(
        answer={
            JSON: _page({"id": 3, "time": _STARTED, "level": "info", "message": "4 tasks, 256 trials."}),
            TEXT: "10:00:00 4 tasks, 256 trials.\n",
            PARTS: "(parts of the text)",
        }
    ),
    "list_artifacts": _answers(_page(_ARTIFACT)),
    "get_front": _answers({"job_id": _JOB_ID, "memory_limit_bytes": None, "points": _FRONT}),
    "stream_events": Example(
        answer={
            EVENTS: _events(
                (1, "state", {"state": "queued"}),
                (2, "stage", {"stage": "import"}),
                (118, "state", {"state": "succeeded"}),
                (None, "end", {"state": "succeeded"}),
            )
        }
    ),
    "get_signing_key": _answers(
        {
            "algorithm": "ed25519",
            "public_key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "fingerprint": "21fe31dfa154a261",
        }
    ),
    "get_artifact": _answers(_ARTIFACT),
    "download_artifact": Example(
        answer={
            GZIP: "(the bytes of the bundle)",
            JSON: "(the bytes of the manifest, or of another artifact in JSON)",
            BYTES: "(the bytes of the signature)",
            PARTS: "(parts of the file)",
        }
    ),
    "export_records": Example(answer={NDJSON: _RECORDS}),
    "import_records": Example(request={NDJSON: _RECORDS}, answer={JSON: {"workloads": 1, "records": 1, "skipped": 0}}),
    "list_cost_models": _answers(_page(_COST_MODEL)),
    "get_cost_model": _answers(_COST_MODEL_DETAIL),
    "restore_cost_model": _answers({**_COST_MODEL_DETAIL, "version": 8, "versions": [_RESTORED, _COST_MODEL]}),
    "create_webhook": _answers({**_WEBHOOK, "delivered": 0, "secret": _SECRET}, request=_WEBHOOK_REQUEST),
    "list_webhooks": _answers(_page(_WEBHOOK)),
    "delete_webhook": Example(),
    "try_webhook": _answers(_TEST_DELIVERY),
    "list_deliveries": _answers(_page(_DELIVERY)),
    "get_storage": _answers(_STORAGE),
    "set_retention": _answers(_STORAGE, request={"days": 90}),
    "clean_up_storage": _answers(_CLEAN_UP, request={"days": 30, "dry_run": True}),
    "create_token": _answers({**_TOKEN, "last_used_at": None, "token": "tss_… (47 characters)"}, request=_NEW_TOKEN),
    "list_tokens": _answers(_page(_TOKEN)),
    "revoke_token": Example(),
    "create_sign_in_link": _answers(
        {"url": "http://127.0.0.1:8765/sign-in?code=tsl_…", "expires_at": "2026-11-23T10:10:00Z"}
    ),
    "list_audit": _answers(_page(_CHANGE, next_cursor="WzEyXQ")),
    "get_health": _answers({"status": "ok"}),
    "get_readiness": Example(
        answer={JSON: {"status": "ok", "checks": _CHECKS}},
        others={"503": {JSON: {"status": "unavailable", "checks": _NO_ENGINE}}},
    ),
    "get_metrics": Example(answer={TEXT: _METRICS}),
}
