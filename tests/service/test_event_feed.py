"""Streams of one job share what is read for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service.api import event_feed
from service.api.event_feed import EventFeed, Look
from service.jobs.states import JobState
from service.services import ProjectServices
from service.stores import JobReporter
from tests.service.conftest import start
from tests.service.tuning import claimed
from tests.signed_in import TestClient
from tuner.events import Log


def test_many_look_and_the_database_is_asked_once(
    client: TestClient, services: ProjectServices, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(client, model_file)
    assert claimed(services.database) == job
    asked: list[int] = []

    def counted(*arguments: object, after: int) -> object:
        asked.append(after)
        return list_events(*arguments, after=after)

    list_events = event_feed.list_events
    monkeypatch.setattr(event_feed, "list_events", counted)

    async def run() -> None:
        feed = EventFeed(fresh_s=0.3)
        looks = await asyncio.gather(*(feed.look(services.database, job, after=0) for _ in range(50)))
        assert len(asked) == 1
        assert {look.state for look in looks} == {JobState.RUNNING}
        assert looks[0].text.count(b"event: state\n") == 2
        last = looks[0].last_id

        # One that leaves takes nothing from the others.
        leaving, staying = (asyncio.create_task(feed.look(services.database, job, after=last)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        empty: Look = await staying
        assert (empty.text, empty.last_id, len(asked)) == (b"", last, 2)

        # What happens meanwhile is seen as soon as the look is old.
        JobReporter(services.database, job).emit(Log(message="new"))
        await asyncio.sleep(0.35)
        text = (await feed.look(services.database, job, after=last)).text.decode()
        assert text.startswith("event: log\n")
        assert '"message":"new"' in text

        await asyncio.sleep(0.35)
        await feed.look(services.database, "another", after=0)
        assert len(feed._looks) == 1

    assert client.portal is not None
    client.portal.call(run)
