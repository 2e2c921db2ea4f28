"""Tasks of which a network needs one or the other, as the tasks table shows them."""

from __future__ import annotations

from service.jobs.commands import create_job
from service.schemas.jobs import JobCreate
from service.services import ProjectServices
from service.stores import JobReporter
from tests import models
from tests.service.tuning import claimed
from tests.signed_in import TestClient
from tuner.events import TaskRecalled, TasksExtracted, TaskSummary
from tuner.search.alternatives import Alternative, Use


def summary(name: str, *, choice: str | None = None, way: str = "") -> TaskSummary:
    alternative = Alternative(choice=choice, way=way) if choice else None
    uses = (Use(count=2, alternative=alternative),)
    return TaskSummary(key=name, name=name, workload=name, uses=uses, flops=1e6)


def test_the_faster_way_counts_and_the_other_is_marked(client: TestClient, services: ProjectServices) -> None:
    model = client.post("/api/v1/models?filename=m.onnx", content=models.perceptron().SerializeToString()).json()["id"]
    job = create_job(services, JobCreate(model_id=model, trials=8)).job.id
    assert claimed(services.database) == job
    reporter = JobReporter(services.database, job)
    tasks = (
        summary("plain"),
        summary("alone", choice="9×9×16→16", way="direct"),
        summary("direct", choice="8×8×16→16", way="direct"),
        summary("in", choice="8×8×16→16", way="winograd"),
        summary("out", choice="8×8×16→16", way="winograd"),
    )
    reporter.emit(TasksExtracted(tasks=tasks))
    for name, best_us in (("plain", 20.0), ("alone", 30.0), ("direct", 100.0), ("in", 20.0), ("out", 30.0)):
        reporter.emit(TaskRecalled(task=name, best_us=best_us))
    shown = {task["name"]: task for task in client.get(f"/api/v1/jobs/{job}/tasks").json()["items"]}
    assert {name: task["share"] for name, task in shown.items()} == {
        "plain": 0.2,
        "alone": 0.3,
        "direct": None,
        "in": 0.2,
        "out": 0.3,
    }
    assert [name for name, task in shown.items() if not task["used"]] == ["direct"]
    assert {name: task["way"] for name, task in shown.items()} == {
        "plain": None,
        "alone": None,
        "direct": "direct",
        "in": "winograd",
        "out": "winograd",
    }
    page = client.get(f"/jobs/{job}").text
    assert "direct: another way is used" in page
    assert page.count("winograd") >= 2
