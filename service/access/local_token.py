"""The token of this machine's user: a file in the data directory that only they can read.

A server writes it, and whoever works on the same data directory finds it: commands, and the client. No server package
is needed to read it.
"""

from __future__ import annotations

import os
import re
import stat

from service.ownership import announced_url, is_owned
from service.settings import Settings

_SHAPE = re.compile(r"tss_[A-Za-z0-9_-]{43}")


def read_local_token(settings: Settings) -> str | None:
    """None where there is none, or one that others could have read or that was not written whole."""
    try:
        with settings.token_path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                return None
            text = file.read(200).decode("ascii", "replace").strip()
    except OSError:
        return None
    return text if _SHAPE.fullmatch(text) else None


def write_local_token(settings: Settings, secret: str) -> None:
    """Nobody else can read the file at any moment: it is made anew with mode 0600."""
    settings.token_path.unlink(missing_ok=True)
    file = os.open(settings.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "w") as opened:
        opened.write(f"{secret}\n")


def token_for(url: str, settings: Settings) -> str | None:
    """The token where the server at this very URL owns the data directory: it is shown to no other."""
    if announced_url(settings) == url.rstrip("/") and is_owned(settings):
        return read_local_token(settings)
    return None
