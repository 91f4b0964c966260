"""The documents of mails."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates everything in the SQL file beside this one, in the caller's transaction."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Is refused: a ledger is not taken back."""
    raise RuntimeError("a ledger is append-only: restore a backup instead of downgrading")
