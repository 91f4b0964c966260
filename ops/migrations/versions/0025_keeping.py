"""What bounds the tables that are no part of the ledger: settled deliveries, attempts, dead letters, notices, the audit."""

from ops.migrations import refuse, run_beside

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file beside this one, in the caller's transaction."""
    run_beside(__file__)


def downgrade() -> None:
    """Refuse: the schema of an append-only ledger is not downgraded."""
    refuse()
