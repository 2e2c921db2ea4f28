"""Runs the revisions on the connection that `service.database.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from service.database.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    # The connection is in a transaction already: one failed revision leaves the schema as it was.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
