"""An event's origin is part of its identity; what ingest sets aside is told."""

from ops.migrations import refuse, run_beside

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates everything in the SQL file beside this one, in the caller's transaction."""
    run_beside(__file__)


def downgrade() -> None:
    """Is refused: a ledger is not taken back."""
    refuse()
