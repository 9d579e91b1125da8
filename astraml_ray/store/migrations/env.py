"""Run by Alembic, for each command; `upgrade.py` hands it the connection, with its transaction and its lock."""

from __future__ import annotations

from alembic import context

__all__ = ["run"]


def run() -> None:
    """Runs the migrations of the command in the transaction that the caller commits."""
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()


# Alembic loads this file under a name of its own; an ordinary import runs nothing.
if __name__ == "env_py":
    run()
