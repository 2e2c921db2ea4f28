"""The database: tables, sessions, the wall between projects, and the upgrade to the newest revision."""

from service.database.session import Database, ProjectDatabase

__all__ = ["Database", "ProjectDatabase"]
