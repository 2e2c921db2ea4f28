"""How a confined half of a job can end, beside well."""

from __future__ import annotations

import errno

from tuner.errors import TesseraError


class ForgedResult(TesseraError):
    """The confined process said something that it never says of itself."""

    code = "forged_result"
    hint = (
        "Either Tessera has a mistake, or the model took over the process that compiled it. It was confined: nothing "
        "of what it made was kept. Keep the model and the log, and report it (docs/security.md)."
    )


class LimitExceeded(TesseraError):
    """The confined process was ended, because it took too much of something."""

    code = "job_limit_exceeded"
    hint = "TESSERA_JOB_DISK_BYTES and TESSERA_JOB_TIMEOUT_S say how much a job may take; raise what it needs."


class NoSpace(OSError):
    """The confined process failed, because a disk was full."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


class NoBoard(TesseraError):
    """The confined process lost its last board, or the tracker."""


class TunerDied(Exception):
    """The confined process ended without a word; ``exit_code`` as `subprocess` gives it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"it ended with {exit_code}")
        self.exit_code = exit_code
