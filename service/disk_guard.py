"""The guard of the data directory's disk: while too little is free, what would fill it waits, or is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import StorageFull
from service.settings import Settings
from tuner.disk_space import free_bytes, had_no_space, is_full

_MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """Less is free where ``folder`` lies than is needed."""

    folder: Path
    free_bytes: int
    needed_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.free_bytes // _MIB} MiB are free on the disk of {self.folder}, "
            f"{-(-self.needed_bytes // _MIB)} MiB are needed"
        )

    @property
    def waiting_for(self) -> str:
        """What jobs wait for, as `JobSchema.waiting_for` says it."""
        return f"space: {self}. {StorageFull.hint.removesuffix('.')}"


def shortage(settings: Settings, *, more_bytes: int = 0) -> Shortage | None:
    """None where ``settings.min_free_disk_bytes`` stay free after ``more_bytes`` are written, or are not asked for."""
    if not settings.min_free_disk_bytes:
        return None
    found = Shortage(
        folder=settings.data_dir,
        free_bytes=free_bytes(settings.data_dir),
        needed_bytes=settings.min_free_disk_bytes + more_bytes,
    )
    return found if found.free_bytes < found.needed_bytes else None


def require_space(settings: Settings, declared_bytes: str | None = None) -> None:
    """Raise `StorageFull` before anything is read of an upload that there is no space for.

    ``declared_bytes`` is its Content-Length, where it has one.
    """
    declared = declared_bytes or ""
    short = shortage(settings, more_bytes=int(declared) if declared.isdecimal() else 0)
    if short is not None:
        raise StorageFull(f"There is too little space: {short}.")


@contextlib.contextmanager
def full_disk_is_told(folder: Path) -> Iterator[None]:
    """Raise `StorageFull` instead of whatever failed because nothing was left on the disk of ``folder``, or another."""
    try:
        yield
    except StorageFull:
        raise
    except Exception as error:
        if not (had_no_space(error) or _had_none_for_blobs(error) or is_full(folder)):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise StorageFull(f"There was no space left on a disk: {reason}") from error


def _had_none_for_blobs(error: BaseException | None) -> bool:
    """Whether it came from one that said so already."""
    while error is not None:
        if isinstance(error, StorageFull):
            return True
        error = error.__cause__ or error.__context__
    return False
