"""/models and /samples."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service import preflight, uploads
from service.api.codes import problem_responses
from service.api.dependencies import DEFAULT_PAGE, Cursor, Limit, ModelId, ServicesDep
from service.api.files import StoredFile, file_responses
from service.disk_guard import require_space
from service.errors import (
    Invalid,
    NotOnnx,
    ProjectFull,
    SandboxRequired,
    StorageFull,
    StorageUnavailable,
    TooLarge,
)
from service.preflight import Busy
from service.queries import models as queries
from service.schemas.models import CheckReport, CheckRequest, ModelSchema, SamplesSchema
from service.schemas.pages import Page
from service.settings import Settings
from tuner.errors import MissingDimensions, ModelError, UnsupportedOperators

router = APIRouter(tags=["models"])

_READ_BYTES = 1024**2
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
# What the tuner may find in a model; `tuner.frontend` raises them.
_STORAGE = (StorageFull, ProjectFull, StorageUnavailable)
_REFUSALS = (
    UnsupportedOperators,
    MissingDimensions,
    ModelError,
    "not_onnx",
    "truncated_model",
    "model_too_large",
    "model_too_complex",
    "cyclic_graph",
    "duplicate_name",
    "external_data",
    "unsupported_opset",
    "sparse_weights",
    "unsupported_input",
    "dynamic_output",
    "unknown_input",
    "shape_mismatch",
    "import_failed",
    "check_timeout",
    "compiler_crashed",
    SandboxRequired,
)
Filename = Annotated[str, Query(max_length=255, description="the file's name, for people")]


@router.post(
    "/models",
    status_code=201,
    summary="Upload an ONNX model",
    description="The raw bytes as the body (`curl --data-binary @model.onnx`), or one file as multipart/form-data "
    "(`curl -F file=@model.onnx`). Nothing is stored of an upload that is refused.",
    response_description="A new model; `Location` is its address",
    responses={
        200: {"model": ModelSchema, "description": "These bytes are here already, as this model"},
        **problem_responses(
            NotOnnx, TooLarge, "external_data", "unsupported_opset", "model_too_complex", "invalid_form", *_STORAGE
        ),
    },
    openapi_extra=_BODY,
)
async def upload_model(
    request: Request, response: Response, services: ServicesDep, filename: Filename = ""
) -> ModelSchema:
    async with _Body(request, services.settings) as body:
        uploaded = await uploads.upload_model(services, body.chunks(), filename=filename or body.filename)
    response.status_code = 201 if uploaded.created else 200
    response.headers["Location"] = f"/api/v1/models/{uploaded.resource.id}"
    return uploaded.resource


@router.post(
    "/samples",
    status_code=201,
    summary="Upload samples",
    description="An `.npz` with one array per model input (leading axis: samples); its id goes into a job's `samples`.",
    response_description="New samples",
    responses={
        200: {"model": SamplesSchema, "description": "These bytes are here already, as these samples"},
        **problem_responses(TooLarge, "samples_invalid", "invalid_form", *_STORAGE),
    },
    openapi_extra=_BODY,
)
async def upload_samples(
    request: Request, response: Response, services: ServicesDep, filename: Filename = ""
) -> SamplesSchema:
    async with _Body(request, services.settings) as body:
        uploaded = await uploads.upload_samples(services, body.chunks(), filename=filename or body.filename)
    response.status_code = 201 if uploaded.created else 200
    return uploaded.resource


@router.get(
    "/models",
    summary="List models",
    description="Newest first.",
    response_description="One page of models",
    responses=problem_responses("invalid_cursor"),
)
def list_models(services: ServicesDep, cursor: Cursor = None, limit: Limit = DEFAULT_PAGE) -> Page[ModelSchema]:
    return queries.list_models(services.database, cursor=cursor, limit=limit)


@router.get(
    "/models/{model_id}",
    summary="Read one model",
    description="Name, size, opset, inputs and outputs as the file has them, and how many jobs use it.",
    response_description="The model",
    responses=problem_responses("model_not_found"),
)
def get_model(model_id: ModelId, services: ServicesDep) -> ModelSchema:
    return queries.get_model(services.database, model_id)


@router.head("/models/{model_id}/content", include_in_schema=False)
@router.get(
    "/models/{model_id}/content",
    summary="Download a model",
    description="The file as it was uploaded. `ETag` is its SHA-256; `Range` is honoured.",
    response_class=StoredFile,
    responses={
        **file_responses("application/octet-stream", description="The file"),
        **problem_responses("model_not_found", StorageUnavailable),
    },
)
def download_model(model_id: ModelId, services: ServicesDep) -> StoredFile:
    model = queries.get_model(services.database, model_id)
    return StoredFile(
        services.blobs.path(model.id),
        media_type="application/octet-stream",
        filename=model.filename,
        headers={"ETag": f'"{model.id}"'},
    )


@router.delete(
    "/models/{model_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a model",
    description="Only one that no job uses: delete those first.",
    response_description="The model and its file are gone",
    responses=problem_responses("model_not_found", "model_in_use"),
)
def delete_model(model_id: ModelId, services: ServicesDep) -> None:
    uploads.delete_model(services, model_id)


@router.post(
    "/models/{model_id}/check",
    summary="Check a model for a target",
    description="The preflight: imports the model in a process of its own, in a few seconds. A model that cannot be "
    "used answers with a problem that names everything that is in the way at once.",
    response_description="What is known of the model before any search",
    responses=problem_responses("model_not_found", "unknown_target", *_REFUSALS, Busy, StorageUnavailable),
)
def check_model(model_id: ModelId, request: CheckRequest, services: ServicesDep) -> CheckReport:
    return preflight.check(services, model_id, target=request.target, input_shapes=request.input_shapes)


class _Body:
    """The uploaded file of a request, raw or multipart, as a stream of chunks."""

    def __init__(self, request: Request, settings: Settings) -> None:
        self._request = request
        self._settings = settings
        self._limit_bytes = settings.max_upload_bytes
        self._file: UploadFile | None = None
        self.filename = ""

    async def __aenter__(self) -> _Body:
        declared = self._request.headers.get("content-length", "")
        # A multipart body is a little longer than its file; a file too long is found while it is received.
        if declared.isdecimal() and int(declared) > self._limit_bytes + _READ_BYTES:
            raise TooLarge(
                f"The upload is larger than {self._limit_bytes} bytes.", details={"max_bytes": self._limit_bytes}
            )
        require_space(self._settings, declared)
        if self._request.headers.get("content-type", "").startswith("multipart/form-data"):
            await self._parse()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            await self._file.close()

    async def _parse(self) -> None:
        async def capped() -> AsyncIterator[bytes]:
            received = 0
            async for chunk in self._request.stream():
                received += len(chunk)
                if received > self._limit_bytes + _READ_BYTES:
                    raise TooLarge(f"The upload is larger than {self._limit_bytes} bytes.")
                yield chunk

        try:
            form = await MultiPartParser(self._request.headers, capped(), max_files=1, max_fields=10).parse()  # type: ignore[arg-type]
        except MultiPartException as error:
            raise Invalid(f"The form cannot be read: {error.message}", code="invalid_form") from None
        except ValueError:  # a charset that exists and decodes nothing
            raise Invalid("The form cannot be read: its names are no text.", code="invalid_form") from None
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if not files:
            raise Invalid("The form has no file.", code="invalid_form", hint="Send it as: curl -F file=@model.onnx URL")
        self._file = files[0]
        self.filename = self._file.filename or ""

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._file is None:
            async for chunk in self._request.stream():
                yield chunk
            return
        while chunk := await self._file.read(_READ_BYTES):
            yield chunk
