"""What routes ask FastAPI for."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from service.access.access import Access
from service.access.principal import Principal
from service.api.event_feed import EventFeed
from service.paging import DEFAULT_LIMIT, MAX_LIMIT
from service.services import ProjectServices, Services


def get_server(request: Request) -> Services:
    """The whole server, for what is of no project: whether it is well, and signing in."""
    return cast(Services, request.app.state.services)


def get_services(request: Request) -> ProjectServices:
    """What whoever asks may see: their project."""
    principal = get_principal(request)
    return get_server(request).of_project(principal.project, user=principal.name)


def get_feed(request: Request) -> EventFeed:
    return cast(EventFeed, request.app.state.feed)


def get_access(request: Request) -> Access:
    return cast(Access, request.app.state.access)


def get_principal(request: Request) -> Principal:
    """Who asks; of routes that everybody may use there is none (`service.access.gate`)."""
    return cast(Principal, request.state.principal)


AccessDep = Annotated[Access, Depends(get_access)]
PrincipalDep = Annotated[Principal, Depends(get_principal)]
FeedDep = Annotated[EventFeed, Depends(get_feed)]
ServerDep = Annotated[Services, Depends(get_server)]
ServicesDep = Annotated[ProjectServices, Depends(get_services)]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before", max_length=500)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="items a page")]
DEFAULT_PAGE = DEFAULT_LIMIT

ModelId = Annotated[str, Path(description="the model's id, or its first eight digits or more")]
JobId = Annotated[str, Path(description="the job's id")]
ArtifactId = Annotated[str, Path(description="the artifact's id")]
WebhookId = Annotated[str, Path(description="the webhook's id")]
TokenId = Annotated[str, Path(description="the token's id, or its name")]
TargetName = Annotated[str, Path(description="the target's name")]
TargetKey = Annotated[str, Path(description="the target's name or fingerprint")]
