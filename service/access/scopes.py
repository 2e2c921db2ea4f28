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
