"""One server a data directory: the lock, and where its owner is reached."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from service.errors import DataDirInUse, ServiceError
from service.settings import Settings

_ANNOUNCED_WITHIN_S = 10.0
# What nobody else may read: keys, and the database with the secrets of webhooks.
_SECRETS = ("signing.key", "token", "tessera.sqlite3")


class DataDirReadable(ServiceError):
    """Others on this machine can read the keys that lie in the data directory."""

    code = "data_dir_readable"


@contextlib.contextmanager
def own(settings: Settings) -> Iterator[None]:
    """Own the data directory; raises `DataDirInUse` at once when another process does.

    The kernel drops the lock with the process, whatever kills it.
    """
    make_data_dir(settings)
    lock = FileLock(settings.lock_path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        url = owner_url(settings)
        raise DataDirInUse(
            f"Another server uses the data directory {settings.data_dir}{f' ({url})' if url else ''}."
        ) from None
    try:
        yield
    finally:
        settings.address_path.unlink(missing_ok=True)
        lock.release()


def make_data_dir(settings: Settings) -> None:
    """Make the data directory, for its owner alone. One that is there is closed to others before a secret lies in it.

    Raises `DataDirReadable` where others could read secrets already: a person has to think about what they read.
    """
    folder = settings.data_dir
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & 0o077:
        return
    kept = [name for name in _SECRETS if (folder / name).exists()]
    if not kept:
        with contextlib.suppress(PermissionError):
            folder.chmod(0o700)
            return
    what = f"{', '.join(kept)} in it are secrets" if kept else "it belongs to another user"
    raise DataDirReadable(
        f"Others can look into the data directory {folder} (mode {mode:03o}), and {what}.",
        hint=f"Close it with: chmod 700 {folder}",
    )


def announce(settings: Settings, url: str) -> None:
    """Tell other processes where this server is reached. To be called by the owner."""
    temporary = settings.address_path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    temporary.replace(settings.address_path)


def owner_url(settings: Settings) -> str | None:
    """The URL of the server that owns the data directory now, or None."""
    if not is_owned(settings):
        return None
    return _announced(settings.address_path)


def wait_for_owner_url(settings: Settings) -> str:
    """The URL of the owner, which may be starting still; raises `DataDirInUse` when it never says."""
    deadline = time.monotonic() + _ANNOUNCED_WITHIN_S
    while (url := owner_url(settings)) is None:
        if time.monotonic() > deadline:
            raise DataDirInUse(
                f"Another process uses the data directory {settings.data_dir} and does not say how it is reached."
            )
        time.sleep(0.1)
    return url


def is_owned(settings: Settings) -> bool:
    if not settings.lock_path.exists():
        return False
    lock = FileLock(settings.lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def announced_url(settings: Settings) -> str | None:
    """What a server said at its start; it may have ended without taking that back."""
    return _announced(settings.address_path)


def _announced(path: Path) -> str | None:
    try:
        url = json.loads(path.read_text())["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) else None
