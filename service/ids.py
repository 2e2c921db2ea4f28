"""Identifiers of our own: UUIDs of version 7, which sort by the time at which they were made."""

from __future__ import annotations

from uuid_utils import uuid7


def new_id() -> str:
    return str(uuid7())
