"""Going back to an earlier version of a cost model: what REST and the dashboard share."""

from __future__ import annotations

from service.errors import NotFound
from service.queries.cost_models import fingerprint_of
from service.services import ProjectServices
from service.stores import DatabaseCostModelStore


def restore_version(services: ProjectServices, target: str, version: int) -> None:
    """Make that version of a target (its name or fingerprint) the newest again, under a number of its own.

    Raises `NotFound` (``cost_model_not_found``).
    """
    store = DatabaseCostModelStore(services.database, services.blobs)
    if store.restore(fingerprint_of(services.database, target), version) is None:
        raise NotFound(
            f"There is no version {version} of a cost model for target {target!r}.",
            code="cost_model_not_found",
            hint=f"GET /api/v1/cost-models/{target} lists the versions.",
        )
