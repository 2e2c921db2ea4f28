"""The Alembic environment and the chain of revisions."""
