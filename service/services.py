"""What a request, a page or a command works with, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.blobs import BlobStore
    from service.database import Database
    from service.engine.local import LocalEngine
    from service.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Services:
    """One running service. ``engine`` is None where jobs are only read."""

    settings: Settings
    database: Database
    blobs: BlobStore
    engine: LocalEngine | None
