"""New events of jobs, for all streams at once: however many clients follow a job, the database is asked once."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from anyio.to_thread import run_sync
from fastapi.sse import format_sse_event

from service.database import ProjectDatabase
from service.jobs.states import JobState
from service.queries.jobs import get_state, list_events

# How often a stream looks for new events while there are none.
POLL_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Look:
    """A job's state (None: it is gone), and the text of its next events, of which the last has the id ``last_id``.

    The state was read before the events: the events of a final state are all there, or come with the next looks.
    """

    state: JobState | None
    text: bytes
    last_id: int


class EventFeed:
    """Looks that are shared by whoever asks for the same within ``fresh_s``. Belongs to one event loop."""

    def __init__(self, *, fresh_s: float = POLL_S) -> None:
        self._fresh_s = fresh_s
        self._looks: dict[tuple[str, str, int], tuple[float, asyncio.Task[Look]]] = {}

    async def look(self, database: ProjectDatabase, job_id: str, *, after: int) -> Look:
        """What is known behind the event with the id ``after``; nothing of it is older than ``fresh_s`` seconds."""
        now = time.monotonic()
        key = (database.project, job_id, after)
        if key not in self._looks or self._looks[key][0] < now - self._fresh_s:
            self._forget_before(now - self._fresh_s)
            self._looks.pop(key, None)  # an entry's place says when it was made
            self._looks[key] = now, asyncio.create_task(run_sync(_read, database, job_id, after))
        return await asyncio.shield(self._looks[key][1])  # a client that leaves takes it from no other

    def _forget_before(self, then: float) -> None:
        for key, (made, _) in list(self._looks.items()):
            if made >= then:
                return
            del self._looks[key]


def _read(database: ProjectDatabase, job_id: str, after: int) -> Look:
    state = get_state(database, job_id)
    events = list_events(database, job_id, after=after)
    text = b"".join(sse(event.kind, event.data, number=event.id) for event in events)
    return Look(state=state, text=text, last_id=events[-1].id if events else after)


def sse(kind: str, data: dict[str, Any], *, number: int | None = None) -> bytes:
    """An event of a stream. In ASCII, since some readers of lines take U+2028 and its like for ends of lines."""
    written = json.dumps(data, separators=(",", ":"))
    return format_sse_event(event=kind, id=None if number is None else str(number), data_str=written)
