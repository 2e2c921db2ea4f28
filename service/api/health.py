"""/healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from service.access.scopes import AccessScope
from service.api.dependencies import PrincipalDep, ServerDep, ServicesDep
from service.database.tables import Artifact, Model, RecordCount
from service.database.upgrade import read_revisions
from service.disk_guard import shortage
from service.queries.jobs import count_jobs
from service.schemas.health import Health, Ready, ReadyCheck
from service.services import Services
from tuner.sandbox.strength import strength

router = APIRouter(tags=["health"])
# Without its version: the document names media types, not their parameters.
_METRICS = CONTENT_TYPE_LATEST.partition(";")[0]


@router.get(
    "/healthz",
    summary="Ask whether the process answers",
    description="200 as soon as the process answers, whatever else is wrong.",
    response_description="It does",
)
async def get_health() -> Health:
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Ask whether jobs can be taken",
    description="The database is at its newest revision, blobs can be written, the data directory's disk has space, "
    "the engine answers, and models can be confined as `TESSERA_SANDBOX` says.",
    response_description="All of it is well",
    responses={503: {"model": Ready, "description": "Not all of it: `checks` says what is wrong"}},
)
def get_readiness(response: Response, services: ServerDep) -> Ready:
    checks = [_database(services), _blobs(services), _disk(services), _sandbox(services), _engine(services)]
    ready = all(check.ok for check in checks)
    response.status_code = 200 if ready else 503
    return Ready(status="ok" if ready else "unavailable", checks=checks)


@router.get(
    "/metrics",
    summary="Read metrics for Prometheus",
    description="Gauges are computed from the database at the scrape: they are right after a restart too. They are of "
    "the token's project; for the scope `admin`, of all projects.",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format", "content": {_METRICS: {"schema": {"type": "string"}}}}},
)
def get_metrics(services: ServicesDep, server: ServerDep, principal: PrincipalDep) -> Response:
    registry = CollectorRegistry()
    registry.register(_DatabaseCollector(server if principal.scope is AccessScope.ADMIN else services))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _database(services: Services) -> ReadyCheck:
    try:
        revisions = read_revisions(services.database)
    except Exception as error:  # whatever the driver raises: it is not ready, and this says why
        return ReadyCheck(name="database", ok=False, detail=str(error))
    return ReadyCheck(name="database", ok=revisions.at_head, detail=f"revision {revisions.current}")


def _blobs(services: Services) -> ReadyCheck:
    try:
        services.blobs.check_writable()
    except Exception as error:
        return ReadyCheck(name="blobs", ok=False, detail=str(error))
    return ReadyCheck(name="blobs", ok=True)


def _disk(services: Services) -> ReadyCheck:
    short = shortage(services.settings)
    return ReadyCheck(name="disk", ok=short is None, detail=str(short or ""))


def _sandbox(services: Services) -> ReadyCheck:
    mode, found = services.settings.sandbox, strength()
    return ReadyCheck(name="sandbox", ok=mode != "required" or found.is_enough, detail=found.describe(mode))


def _engine(services: Services) -> ReadyCheck:
    if services.engine is None:
        return ReadyCheck(name="engine", ok=True, detail="none: this server only reads jobs")
    problem = services.engine.problem()
    return ReadyCheck(name="engine", ok=problem is None, detail=problem or services.engine.describe())


class _DatabaseCollector(Collector):
    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("tessera_jobs", "Jobs by state.", labels=["state"])
        for state, count in count_jobs(self._services.database).items():
            jobs.add_metric([state.value], count)
        yield jobs
        with self._services.database.read() as session:
            stored = select(func.count(), func.sum(Model.size_bytes)).select_from(Model)
            models, model_bytes = session.execute(stored).one()
            artifact_bytes = session.scalar(select(func.sum(Artifact.size_bytes)).select_from(Artifact))
            counted = session.execute(
                select(
                    RecordCount.target_fingerprint, func.sum(RecordCount.measured), func.sum(RecordCount.failed)
                ).group_by(RecordCount.target_fingerprint)
            ).all()
        records = GaugeMetricFamily("tessera_records", "Stored trials by target.", labels=["target", "result"])
        for fingerprint, measured, failures in counted:
            records.add_metric([fingerprint, "measured"], measured)
            records.add_metric([fingerprint, "failed"], failures)
        yield records
        yield GaugeMetricFamily("tessera_models", "Uploaded models.", value=models)
        yield GaugeMetricFamily("tessera_model_bytes", "Bytes of uploaded models.", value=model_bytes or 0)
        yield GaugeMetricFamily("tessera_artifact_bytes", "Bytes of all artifacts.", value=artifact_bytes or 0)
        ready = self._services.engine is not None and self._services.engine.problem() is None
        yield GaugeMetricFamily("tessera_engine_up", "1 when the engine answers.", value=int(ready))
