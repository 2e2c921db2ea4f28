"""The web application. It loads neither TVM nor ONNX: whatever touches a model runs in a process of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from service import __version__
from service.access.access import Access
from service.access.gate import Gate
from service.access.hosts import AllowedHosts
from service.access.keeping import keep_tokens
from service.access.refusals import refuse
from service.api import (
    access,
    artifacts,
    cost_models,
    health,
    jobs,
    models,
    openapi,
    problems,
    records,
    storage,
    targets,
    webhooks,
)
from service.api.event_feed import EventFeed
from service.api.guard import Guard
from service.blobs import open_blobs
from service.dashboard.pages import STATIC_DIR, install_error_pages
from service.dashboard.routes import router as dashboard
from service.database import Database
from service.database.upgrade import upgrade
from service.engine.engine import Engine
from service.engine.local import LocalPlacement
from service.engine.placement import Placement
from service.engine.processes import JOB_COMMAND
from service.fleet import FleetView
from service.ownership import own
from service.retention.keeper import RetentionKeeper
from service.services import Services
from service.settings import Settings
from service.webhooks.addresses import Reach
from service.webhooks.sender import WebhookSender
from tuner.measure.tracker import Tracker


def create_app(
    settings: Settings | None = None, *, engine: bool = True, job_command: Sequence[str] | None = None
) -> FastAPI:
    """The application on ``settings.data_dir``, which it owns while it runs (raises `DataDirInUse` at start).

    Without ``engine`` jobs are only kept, nothing runs them. ``job_command`` replaces what runs a job.
    """
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            services, local_token_id = await run_in_threadpool(_open, stack, settings, engine, job_command)
            app.state.services = services
            app.state.access = Access.of(settings, services.database, local_token_id=local_token_id)
            app.state.feed = EventFeed()
            yield
            services.stopping.set()
            await run_in_threadpool(stack.close)

    app = FastAPI(version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, **openapi.settings())
    problems.install(app, logging.getLogger("tessera"))
    install_error_pages(app)
    app.add_middleware(Gate, refuse=refuse)
    app.add_middleware(Guard, hosts=AllowedHosts(settings))  # the outer one: added last
    for part in (models, targets, jobs, artifacts, records, cost_models, webhooks, storage, access):
        app.include_router(part.router, prefix="/api/v1")
    app.include_router(health.router)
    app.include_router(dashboard)
    app.mount("/static", _RevalidatedFiles(directory=STATIC_DIR), name="static")
    openapi.install(app)
    return app


def _open(
    stack: ExitStack, settings: Settings, with_engine: bool, job_command: Sequence[str] | None
) -> tuple[Services, str]:
    """The services, and the id of the local token."""
    stack.enter_context(own(settings))
    database = Database(settings.sqlalchemy_url)
    stack.callback(database.close)
    upgrade(database)
    local_token_id = keep_tokens(settings, database)
    blobs = open_blobs(settings)
    blobs.remove_abandoned()
    fleet = FleetView(Tracker.parse(settings.tracker) if settings.tracker else None)
    engine, sender = None, None
    if with_engine:
        engine = Engine(settings, database, _placement(settings, database, fleet, job_command or JOB_COMMAND))
        engine.start()
        stack.callback(engine.stop)
        sender = WebhookSender(database, Reach(settings))
        sender.start()
        stack.callback(sender.stop)
    services = Services(settings=settings, database=database, blobs=blobs, engine=engine, webhooks=sender, fleet=fleet)
    if with_engine:
        keeper = RetentionKeeper(services)
        keeper.start()
        stack.callback(keeper.stop)
    return services, local_token_id


def _placement(settings: Settings, database: Database, fleet: FleetView, command: Sequence[str]) -> Placement:
    if settings.engine == "local":
        return LocalPlacement(settings, database, fleet=fleet, command=command)
    from service.engine.ray_cluster import RayPlacement

    return RayPlacement(settings, fleet=fleet, command=command)


class _RevalidatedFiles(StaticFiles):
    """Browsers ask again each time (a 304 mostly), or an upgraded page would run the old version's scripts."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
