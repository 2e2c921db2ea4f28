"""Priority of a whole session.

Where Linux groups processes by sessions (sched_autogroup_enabled, which most distributions set), niceness counts only
within one: a job's twenty processes at nice 19 take as much from a server as one at nice 0. The session has a niceness
of its own. (sched(7), "The autogroup feature")
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# Without privileges the kernel lets one session be changed in 0.1 s.
_TRIES, _AGAIN_S = 3, 0.1


def make_session_as_nice(pid: int) -> None:
    """Give the session of a process that leads it the niceness of the process; without autogroups nothing happens."""
    for _ in range(_TRIES):
        try:
            niceness = os.getpriority(os.PRIO_PROCESS, pid)
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
        except BlockingIOError:
            time.sleep(_AGAIN_S)
        except OSError:  # no autogroups here, the process has ended, or it may not be changed
            return
        else:
            return
