"""Says what can be claimed of the ledgers, by what the verifier found: in words, how far from the strongest."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from ops.admin.doctor.finding import Finding, note, ok, wrong
from pipeline.store.ledger import ledger_claims
from schemas.ledger.assurance import WORDS

_OLD: Final = timedelta(hours=26)
_SHOWN: Final = 10


def check_claims(conn: Connection) -> Iterator[Finding]:
    """A tenant of whose ledger nothing can be claimed is wrong; that more could be is worth knowing."""
    kept = ledger_claims.kept(conn)
    if not kept:
        yield note("claim", "no ledger was checked yet", "run `waxseal verifier`, or `waxseal verify --new` every day")
        return
    oldest = min(kept, key=lambda each: each.checked_at)
    if datetime.now(UTC) - oldest.checked_at > _OLD:
        what = f"{oldest.tenant} was last checked at {oldest.checked_at:%Y-%m-%d %H:%M}Z"
        yield note("claim", what, "run `waxseal verifier`: what was checked long ago is not claimed today")
    for each in sorted(kept, key=lambda each: WORDS.index(each.word))[:_SHOWN]:
        if each.word == "none":
            yield wrong("claim", f"{each.tenant}: nothing can be claimed of its ledger", "`waxseal verify` names the faults")
        elif each.missing:
            yield note("claim", f"{each.tenant}: {each.word}", each.missing)
        else:
            yield ok("claim", f"{each.tenant}: {each.word}")
