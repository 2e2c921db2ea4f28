"""Jobs side by side, and the list that they are chosen from."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from service.dashboard.comparing import Compared, TaskRow, curves, task_rows, which_one
from service.dashboard.convergence import Step
from service.queries.jobs import get_job
from service.schemas.jobs import JobBest, JobSchema
from service.schemas.tasks import TaskSchema, TaskUse
from service.services import ProjectServices
from service.stores import JobReporter
from tests.acceptance import seed
from tests.service.conftest import start
from tests.service.tuning import claimed
from tests.signed_in import TestClient

ORIGIN = {"origin": "http://localhost"}


@pytest.fixture
def jobs(client: TestClient, services: ProjectServices, model_file: Path) -> list[str]:
    """Two finished jobs, one running and one waiting."""
    made = []
    for trials, tuned_us in ((40, 7460.0), (80, 6100.0), (24, None)):
        job_id = start(client, model_file, trials=trials)
        assert claimed(services.database) == job_id
        reporter = JobReporter(services.database, job_id)
        seed.tune(services, job_id, reporter, trials=trials, total=trials)
        if tuned_us:
            seed.succeed(services, job_id, reporter, tuned_us=tuned_us)
        made.append(job_id)
    return [*made, start(client, model_file)]


def compare(client: TestClient, *jobs: str) -> str:
    answer = client.get("/compare?" + urlencode([("job", job) for job in jobs]))
    assert answer.status_code == 200, answer.text
    return answer.text


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_jobs_stand_beside_each_other(client: TestClient, jobs: list[str]) -> None:
    page = compare(client, *jobs[:3])
    text = text_of(page)
    assert "B is 1.22× as fast as A" in text
    assert "Estimates are sums over tasks" in text  # the third one still runs
    assert text.count("Succeeded") == 2
    assert "Running" in text
    assert page.count('class="curve ') == 3
    letters = re.findall(r'<text class="axis" x="([\d.]+)" y="([\d.]+)">[ABC]</text>', page)
    assert {float(x) for x, _ in letters} == {970}, "beside the plot, where no curve runs"
    heights = sorted(float(y) for _, y in letters)
    assert all(lower - upper >= 14 for upper, lower in itertools.pairwise(heights))
    assert heights[-1] <= 276, "above the trials' axis"
    tasks = page[page.index('id="tasks"') :]
    rows = re.findall(r"<tr class=\"row\">(.*?)</tr>", tasks, re.DOTALL)
    assert len(rows) == len(seed.TASKS)
    assert all(row.count("<td") == 3 and row.count("the fastest") <= 1 for row in rows)
    assert "the fastest" in tasks


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_comparison_is_of_two_to_four(client: TestClient, jobs: list[str], count: int) -> None:
    chosen = [*jobs, "another"][:count]
    answer = client.get("/compare?" + urlencode([("job", job) for job in chosen]))
    assert answer.status_code == 422
    assert "a comparison is of two to four" in answer.text
    assert "Choose them in the list of jobs" in answer.text


def test_a_job_is_not_compared_with_itself_or_with_none(client: TestClient, jobs: list[str]) -> None:
    assert client.get(f"/compare?job={jobs[0]}&job={jobs[0]}").status_code == 422
    assert client.get(f"/compare?job={jobs[0]}&job=nothing").status_code == 404


def test_jobs_without_figures_can_be_compared(client: TestClient, model_file: Path) -> None:
    text = text_of(compare(client, start(client, model_file), start(client, model_file)))
    assert "Not known yet" in text
    assert "None of the jobs has measured a task yet." in text


def test_the_list_is_filtered_by_its_address(client: TestClient, jobs: list[str]) -> None:
    def shown(query: str) -> set[str]:
        return set(re.findall(r'id="job-([^"]+)"', client.get(f"/?{query}").text))

    assert shown("") == set(jobs)
    assert shown("state=succeeded") == set(jobs[:2])
    assert shown("q=PERCEPT") == set(jobs)
    assert shown(f"q={jobs[1]}") == {jobs[1]}
    assert shown("q=%25") == set()  # a per cent sign is no pattern
    assert shown("target=host&state=queued&q=perc") == {jobs[3]}
    nothing = client.get("/?q=resnet").text
    assert "No job matches" in nothing
    assert 'href="/"' in nothing
    kept = client.get("/?state=succeeded&q=perc").text
    assert '<option value="succeeded" selected>' in kept
    assert 'value="perc"' in kept
    assert client.get("/?state=sleeping").status_code == 422
    assert {job["id"] for job in client.get("/api/v1/jobs?search=percep").json()["items"]} == set(jobs)


def test_chosen_jobs_are_cancelled_together(client: TestClient, services: ProjectServices, jobs: list[str]) -> None:
    page = client.get("/").text
    assert page.count('form="selection" name="job"') == len(jobs)
    sent = client.post("/jobs/cancel", data={"job": jobs[1:]}, headers=ORIGIN, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/")
    states = [get_job(services.database, job).state.value for job in jobs]
    assert states == ["succeeded", "succeeded", "cancelling", "cancelled"]
    assert client.post("/jobs/cancel", headers=ORIGIN, follow_redirects=False).status_code == 303
    assert client.post("/jobs/cancel", data={"job": ["nothing"]}, headers=ORIGIN).status_code == 404


def compared(
    client_job: JobSchema, letter: str, us: float | None, spread_us: float | None = None, **more: object
) -> Compared:
    best = None if us is None else JobBest(latency_us=us, measured=True, estimated_us=us, spread_us=spread_us)
    job = client_job.model_copy(update={"best": best, **more})
    return Compared(letter=letter, job=job, tasks=[], steps=[], peak_bytes=None, bundle_bytes=None)


def task(workload: str, best_us: float | None, weight: int, *, used: bool = True) -> TaskSchema:
    return TaskSchema(
        key=workload,
        name=workload.upper(),
        workload=workload,
        weight=weight,
        flops=1.0,
        tunable=True,
        trials=1,
        failures=0,
        best_us=best_us,
        knobs={},
        gflops=None,
        uses=[TaskUse(count=weight)],
        used=used,
    )


def test_the_answer_minds_spread_targets_and_models(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    job = get_job(services.database, start(client, model_file))
    alike = which_one([compared(job, "A", 100.0, 3.0), compared(job, "B", 104.0, 2.0)])
    assert alike.text == "A and B are alike"
    faster = which_one([compared(job, "A", 100.0, 1.0), compared(job, "B", 50.0, 1.0), compared(job, "C", None)])
    assert faster.text == "B is 2.00× as fast as A"
    other = which_one([compared(job, "A", 100.0), compared(job, "B", 50.0, target="pi", model_id="m")])
    assert "for different targets" in other.note
    assert "Not all jobs are of the same model." in other.note


def test_rows_are_what_all_calls_take(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    job = get_job(services.database, start(client, model_file))

    def with_tasks(letter: str, *tasks: TaskSchema) -> Compared:
        return Compared(letter=letter, job=job, tasks=tasks, steps=[], peak_bytes=None, bundle_bytes=None)

    first = with_tasks("A", task("conv", 10.0, 3), task("pool", 5.0, 1), task("other way", 1.0, 1, used=False))
    second = with_tasks("B", task("conv", 8.0, 3), task("pool", None, 1), task("chain", 40.0, 1))
    rows = task_rows([first, second])
    assert rows == [
        TaskRow(name="CHAIN", calls_us=(None, 40.0)),
        TaskRow(name="CONV", calls_us=(30.0, 24.0)),
        TaskRow(name="POOL", calls_us=(5.0, None)),
    ]
    assert [row.fastest for row in rows] == [None, 1, None]


def test_curves_of_one_estimate_and_of_equal_ends(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    job = get_job(services.database, start(client, model_file))
    steps = [Step(number=4, task="t", task_best_us=1.0, estimated_us=900.0)]
    drawn = [
        Compared(letter=letter, job=job, tasks=[], steps=steps, peak_bytes=None, bundle_bytes=None) for letter in "AB"
    ]
    picture = str(curves(drawn))
    letters = re.findall(r'<text class="axis" x="[\d.]+" y="([\d.]+)">([AB])<', picture)
    heights = {letter: float(height) for height, letter in letters}
    assert heights["B"] - heights["A"] >= 14  # the letters do not cover each other
    assert (
        str(curves([drawn[0].__class__(letter="A", job=job, tasks=[], steps=[], peak_bytes=None, bundle_bytes=None)]))
        == ""
    )
