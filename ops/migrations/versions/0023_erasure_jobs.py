"""Jobs that move planned tries up, and jobs that erase, which the eraser carries out."""

from ops.migrations import refuse, run_beside

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file beside this one, in the caller's transaction."""
    run_beside(__file__)


def downgrade() -> None:
    """Refuse: the schema of an append-only ledger is not downgraded."""
    refuse()
