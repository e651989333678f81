"""Alembic's entry: runs revisions over the connection that `engine.migrate` hands in."""

from alembic import context

from controller.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
)
with context.begin_transaction():
    context.run_migrations()
