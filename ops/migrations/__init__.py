"""The schema, in steps: one numbered SQL file for each. No other statements, and no downgrades."""

from pathlib import Path


def run_beside(module: str) -> None:
    """Run the SQL file beside the migration in the file `module`, in the caller's transaction."""
    from alembic import op  # noqa: PLC0415 - those who only read the files, such as `verify`, need no alembic

    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(module).with_suffix(".sql").read_text(encoding="utf-8"))


def refuse() -> None:
    """Raise `RuntimeError`: the schema of an append-only ledger is not downgraded."""
    raise RuntimeError("a ledger is append-only: restore a backup instead of downgrading")
