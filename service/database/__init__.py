"""The database: tables, sessions and the upgrade to the newest revision."""

from service.database.session import Database

__all__ = ["Database"]
