"""What a request, a page or a command works with, in one value."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from service.fleet import FleetView

if TYPE_CHECKING:
    from service.blobs import BlobStore
    from service.database import Database, ProjectDatabase
    from service.engine.engine import Engine
    from service.settings import Settings
    from service.webhooks.sender import WebhookSender
    from tuner.targets import TargetSpec


@dataclass(frozen=True, kw_only=True)
class Services:
    """One running service, with what is of all projects. ``engine`` and ``webhooks`` are None where jobs are only read;
    ``stopping`` ends open streams."""

    settings: Settings
    database: Database
    blobs: BlobStore
    engine: Engine | None
    webhooks: WebhookSender | None = None
    fleet: FleetView = field(default_factory=lambda: FleetView(None))
    stopping: threading.Event = field(default_factory=threading.Event)

    def waiting_for(self, spec: TargetSpec) -> str | None:
        """What a job that is measured on the target would wait for; None where something can measure it."""
        return (self.engine or self.fleet).waiting_for(spec)

    def of_project(self, project: str, *, user: str) -> ProjectServices:
        """As one project has it. ``user`` is who asks: the name of a token."""
        shared = {each.name: getattr(self, each.name) for each in fields(Services)}
        return ProjectServices(**shared | {"database": self.database.whole.of_project(project)}, user=user)


@dataclass(frozen=True, kw_only=True)
class ProjectServices(Services):
    """What requests work with: nothing of another project is there."""

    database: ProjectDatabase
    user: str

    @property
    def project(self) -> str:
        return self.database.project
