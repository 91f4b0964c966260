"""Transports by the form of their names."""

from ops.migrations import refuse, run_beside

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates everything in the SQL file beside this one, in the caller's transaction."""
    run_beside(__file__)


def downgrade() -> None:
    """Is refused: a ledger is not taken back."""
    refuse()
