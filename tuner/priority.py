"""Priority of whole sessions.

Where Linux groups processes by sessions (sched_autogroup_enabled, which most distributions set), niceness counts only
within one: a job's twenty processes at nice 19 take as much from a server as one at nice 0. The session has a niceness
of its own, and a new one starts at 0. (sched(7), "The autogroup feature")
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

# Without privileges the kernel lets one session be changed in 0.1 s.
_TRIES, _AGAIN_S = 3, 0.1


def _group(pid: int) -> Path:
    return Path(f"/proc/{pid}/autogroup")


def set_session_niceness(pid: int, niceness: int) -> None:
    """Of the session that a process is in, -20 to 19; nothing happens where there are no such groups."""
    for _ in range(_TRIES):
        try:
            _group(pid).write_text(str(niceness))
        except BlockingIOError:
            time.sleep(_AGAIN_S)
        except OSError:  # no groups here, the process has ended, or it may not be changed
            return
        else:
            return


def session_niceness(pid: int) -> int | None:
    """None where there are no such groups, and for what is still in the session that the machine started with."""
    with contextlib.suppress(OSError, ValueError):  # the file of a process without a group is empty
        return int(_group(pid).read_text().rpartition(" ")[2])
    return None


def yield_as_we_do(pid: int) -> None:
    """Make the session of a process that this one started as nice as this one's."""
    if niceness := session_niceness(os.getpid()):
        set_session_niceness(pid, niceness)
