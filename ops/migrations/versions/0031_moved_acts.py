"""Operator events and the audit of a tenant come along when it moves."""

from ops.migrations import refuse, run_beside

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file beside this one, in the caller's transaction."""
    run_beside(__file__)


def downgrade() -> None:
    """Refuse: the schema of an append-only ledger is not downgraded."""
    refuse()
