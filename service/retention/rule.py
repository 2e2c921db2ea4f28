"""The rule of an installation: after how many days what ended is deleted. Without one, nothing ever is."""

from __future__ import annotations

from service.database import Database
from service.database.tables import Preference
from service.errors import Invalid

_KEY = "retention_days"
MOST_DAYS = 36_500


def get_retention_days(database: Database) -> int | None:
    with database.read() as session:
        row = session.get(Preference, _KEY)
    return None if row is None else int(row.value)


def set_retention_days(database: Database, days: int | None) -> None:
    """None keeps everything. Raises `Invalid` (``invalid_retention``)."""
    if days is not None:
        check_days(days)
    with database.write() as session:
        row = session.get(Preference, _KEY)
        if row is not None:
            session.delete(row)
            session.flush()
        if days is not None:
            session.add(Preference(key=_KEY, value=days))


def check_days(days: int) -> None:
    if not 1 <= days <= MOST_DAYS:
        raise Invalid(
            f"{days} is no number of days to keep something.",
            code="invalid_retention",
            hint=f"Give a whole number from 1 to {MOST_DAYS}, or none to keep everything.",
        )
