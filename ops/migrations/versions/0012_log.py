"""The log of each tenant: which entries have which positions in its tree, its checkpoints, anchors and keys."""

from ops.migrations import refuse, run_beside

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file beside this one, in the caller's transaction."""
    run_beside(__file__)


def downgrade() -> None:
    """Refuse: the schema of an append-only ledger is not downgraded."""
    refuse()
