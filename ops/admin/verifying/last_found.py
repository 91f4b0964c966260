"""What the last verification found, and what can be claimed of each tenant's ledger since."""

from sqlalchemy import Engine

from ops.admin.read_session import snapshot
from ops.admin.views import View, rfc3339
from pipeline.store.admin import verifications
from pipeline.store.ledger import ledger_claims


def last_found(engine: Engine, tenant: str | None) -> View:
    """The claims, of one tenant or of all, and the last verification of the whole; null if there was none."""
    with snapshot(engine) as conn:
        last = verifications.last(conn)
        kept = ledger_claims.kept(conn)
    return {
        "verified": last and {"entries": last.entries, "faults": last.faults, "intact_at": rfc3339(last.intact_at)},
        "claims": [
            {"tenant": each.tenant, "word": each.word, "checked_at": rfc3339(each.checked_at), "missing": each.missing}
            for each in kept
            if tenant in (None, each.tenant)
        ],
    }
