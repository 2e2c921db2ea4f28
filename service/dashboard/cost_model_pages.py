"""The page of one target's cost model, and going back to an earlier version."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from service.cost_models import restore_version
from service.dashboard import ranking, ranking_pictures
from service.dashboard.pages import PageRoute, render, services_of
from service.errors import NotFound
from service.queries.cost_models import get_cost_model
from service.queries.targets import all_targets
from service.schemas.cost_models import CostModelSchema

router = APIRouter(route_class=PageRoute, include_in_schema=False)
# A version comes with every job: the page shows the newest, REST all of them.
_MOST_VERSIONS = 100


@router.get("/cost-models/{target}")
def show_cost_model(request: Request, target: str) -> Response:
    """``target`` is a target's name or fingerprint."""
    database = services_of(request).database
    try:
        model = get_cost_model(database, target)
    except NotFound:
        known = next((each for each in all_targets(database) if target in (each.name, each.fingerprint)), None)
        if known is None:
            raise
        return render("cost_model.html", {"model": None, "name": known.name}, here="/cost-models")
    shown = model.versions[:_MOST_VERSIONS]
    accuracies = [
        (each.version, each.rank_quality["pairwise_accuracy"])
        for each in reversed(shown)
        if "pairwise_accuracy" in each.rank_quality
    ]
    context = {
        "model": model,
        "name": model.target or "another machine",
        "address": f"/cost-models/{quote(model.target or model.target_fingerprint, safe='')}",
        "answers": ranking.answers(model.rank_quality),
        "picture": ranking_pictures.scatter(model.held_out),
        "workloads": len({point.workload for point in model.held_out}),
        "bands": ranking.bands(model.held_out),
        "versions": shown,
        "not_shown": len(model.versions) - len(shown),
        "same_as": _same_as(shown),
        "accuracies": accuracies,
        "trend": ranking_pictures.trend(accuracies),
    }
    return render("cost_model.html", context, here="/cost-models")


@router.post("/cost-models/{target}/versions/{version}/restore")
def restore(request: Request, target: str, version: int) -> Response:
    restore_version(services_of(request), target, version)
    return RedirectResponse(f"/cost-models/{quote(target, safe='')}", status_code=303)


def _same_as(versions: list[CostModelSchema]) -> dict[int, int]:
    """Versions that were trained on the same samples to the same end as an earlier one: what restoring makes."""
    first: dict[tuple[str, int, str], int] = {}
    same = {}
    for each in reversed(versions):
        what = (each.training_set_sha256, each.size_bytes, str(sorted(each.rank_quality.items())))
        earlier = first.setdefault(what, each.version)
        if earlier != each.version:
            same[each.version] = earlier
    return same
