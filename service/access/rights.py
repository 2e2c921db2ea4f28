"""What a provider's claim gives: a scope in a project."""

from __future__ import annotations

import re

from service.access.principal import DEFAULT_PROJECT, PROJECT_NAME
from service.access.scopes import AccessScope


def parse_rights(text: str) -> dict[str, tuple[AccessScope, str]]:
    """Which values of a claim give which scope, in which project: ``admins=admin, cats=submit@cats, *=read``. Raises
    ValueError."""
    rights = {}
    for part in filter(None, map(str.strip, text.split(","))):
        value, _, right = part.rpartition("=")
        scope, _, project = map(str.strip, right.partition("@"))
        project = project or DEFAULT_PROJECT
        if not re.fullmatch(PROJECT_NAME, project):
            raise ValueError(f"{project!r} is not the name of a project ({PROJECT_NAME})")
        rights[value.strip()] = AccessScope(scope), project
    return rights
