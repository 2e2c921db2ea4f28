"""Taking uploads: streamed into the blob store, looked at, and only then made visible."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from service.blobs import BlobWriter
from service.database.tables import Job, Model, Samples
from service.errors import Conflict, Invalid, ProjectFull, TooLarge
from service.onnx_sniff import OnnxSummary, sniff
from service.queries.models import find_model, get_model
from service.references import delete_unreferenced
from service.schemas.models import ModelSchema, SamplesSchema
from service.services import ProjectServices

_BUFFER_BYTES, _BUFFER_CHUNKS = 1024**2, 1024
# At once write so many: twenty threads that hash leave the thread that answers a twentieth of a core.
_WRITERS = CapacityLimiter(max(1, (os.cpu_count() or 1) // 2))
_MAX_NAME_LENGTH = 200
# Of an archive of samples: each array takes about a hundred bytes of it.
_DIRECTORY_BYTES = 1024**2
_DEFAULT_FILENAME = "model.onnx"
# Control characters, quotes, halves of surrogate pairs, and marks that change the direction of writing.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\"\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


Schema = TypeVar("Schema")


@dataclass(frozen=True, kw_only=True)
class Uploaded(Generic[Schema]):
    resource: Schema
    created: bool


async def upload_model(
    services: ProjectServices, chunks: AsyncIterator[bytes], *, filename: str
) -> Uploaded[ModelSchema]:
    """Store a model. The same bytes again answer with the model that the project knows, whatever its name.

    Raises `TooLarge`, `NotOnnx`, `Invalid` (``external_data``, ``unsupported_opset``, ``model_too_complex``) and
    `ProjectFull`; nothing is kept then.
    """
    filename = clean_filename(filename, default=_DEFAULT_FILENAME)
    with services.blobs.writer() as writer:
        await _receive(writer, chunks, limit_bytes=services.settings.max_upload_bytes)
        summary = await run_in_threadpool(sniff, writer.path, max_opset=services.settings.max_opset)
        return await run_in_threadpool(_keep_model, services, writer, summary, filename)


async def upload_samples(
    services: ProjectServices, chunks: AsyncIterator[bytes], *, filename: str
) -> Uploaded[SamplesSchema]:
    """Store an ``.npz`` of inputs; raises `TooLarge`, `Invalid` (``samples_invalid``) and `ProjectFull`."""
    filename = clean_filename(filename, default="samples.npz")
    with services.blobs.writer() as writer:
        await _receive(writer, chunks, limit_bytes=services.settings.max_upload_bytes)
        await run_in_threadpool(_check_npz, writer)
        return await run_in_threadpool(_keep_samples, services, writer, filename)


def delete_model(services: ProjectServices, model_id: str) -> None:
    """Delete a model that no job uses; raises `NotFound` and `Conflict` (``model_in_use``)."""
    with services.database.write() as session:
        model = find_model(session, model_id)
        if session.scalar(select(Job.id).where(Job.model_id == model.id).limit(1)) is not None:
            raise Conflict(
                "Jobs use this model.",
                code="model_in_use",
                hint="Delete the jobs of the model first, each with DELETE /api/v1/jobs/{id}.",
            )
        session.delete(model)
    delete_unreferenced(services.database, services.blobs, [model.id])


def clean_filename(filename: str, *, default: str) -> str:
    """The last part of a name that a client gave, without what is no text, or turns the text around it."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    name = _NO_TEXT.sub("", name).strip()[:_MAX_NAME_LENGTH]
    return name if name.strip(".") else default


async def _receive(writer: BlobWriter, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> None:
    """Write the stream in pieces of a megabyte, off the event loop and as they came: to join them is to copy them. At
    the cap it stops reading."""
    waiting: list[bytes] = []
    waiting_bytes = received = 0
    async for chunk in chunks:
        received += len(chunk)
        if received > limit_bytes:
            raise TooLarge(f"The upload is larger than {limit_bytes} bytes.", details={"max_bytes": limit_bytes})
        waiting.append(chunk)
        waiting_bytes += len(chunk)
        if waiting_bytes >= _BUFFER_BYTES or len(waiting) >= _BUFFER_CHUNKS:
            await to_thread.run_sync(writer.write, *waiting, limiter=_WRITERS)
            waiting.clear()
            waiting_bytes = 0
    await to_thread.run_sync(writer.write, *waiting, limiter=_WRITERS)
    await run_in_threadpool(writer.sync)


def _keep_model(
    services: ProjectServices, writer: BlobWriter, summary: OnnxSummary, filename: str
) -> Uploaded[ModelSchema]:
    writer.store()
    # The blob takes its place while the writer's lock is held: no deletion can come between blob and row.
    with services.database.write() as session:
        created = session.scalar(select(Model.id).where(Model.id == writer.sha256)) is None
        if created:
            _require_room(session, services, writer.size_bytes)
        blob = writer.keep()
        if created:
            session.add(
                Model(
                    id=blob.sha256,
                    name=PurePosixPath(filename).stem,
                    filename=filename,
                    size_bytes=blob.size_bytes,
                    producer=summary.producer[:_MAX_NAME_LENGTH],
                    ir_version=summary.ir_version,
                    opset=summary.opset,
                    node_count=summary.node_count,
                    inputs=[asdict(value) for value in summary.inputs],
                    outputs=[asdict(value) for value in summary.outputs],
                )
            )
    return Uploaded(resource=get_model(services.database, blob.sha256), created=created)


def _check_npz(writer: BlobWriter) -> None:
    try:
        with _SmallReads(writer.path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises whatever a damaged directory makes it stumble over
        names = []
    if not names or not all(name.endswith(".npy") for name in names):
        raise Invalid(
            "The samples are not an .npz file of arrays.",
            code="samples_invalid",
            hint="Write them with numpy.savez(path, input_name=array, …), one array per model input.",
        )


class _SmallReads(io.FileIO):
    """A file of which nobody reads much at once: zipfile would read a directory as large as the whole upload."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"a directory of {size} bytes")
        return super().read(size)


def _keep_samples(services: ProjectServices, writer: BlobWriter, filename: str) -> Uploaded[SamplesSchema]:
    writer.store()
    with services.database.write() as session:
        row = session.scalar(select(Samples).where(Samples.id == writer.sha256))
        created = row is None
        if created:
            _require_room(session, services, writer.size_bytes)
        blob = writer.keep()
        if row is None:
            row = Samples(id=blob.sha256, filename=filename, size_bytes=blob.size_bytes)
            session.add(row)
            session.flush()
        schema = SamplesSchema(id=row.id, filename=row.filename, size_bytes=row.size_bytes, created_at=row.created_at)
    return Uploaded(resource=schema, created=created)


def _require_room(session: Session, services: ProjectServices, size_bytes: int) -> None:
    """Raises `ProjectFull`."""
    if (most_bytes := services.settings.max_project_bytes) is None:
        return
    sizes = (select(func.sum(table.size_bytes)).select_from(table) for table in (Model, Samples))
    stored_bytes = sum(int(session.scalar(size) or 0) for size in sizes)
    if stored_bytes + size_bytes > most_bytes:
        raise ProjectFull(
            f"Models and samples of the project {services.project!r} take {stored_bytes} bytes; with these "
            f"{size_bytes} they would take more than {most_bytes}.",
            details={"stored_bytes": stored_bytes, "max_bytes": most_bytes},
        )
