"""What Alembic runs to take the steps: on the connection that it was given, inside that connection's transaction."""

from alembic import context

from orchestrator.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite cannot alter most of a table: later steps copy it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
