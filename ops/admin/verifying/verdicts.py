"""What verifications last found of the tenants' ledgers."""

from sqlalchemy import Engine

from ops.admin.read_session import snapshot
from ops.admin.views import View, rfc3339
from pipeline.store.ledger import ledger_claims


def verdicts(engine: Engine, tenant: str | None) -> list[View]:
    """What can be claimed of each tenant's ledger, or of one; when that was checked, and what is missing for more."""
    with snapshot(engine) as conn:
        kept = [each for each in ledger_claims.kept(conn) if tenant in (None, each.tenant)]
    return [
        {"tenant": each.tenant, "claim": each.word, "checked_at": rfc3339(each.checked_at), "missing": each.missing}
        for each in kept
    ]
