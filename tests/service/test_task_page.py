"""The page of a task: knob importance, the tree of loops, the difference, and what it says of what is missing."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.dashboard.importance import knob_importance
from service.dashboard.nest import boxes, diff
from service.database.tables import Task
from service.jobs import queue
from service.jobs.artifacts import Shelf, store_schedules
from service.jobs.states import JobState
from service.services import ProjectServices
from service.stores import JobReporter
from tests.acceptance import seed
from tests.service.conftest import start
from tests.service.tuning import claimed
from tests.signed_in import TestClient

SCHEDULES = json.loads(seed.SCHEDULES.read_text())


def trials(count: int, latency_us: Any) -> list[tuple[dict[str, Any], float]]:
    """Trials with a random unroll, tile and vector width, and the latency that a function makes of them."""
    rng = random.Random(5)
    made = []
    for number in range(count):
        knobs = {
            "tiles": {"co": rng.choice([[4, 8], [8, 4]])},
            "unroll": rng.choice([None, 16, 64]),
            "compute_at": {"pad": rng.choice(["root", "loop 3"])},
            "number": number,
            "space": 1,
        }
        made.append((knobs, latency_us(knobs, rng)))
    return made


def test_the_knob_that_decides_explains_everything_and_others_nothing() -> None:
    found = knob_importance(trials(60, lambda knobs, _: 50.0 if knobs["unroll"] == 16 else 200.0))
    first, *others = found.knobs
    assert first.names == ("unroll",)
    assert first.explained == pytest.approx(1.0)
    assert (first.values, first.best) == (3, "16")
    assert all(other.explained < 0.2 for other in others)
    assert found.measured == 60
    assert found.unjudged == 1, "as many numbers as trials"


def test_knobs_that_go_together_share_a_line_and_constant_ones_have_none() -> None:
    names = [knob.names for knob in knob_importance(trials(60, lambda knobs, rng: rng.uniform(90, 110))).knobs]
    assert ("co tile, level 2 of 2", "co tile, level 1 of 2") in names
    assert ("compute at of pad",) in names
    assert not any("space" in each for name in names for each in name)


def test_noise_is_not_importance() -> None:
    found = knob_importance(trials(400, lambda _, rng: rng.lognormvariate(4, 0.5)))
    assert max(knob.explained for knob in found.knobs) < 0.03


def test_a_share_is_between_zero_and_one_and_between_its_causes() -> None:
    def latency_us(knobs: dict[str, Any], rng: random.Random) -> float:
        return (4 if knobs["unroll"] == 16 else 1) * (2 if knobs["compute_at"]["pad"] == "root" else 1) * 10.0

    by_name = {knob.name: knob.explained for knob in knob_importance(trials(300, latency_us)).knobs}
    assert 0 < by_name["compute at of pad"] < by_name["unroll"] < 1
    assert by_name["compute at of pad"] + by_name["unroll"] == pytest.approx(1.0, abs=0.1)


def test_few_trials_or_equal_latencies_tell_nothing() -> None:
    assert knob_importance(trials(11, lambda knobs, _: 50.0)).knobs == ()
    assert {knob.explained for knob in knob_importance(trials(30, lambda knobs, _: 50.0)).knobs} == {0.0}


def line(depth: int, kind: str, name: str, **changes: Any) -> dict[str, Any]:
    return {"depth": depth, "what": "loop", "kind": kind, "name": name, "of": [], "extent": 2, "unroll": None} | changes


def test_loops_of_a_kind_directly_inside_of_each_other_share_a_box() -> None:
    statement = {"depth": 4, "what": "statement", "name": "sum"}
    lines = [
        line(0, "parallel", "a", of=["h", "w"]),
        line(1, "serial", "b"),
        line(2, "serial", "c"),
        line(3, "vectorized", "d"),
        statement,
        line(1, "serial", "e"),
    ]
    (outer,) = boxes(lines)
    assert [loop.label for loop in outer.loops] == ["h·w"]
    first, second = outer.inside
    assert [loop.name for loop in first.loops] == ["b", "c"]
    assert [loop.name for loop in second.loops] == ["e"]
    (vector,) = first.inside
    assert vector.line["kind"] == "vectorized"
    assert [box.line["name"] for box in vector.inside] == ["sum"]


def test_a_loop_with_a_bound_of_its_own_keeps_its_box() -> None:
    (outer,) = boxes([line(0, "serial", "a"), line(1, "serial", "b", unroll=16)])
    assert [loop.name for loop in outer.loops] == ["a"]


def test_the_difference_has_every_line_of_both() -> None:
    lines = diff("a\nb\nc", "a\nx\nc\nd")
    assert [(each.sign, each.text) for each in lines] == [(" ", "a"), ("-", "b"), ("+", "x"), (" ", "c"), ("+", "d")]


@pytest.fixture
def job(client: TestClient, services: ProjectServices, model_file: Path) -> str:
    """A running job with 64 trials."""
    job_id = start(client, model_file, trials=64)
    assert claimed(services.database) == job_id
    seed.tune(services, job_id, JobReporter(services.database, job_id), trials=64, total=64)
    return job_id


def show(client: TestClient, job_id: str, task: str = "task0", *, status: int = 200) -> str:
    answer = client.get(f"/jobs/{job_id}/tasks/{task}", headers={"accept": "text/html"})
    assert answer.status_code == status, answer.text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def test_a_finished_job_shows_loops_buffers_scripts_and_knobs(
    client: TestClient, services: ProjectServices, job: str
) -> None:
    seed.succeed(services, job, JobReporter(services.database, job), tuned_us=7460.0)
    page = show(client, job)
    assert "Measured: the fastest schedule that passed its check." in page
    assert "parallel" in page
    assert "vectorized" in page
    (conv, *_) = SCHEDULES
    for buffer in conv["parameters"]:
        assert buffer["name"] in page
    assert "T.vectorized(" in page
    assert re.search(r"over 1[2-6] measured trials", page)
    rings = show(client, job, "task2")
    assert "2 strips, 3 rows kept in each" in rings
    assert "There is no difference to show" in rings
    assert "kept no schedule of this task" in show(client, job, "task3")


def test_a_schedule_that_was_not_shipped_is_said_to_be(client: TestClient, services: ProjectServices, job: str) -> None:
    store_schedules(Shelf(services.database, services.blobs, job, attempt=1), SCHEDULES)
    queue.finish(services.database, job, JobState.SUCCEEDED, outcome="no_improvement")
    assert "The bundle holds the untuned build" in show(client, job)


def test_the_schedules_are_an_artifact(client: TestClient, services: ProjectServices, job: str) -> None:
    seed.succeed(services, job, JobReporter(services.database, job), tuned_us=7460.0)
    artifacts = client.get(f"/api/v1/jobs/{job}/artifacts").json()["items"]
    (schedules,) = [each for each in artifacts if each["kind"] == "schedules"]
    assert schedules["filename"] == "schedules.json"
    assert client.get(schedules["download_url"]).json() == {"tasks": SCHEDULES}


def test_windows_are_drawn_where_the_task_computes_them(
    client: TestClient, services: ProjectServices, job: str
) -> None:
    seed.succeed(services, job, JobReporter(services.database, job), tuned_us=7460.0)
    address = f"/jobs/{job}/tasks/task2"
    assert "<h3>Windows</h3>" not in client.get(address).text
    chain = seed._memory()["windows"][0]
    use = {"count": 1, "choice": chain["chain"], "way": chain["way"]}
    with services.database.write() as session:
        session.execute(update(Task).where(Task.job_id == job, Task.key == "task2").values(uses=[use]))
    text = client.get(address).text
    assert "<h3>Windows</h3>" in text
    assert text.count("Windows of 3 operators in 2 strips") >= 1


def test_what_is_missing_is_said(client: TestClient, services: ProjectServices, job: str) -> None:
    assert "Schedules are kept when the job ends" in show(client, job)
    assert "too few to tell knobs apart" in show(client, job, "task9")
    queue.finish(services.database, job, JobState.FAILED, error={"code": "x", "message": "m", "hint": "h"})
    assert "The job failed before any schedule was built." in show(client, job)


def test_a_network_that_goes_another_way_says_so(client: TestClient, services: ProjectServices, job: str) -> None:
    uses = {"task2": ("direct", 1), "task3": ("winograd", 50)}
    with services.database.write() as session:
        for key, (way, count) in uses.items():
            use = {"count": count, "choice": "part", "way": way}
            session.execute(update(Task).where(Task.job_id == job, Task.key == key).values(uses=[use]))
    queue.finish(services.database, job, JobState.SUCCEEDED, outcome="improved")
    assert "another way is used" in show(client, job, "task3")
    assert "The network computes this part in another way" in show(client, job, "task3")


def test_an_unknown_task_is_a_page_that_says_so(client: TestClient, job: str) -> None:
    page = show(client, job, "nothing", status=404)
    assert "The job has no task" in page
    assert "task_not_found" in page
    assert "job_not_found" in show(client, "nothing", status=404)


def test_rows_of_the_job_lead_to_their_tasks(client: TestClient, job: str) -> None:
    text = client.get(f"/jobs/{job}").text
    for number in range(len(seed.TASKS)):
        assert f'href="/jobs/{job}/tasks/task{number}"' in text
