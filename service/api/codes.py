"""Which problems an operation answers with: the error codes of each status, with an example of each.

A route names what it raises. What FastAPI and the guard in front of all routes add, `service.api.openapi` knows.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.errors import status_of
from tuner.errors import TesseraError

MEDIA_TYPE = "application/problem+json"
REFERENCE = {"$ref": "#/components/schemas/Problem"}


class FieldError(BaseModel):
    """What is wrong with one field: where it is (``["body", "trials"]``), in words, and by its kind."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(BaseModel):
    """An error (RFC 9457): `code` is stable, `hint` says what to do next, `details` depend on the code."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="the code once more, with hyphens")
    title: str = Field(description="the status in words")
    status: int = Field(description="the HTTP status", ge=400, le=599)
    detail: str = Field(description="what happened")
    code: str = Field(description="what happened, for programs: a code is never given another meaning")
    hint: str = Field(description="what to do next")
    details: dict[str, Any] | None = Field(default=None, description="more of it, for programs")
    errors: list[FieldError] | None = Field(default=None, description="every field that is wrong (`invalid_request`)")


# Of codes that are given where an error is raised: status, an example of what happened, and of the hint.
_CODES: dict[str, tuple[int, str, str]] = {
    "artifact_not_found": (
        404,
        "There is no artifact 'a1'.",
        "List a job's artifacts with GET /api/v1/jobs/{id}/artifacts.",
    ),
    "bad_request": (400, "There was an error parsing the body", "The body cannot be read: /docs shows an example."),
    "check_timeout": (
        422,
        "The check took longer than 60 s.",
        "Raise TESSERA_CHECK_TIMEOUT_S on the server, or start a job: it has no such limit.",
    ),
    "compiler_crashed": (
        422,
        "The compiler crashed while it imported the model (SIGSEGV).",
        "The model makes the compiler crash. Export it with another opset or simplify it, and please report it.",
    ),
    "cost_model_not_found": (
        404,
        "There is no cost model for target 'raspberry-pi-4'.",
        "The first job that tunes for the target trains one.",
    ),
    "cyclic_graph": (
        422,
        "Values of the model depend on themselves: hidden → gate → hidden.",
        "Loops are written with the operators Loop and Scan. Export the model again.",
    ),
    "duplicate_name": (
        422,
        "The model has more than one value of the same name: 'hidden'.",
        "Each name stands for one value. Export the model again, or rename them.",
    ),
    "dynamic_output": (
        422,
        "The shape of 'boxes' depends on the data, or cannot be inferred.",
        "Cut the model before the operator whose shape depends on data (NonMaxSuppression, NonZero, …).",
    ),
    "external_data": (
        422,
        "2 tensors of this model lie in other files (conv.weight, conv.bias).",
        "Save the model as one file: onnx.save_model(onnx.load(path), new_path, save_as_external_data=False).",
    ),
    "idempotency_key_reused": (
        422,
        "This Idempotency-Key was used for another request.",
        "Use a new key for a new job, or repeat the first request unchanged.",
    ),
    "import_failed": (
        422,
        "Operator Resize could not be imported: antialias.",
        "The operator is known, but not with these attributes. Export the model with plainer ones.",
    ),
    "internal_error": (
        500,
        "The server failed on this request.",
        "The server's log has the cause. Please report it.",
    ),
    "invalid_budget": (
        422,
        "trials: Input should be greater than or equal to 1",
        "trials, time_limit_s and memory_limit_bytes are positive numbers.",
    ),
    "invalid_cursor": (
        422,
        "The cursor is not one of this list.",
        "Pass next_cursor of the page before as it is, or leave cursor out to start again.",
    ),
    "invalid_form": (422, "The form has no file.", "Send it as: curl -F file=@model.onnx URL"),
    "invalid_idempotency_key": (
        422,
        "An Idempotency-Key has 1 to 255 characters.",
        "Correct the named fields.",
    ),
    "invalid_request": (
        422,
        "limit: Input should be less than or equal to 1000",
        "Correct the named fields; /docs shows an example.",
    ),
    "invalid_retention": (
        422,
        "0 is no number of days to keep something.",
        "Give a whole number from 1 to 36500, or none to keep everything.",
    ),
    "invalid_target": (
        422,
        "Only LLVM and CUDA targets can be built.",
        'Give a "kind": "llvm" in "tvm".',
    ),
    "invalid_webhook": (
        422,
        "'ftp://ci.example.com' is no address that can be told.",
        "Give an http or https URL with a host, and without a user name in it.",
    ),
    "job_active": (409, "The job is running.", "Cancel the job first, then delete it."),
    "job_finished": (409, "The job has succeeded already.", "Only waiting and running jobs can be cancelled."),
    "job_not_found": (404, "There is no job 'j1'.", "List the jobs with: tessera jobs list"),
    "model_in_use": (
        409,
        "Jobs use this model.",
        "Delete the jobs of the model first, each with DELETE /api/v1/jobs/{id}.",
    ),
    "model_not_found": (
        404,
        "There is no model 'm1'.",
        "Upload it with POST /api/v1/models, or list the models that are here.",
    ),
    "model_too_complex": (
        422,
        "The model has too many operators: 81234, where at most 50000 are taken.",
        "Simplify the model, for example with onnxsim, or cut it into parts. The limits are in docs/security.md.",
    ),
    "model_too_large": (
        422,
        "There is not enough memory to import the model.",
        "Tune it on a machine with more memory, or tune a smaller variant.",
    ),
    "no_device": (
        409,
        "No device here can measure code for target raspberry-pi-4 (Raspberry Pi 4).",
        "Build without measuring, from what is known of the target (measure: none), or tune for host.",
    ),
    "not_onnx": (
        422,
        "This is not an ONNX file.",
        "Upload a .onnx file: export the model with torch.onnx.export, tf2onnx or skl2onnx first.",
    ),
    "range_not_satisfiable": (416, "The file has 412033 bytes.", "Ask for bytes that the file has."),
    "records_invalid": (
        422,
        "Entry 3 is no record: Field required",
        "Import what GET /api/v1/records or a bundle's records.json gave; nothing was stored.",
    ),
    "samples_invalid": (
        422,
        "The samples are not an .npz file of arrays.",
        "Write them with numpy.savez(path, input_name=array, …), one array per model input.",
    ),
    "samples_not_found": (404, "There are no samples 's1'.", "Upload the .npz first: POST /api/v1/samples."),
    "shape_mismatch": (
        422,
        "The shape 3x224 does not fit input 'image': it has 4 dimensions.",
        "The model declares image: ?x3x224x224.",
    ),
    "signature_invalid": (
        500,
        "signing.pem holds a key of another kind.",
        "Give an Ed25519 key as PEM, unencrypted; without TESSERA_SIGNING_KEY and signing.key a new one is made.",
    ),
    "sparse_weights": (
        422,
        "The model stores weights as sparse tensors, which cannot be imported.",
        "Export the model with dense weights.",
    ),
    "target_exists": (
        409,
        "There is a target named 'host-1t' already.",
        "Choose another name: records belong to a target as it was measured.",
    ),
    "target_mismatch": (
        422,
        "The records were measured on another target (8d7c2f10a9b34e65).",
        "Latencies only hold where they were measured: same device, threads and TVM version. "
        "Compare the fingerprints with: tessera targets list",
    ),
    "token_exists": (409, "There is a token named 'ci' already.", "Choose another name, or revoke that one first."),
    "token_not_found": (
        404,
        "There is no token 't1' that could be revoked.",
        "List them with: tessera token list",
    ),
    "too_large": (
        413,
        "The upload is larger than 2147483648 bytes.",
        "Raise TESSERA_MAX_UPLOAD_BYTES on the server, or export a smaller model.",
    ),
    "truncated_model": (
        422,
        "The file starts like an ONNX model but ends early, after 4096 bytes: it is truncated.",
        "Upload the file again and compare its size with the original.",
    ),
    "unknown_input": (422, "The model has no input named 'x'.", "Its inputs are: image."),
    "unknown_target": (
        404,
        "There is no target named 'abacus'.",
        "Known targets: host, raspberry-pi-4. Show them with: tessera targets list",
    ),
    "unsupported_input": (
        422,
        "Input 'names' is not a numeric tensor.",
        "Only models whose inputs are tensors of numbers can be tuned.",
    ),
    "unsupported_opset": (
        422,
        "The model uses opset 99; opsets 1 to 26 are known.",
        "Export it with opset 26 or older, or convert it with onnx.version_converter.",
    ),
    "webhook_not_found": (404, "There is no webhook 'w1'.", "GET /api/v1/webhooks lists them."),
}
# Of codes whose error is a class of its own, which has their hint: an example of what happened.
_DETAILS = {
    "cross_origin": "A page of https://elsewhere.example asked for this change.",
    "not_signed_in": "The token is unknown, was revoked, or has expired.",
    "scope_too_small": "This needs the scope admin; the token 'ci' has submit.",
    "too_many_requests": "Too many requests from 192.0.2.7.",
    "unknown_host": "'elsewhere.example' is no name of this server.",
    "database_unavailable": "The database postgresql://t:***@db/tessera does not answer: connection refused",
    "busy": "The server is busy with other checks.",
    "missing_dimensions": "These dimensions of the inputs need a size: image[0], image[2].",
    "model_invalid": "onnx.checker refuses the model: Node (fc) has input size 4 not in range [min=2, max=3].",
    "model_too_large": "The upload is larger than 2147483648 bytes.",
    "not_onnx": "This is not a whole ONNX file: it has no graph.",
    "sandbox_unavailable": "TESSERA_SANDBOX=required, and it cannot be had here: files are not protected.",
    "queue_full": "1000 jobs wait in the queue, and no more than 1000 may.",
    "too_many_jobs": "100 jobs of 'ci' wait or run, and no more than 100 may.",
    "project_full": "Models and samples of the project 'vision' take 1073741000 bytes; with these 1048576 they would "
    "take more than 1073741824.",
    "storage_unavailable": "The bucket s3://tessera/blobs cannot be used: connection refused",
    "storage_full": "There is no space left in the data directory.",
    "unknown_target": "There is no target named 'abacus'.",
    "unsupported_operators": "The model uses 2 operators that cannot be imported: LSTM, NonZero.",
}

Code = str | type[TesseraError]


def problem_responses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entries for what a route raises: codes, or classes of errors, which have a code and a status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        example = _example(code)
        _add(responses, example["status"], example)
    return responses


def add_code(responses: dict[str, Any], code: Code) -> None:
    """The same for the responses of an operation of the document; a code that is there already stays as it is."""
    example = _example(code)
    _add(responses, str(example["status"]), example)


def _add(responses: dict[Any, dict[str, Any]], status: int | str, example: dict[str, Any]) -> None:
    """Put an example beside those that a status has; the description names all of its codes."""
    response = responses.setdefault(status, {"description": "", "content": {}})
    content = response["content"].setdefault(MEDIA_TYPE, {"schema": REFERENCE, "examples": {}})
    content["examples"].setdefault(example["code"], {"summary": example["detail"], "value": example})
    response["description"] = f"{example['title']}: {', '.join(f'`{code}`' for code in content['examples'])}"


def _example(code: Code) -> dict[str, Any]:
    if isinstance(code, str):
        status, detail, hint = _CODES[code]
        name = code
    else:
        status, detail, hint, name = status_of(code), _DETAILS[code.code], code.hint, code.code
    example = {
        "type": name.replace("_", "-"),
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": name,
        "hint": hint,
    }
    if name in ("invalid_request", "invalid_budget"):
        field, _, message = detail.partition(": ")
        where = "body" if name == "invalid_budget" else "query"
        kind = "greater_than_equal" if name == "invalid_budget" else "less_than_equal"
        example["errors"] = [{"loc": [where, field], "msg": message, "type": kind}]
    return example
