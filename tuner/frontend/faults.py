"""Faults of the libraries that read a model: each raises what it likes, and a person is told one thing."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tuner.errors import ModelError, TesseraError


@contextmanager
def told_as_model_error(doing: str) -> Iterator[None]:
    """Errors of ours pass, and so does MemoryError, which native code may raise under another name. Anything else
    becomes a `ModelError` (``import_failed``); its traceback goes to standard error, for the log."""
    try:
        yield
    except (TesseraError, MemoryError):
        raise
    except Exception as error:
        if "bad_alloc" in str(error):
            raise MemoryError(f"{doing}: {error}") from error
        traceback.print_exc(file=sys.stderr)
        reason = " ".join(str(error).split())[:400]
        if not reason:  # an assertion without a word
            reason = f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}"
        raise ModelError(
            f"{doing} failed: {reason}.",
            code="import_failed",
            hint="This is a fault of the importer: please report it with the model's operators.",
            details={"operator": "unknown", "reason": reason},
        ) from error
