"""Which scope each route needs, by its method and its path. A route that is in no rule is refused."""

from __future__ import annotations

import re
from enum import Enum
from functools import cache

from starlette.routing import compile_path

from service.access.scopes import AccessScope


class Free(Enum):
    """Routes for everybody: what they answer with is no secret, and signing in begins there."""

    FREE = "free"


Need = AccessScope | Free
FREE = Free.FREE
# HEAD goes with GET.
_RULES: dict[Need, str] = {
    FREE: """
        GET /healthz
        GET /readyz
        GET /static/{path:path}
        GET /sign-in
        POST /sign-in
        GET /sign-in/oidc
        GET /sign-in/oidc/callback
    """,
    AccessScope.READ: """
        GET /metrics
        GET /api/v1/openapi.json
        GET /api/v1/models
        GET /api/v1/models/{model_id}
        GET /api/v1/models/{model_id}/content
        GET /api/v1/targets
        GET /api/v1/targets/{name}
        GET /api/v1/devices
        GET /api/v1/jobs
        GET /api/v1/jobs/{job_id}
        GET /api/v1/jobs/{job_id}/tasks
        GET /api/v1/jobs/{job_id}/trials
        GET /api/v1/jobs/{job_id}/log
        GET /api/v1/jobs/{job_id}/artifacts
        GET /api/v1/jobs/{job_id}/front
        GET /api/v1/jobs/{job_id}/events
        GET /api/v1/signing-key
        GET /api/v1/artifacts/{artifact_id}
        GET /api/v1/artifacts/{artifact_id}/download
        GET /api/v1/records
        GET /api/v1/cost-models
        GET /api/v1/cost-models/{target}
        GET /api/v1/storage
        POST /api/v1/sign-in-links
        POST /sign-out
        GET /docs
        GET /
        GET /targets
        GET /jobs/{job_id}
        GET /jobs/{job_id}/trials
        GET /jobs/{job_id}/chart
        GET /jobs/{job_id}/chart/{number}
        GET /jobs/{job_id}/tasks/{task_key}
        GET /compare
        GET /models
        GET /models/{model_id}
        GET /models/{model_id}/graph
        GET /netron/{wanted}/{name}
        GET /records
        GET /cost-models
        GET /cost-models/{target}
        GET /new
    """,
    AccessScope.SUBMIT: """
        POST /api/v1/models
        DELETE /api/v1/models/{model_id}
        POST /api/v1/models/{model_id}/check
        POST /api/v1/samples
        POST /api/v1/targets
        POST /api/v1/jobs
        POST /api/v1/jobs/{job_id}/cancel
        DELETE /api/v1/jobs/{job_id}
        POST /api/v1/records
        POST /api/v1/cost-models/{target}/versions/{version}/restore
        POST /new
        POST /new/{model_id}
        POST /jobs/cancel
        POST /jobs/{job_id}/cancel
        POST /models/{model_id}/delete
        POST /records
        POST /cost-models/{target}/versions/{version}/restore
    """,
    # Addresses of webhooks often hold a secret: reading them is no reader's right.
    AccessScope.ADMIN: """
        GET /api/v1/webhooks
        POST /api/v1/webhooks
        DELETE /api/v1/webhooks/{webhook_id}
        POST /api/v1/webhooks/{webhook_id}/test
        GET /api/v1/webhooks/{webhook_id}/deliveries
        PUT /api/v1/storage/retention
        POST /api/v1/storage/clean-up
        GET /api/v1/tokens
        POST /api/v1/tokens
        DELETE /api/v1/tokens/{token_id}
        GET /api/v1/audit
        GET /settings
        POST /settings/retention
        POST /settings/clean-up
        POST /settings/webhooks
        POST /settings/webhooks/{webhook_id}/test
        POST /settings/webhooks/{webhook_id}/remove
        POST /settings/tokens
        POST /settings/tokens/{token_id}/revoke
    """,
}


@cache
def rules() -> dict[tuple[str, str], Need]:
    """Method and path, as the routes have it, to what it needs."""
    return {
        (method, path): need
        for need, text in _RULES.items()
        for method, path in (line.split() for line in text.strip().splitlines())
    }


def needed(method: str, path: str) -> Need | None:
    """What a request needs; the most, where several routes fit its path; None where no rule has it."""
    method = "GET" if method == "HEAD" else method
    found = {need for of_method, pattern, need in _patterns() if of_method == method and pattern.fullmatch(path)}
    return next((need for need in (*reversed(AccessScope), FREE) if need in found), None)


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str], Need], ...]:
    return tuple((method, compile_path(path)[0], need) for (method, path), need in rules().items())
