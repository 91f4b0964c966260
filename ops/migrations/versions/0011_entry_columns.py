"""An entry's row is its envelope, in columns; its link is checked by statement; every right is the least."""

from ops.migrations import refuse, run_beside

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file beside this one, in the caller's transaction; entries that exist are copied by `entry_copy` later."""
    run_beside(__file__)


def downgrade() -> None:
    """Refuse: the schema of an append-only ledger is not downgraded."""
    refuse()
