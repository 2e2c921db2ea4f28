"""What a token allows."""

from __future__ import annotations

from enum import StrEnum


class AccessScope(StrEnum):
    """Each includes the ones before it: `admin` may submit, `submit` may read."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def includes(self, other: AccessScope) -> bool:
        order = list(AccessScope)
        return order.index(self) >= order.index(other)


def parse_scopes(text: str) -> dict[str, AccessScope]:
    """Which values of a claim have which scope: ``admins=admin, ml=submit, *=read``. Raises ValueError."""
    pairs = [part.strip().rpartition("=") for part in text.split(",") if part.strip()]
    return {value.strip(): AccessScope(scope.strip()) for value, _, scope in pairs}
