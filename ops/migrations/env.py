"""Alembic's entry: runs the migrations on the connection that `ops.migrate` hands over."""

from alembic import context

with context.begin_transaction():
    context.configure(connection=context.config.attributes["connection"], transaction_per_migration=False)
    context.run_migrations()
