"""The schema, one numbered SQL file a step."""

from pathlib import Path

from alembic import op


def run_beside(module: str) -> None:
    """Runs the SQL file that stands beside the migration in the file `module`, in the caller's transaction."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(module).with_suffix(".sql").read_text(encoding="utf-8"))


def refuse() -> None:
    """Raises RuntimeError: a ledger is not taken back."""
    raise RuntimeError("a ledger is append-only: restore a backup instead of downgrading")
