"""The errors of the service: business errors with an HTTP status, a stable code and a hint."""

from __future__ import annotations

from tuner.errors import ModelError, SandboxUnavailable, TargetError, TesseraError


class ServiceError(TesseraError):
    """Base: ``status`` is what the REST interface answers with."""

    status = 400
    code = "bad_request"
    hint = "The interface is described under /docs."

    @property
    def headers(self) -> dict[str, str]:
        """What the answer carries beside the problem."""
        return {}


class NotFound(ServiceError):
    status = 404
    code = "not_found"
    hint = "Check the id; lists show the ids that exist."


class Conflict(ServiceError):
    status = 409
    code = "conflict"
    hint = "Read the resource again and retry."


class Invalid(ServiceError):
    status = 422
    code = "invalid_request"
    hint = "Correct the named fields."


class NotOnnx(ServiceError):
    """The uploaded bytes are not a whole ONNX file."""

    code = "not_onnx"
    hint = "Upload a complete .onnx file (ModelProto); check it with onnx.checker.check_model."


class QueueFull(ServiceError):
    status = 429
    code = "queue_full"
    hint = "Wait until some have started, cancel some (tessera jobs cancel), or raise TESSERA_MAX_QUEUED_JOBS."


class TooManyJobs(ServiceError):
    """One user has as many unfinished jobs as one may have."""

    status = 429
    code = "too_many_jobs"
    hint = "Wait until some have ended, or cancel some. Whoever runs the server sets TESSERA_MAX_JOBS_PER_USER."


class ProjectFull(ServiceError):
    """The models and samples of a project take as much room as they may."""

    status = 507
    code = "project_full"
    hint = "Delete models that are not needed. Whoever runs the server sets TESSERA_MAX_PROJECT_BYTES."


class TooLarge(ServiceError):
    status = 413
    code = "model_too_large"
    hint = "Raise TESSERA_MAX_UPLOAD_BYTES on the server, or export a smaller model."


class StorageFull(ServiceError):
    status = 507
    code = "storage_full"
    hint = "Delete what is outdated (Settings → Storage, tessera doctor --clean), or use a larger disk."


class StorageUnavailable(ServiceError):
    """The bucket of the blobs cannot be reached, or refuses."""

    status = 503
    code = "storage_unavailable"
    hint = "Check the service at AWS_ENDPOINT_URL, the bucket of TESSERA_BLOBS_URL and its credentials. Then retry."


class DatabaseUnavailable(ServiceError):
    """The database server does not answer."""

    status = 503
    code = "database_unavailable"
    hint = "Start the database server, or check TESSERA_DATABASE_URL; nothing was lost. Then retry."


class SandboxRequired(ServiceError):
    """Models are not to be touched unconfined, and cannot be confined here."""

    status = 503
    code = "sandbox_unavailable"
    hint = SandboxUnavailable.hint


class DataDirInUse(ServiceError):
    """Another server owns the data directory."""

    status = 409
    code = "data_dir_in_use"
    hint = "Stop the other server, or choose another directory with TESSERA_DATA_DIR."


def status_of(error: TesseraError | type[TesseraError]) -> int:
    """The HTTP status of any error of ours: bad models and targets are the caller's, the rest is ours."""
    kind = error if isinstance(error, type) else type(error)
    if issubclass(kind, ServiceError):
        return kind.status
    if issubclass(kind, ModelError | TargetError):
        return 422
    return 500
