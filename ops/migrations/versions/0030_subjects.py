"""A subject whose key is not known is found by an index."""

from ops.migrations import refuse, run_beside

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file beside this one, in the caller's transaction."""
    run_beside(__file__)


def downgrade() -> None:
    """Refuse: the schema of an append-only ledger is not downgraded."""
    refuse()
