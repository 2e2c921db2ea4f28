"""The errors of the tuner: a small tree, each with a stable code and a hint that says what to do next."""

from __future__ import annotations


class TesseraError(Exception):
    """Base of every error that a person may read.

    ``code`` is stable and machine-readable, ``hint`` says what to do next, ``details`` is JSON-ready.
    """

    code = "internal_error"
    hint = "Look at the log of the job; if it does not explain the error, report it with the log."

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.hint = hint or type(self).hint
        self.details = details or {}

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.code, self.hint, self.details)

    def as_dict(self) -> dict[str, object]:
        """``{code, message, hint, details?}``, as a job's ``error`` field and the CLI show it."""
        shown: dict[str, object] = {"code": self.code, "message": self.message, "hint": self.hint}
        if self.details:
            shown["details"] = self.details
        return shown


def _rebuild(kind: type[TesseraError], message: str, code: str, hint: str, details: dict[str, object]) -> TesseraError:
    return kind(message, code=code, hint=hint, details=details)


class ModelError(TesseraError):
    """The uploaded model cannot be used; the subclass's or instance's code says why."""

    code = "model_invalid"
    hint = "Check the file with onnx.checker and export it again."


class UnsupportedOperators(ModelError):
    """``details["operators"]`` lists every operator that cannot be imported, with its count."""

    code = "unsupported_operators"
    hint = "Replace the listed operators, or export the model with an opset that avoids them."


class MissingDimensions(ModelError):
    """``details["dimensions"]`` lists every dimension that needs a value."""

    code = "missing_dimensions"
    hint = "Give the shape of each input named, for example --input-shape x=1x3x224x224."


class TargetError(TesseraError):
    """The target is unknown, or this machine cannot build or measure for it."""

    code = "unknown_target"
    hint = "List the targets with: tessera targets list"


class BuildError(TesseraError):
    """The network could not be compiled or linked."""

    code = "build_failed"
    hint = "The log has the compiler's message. Report it together with the model if you can."


class MemoryLimitError(TesseraError):
    """No way of computing the network keeps the memory limit; ``details["least_bytes"]`` is the smallest that one
    would."""

    code = "memory_limit_infeasible"
    hint = "Give a higher limit, or none to see what the network needs."


class WorkerError(TesseraError):
    """The measuring infrastructure failed (not a candidate: a candidate's failure is data)."""

    code = "worker_failed"
    hint = "Check free memory and disk space, then start the job again: it resumes from its records."


class VerificationError(TesseraError):
    """The compiled network's outputs differ from ONNX Runtime's beyond the tolerance."""

    code = "verification_failed"
    hint = "Nothing wrong was shipped. Please report the model's operators with the job's log."


class SandboxUnavailable(TesseraError):
    """What touches models cannot be confined here as the settings want it."""

    code = "sandbox_unavailable"
    hint = (
        "Run the service on Linux 6.2 or later with Landlock (6.12 without root), or set TESSERA_SANDBOX=auto to do "
        "with what there is. `tessera doctor` says what is missing."
    )
