"""The thread of the server that keeps to the rule: at its start, and every hour from then on."""

from __future__ import annotations

import logging
import threading

from service.queries.projects import list_projects
from service.retention.cleaning import delete_outdated
from service.retention.rule import get_retention_days
from service.services import Services

_EVERY_S = 3600.0
_STOP_WITHIN_S = 15.0

log = logging.getLogger(__name__)


class RetentionKeeper:
    def __init__(self, services: Services, *, every_s: float = _EVERY_S) -> None:
        self._services = services
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(_STOP_WITHIN_S)

    def _run(self) -> None:
        while True:
            try:
                self.keep()
            except Exception:
                log.exception("outdated jobs could not be deleted; trying again in an hour")
            if self._stopping.wait(self._every_s):
                return

    def keep(self) -> None:
        days = get_retention_days(self._services.database)
        if days is None:
            return
        for project in list_projects(self._services.database):
            self._keep(project, days)

    def _keep(self, project: str, days: int) -> None:
        deleted = delete_outdated(self._services.of_project(project, user="retention"), days)
        if deleted.count:
            log.warning(
                "deleted what is older than %d days in the project %s: "
                "%d jobs, %d models, %d samples, %d cost model versions, %d bytes",
                days,
                project,
                len(deleted.jobs),
                len(deleted.models),
                len(deleted.samples),
                len(deleted.cost_models),
                deleted.size_bytes,
            )
