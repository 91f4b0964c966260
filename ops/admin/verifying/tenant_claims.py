"""Finds out what can be claimed of each tenant's ledger: after its verification, by looking at what is outside the database."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from ops.admin.verifying.anchor_receipts import ANCHORED, WITNESSED, AnchorReceipts, Found
from ops.errors import PlaceAway, one_line
from ops.runtime.places import Patience, Place
from ops.runtime.published_log import PublishedLog
from ops.settings import Settings
from pipeline.errors import Unreadable
from pipeline.ledger.assurance import Checked, claim
from pipeline.ledger.checkpoint import Checkpoint, open_checkpoint
from pipeline.ledger.notes import ED25519, Key
from pipeline.store.ledger import ledger_claims, log_scan
from pipeline.store.ledger.ledger_claims import Seal
from schemas.ledger.assurance import Claim

WAITING: Final = timedelta(minutes=5)  # for which an entry may be without a position or checkpoint, and its tenant be sealed
FRESH: Final = timedelta(days=1)  # for which an entry may be in no anchored checkpoint, and its tenant still be anchored


def claims_of(conn: Connection, settings: Settings, faulty: Collection[str | None]) -> Iterator[tuple[str, Claim]]:
    """What can be claimed of each tenant now. `faulty`: the tenants of which a fault was found; None: of the whole."""
    place = Place(settings.log_files) if settings.log_files else None
    patience = Patience()
    receipts = AnchorReceipts(settings.log_anchors)
    now = datetime.now(UTC)
    for seal in ledger_claims.seals(conn):
        fault = seal.tenant in faulty or None in faulty or seal.broken
        keys = _keys(conn, seal)
        checked = Checked(
            chained="a verification that finds no fault" if fault else None,
            sealed=_sealed(seal, now),
            published=_published(conn, seal, keys, place, patience),
            anchored=_anchor(conn, "an anchor outside", receipts.look(conn, seal, keys, ANCHORED), seal, now),
            witnessed=_anchor(conn, "the signature of a witness", receipts.look(conn, seal, keys, WITNESSED), seal, now),
        )
        yield seal.tenant, claim(checked)


def _sealed(seal: Seal, now: datetime) -> str | None:
    """The checkpoints themselves were verified with the log: what is looked at here is that they cover what was recorded."""
    if seal.log is None or seal.size is None:
        return "a checkpoint: run `waxseal sequencer` and `waxseal sealer`"
    long_ago, minutes = (now - WAITING).timestamp() * 1e6, WAITING.seconds // 60
    if seal.waiting_at is not None and seal.waiting_at < long_ago:
        return f"positions for entries that have waited for more than {minutes} minutes: run `waxseal sequencer`"
    if seal.unsealed_at is not None and seal.unsealed_at < long_ago:
        return f"a checkpoint of entries that have waited for more than {minutes} minutes: run `waxseal sealer`"
    return None


def _keys(conn: Connection, seal: Seal) -> list[Key]:
    """The log's keys, by the origin of its newest checkpoint; none if it has no checkpoint that can be read."""
    if seal.log is None or seal.note is None:
        return []
    origin = seal.note.partition("\n")[0]
    return [Key(origin, ED25519, public) for public in log_scan.public_keys(conn, seal.log)]


def _published(conn: Connection, seal: Seal, keys: Sequence[Key], place: Place | None, patience: Patience) -> str | None:
    if place is None:
        return "the place of the published logs, to look there: set WAXSEAL_LOG_FILES"
    if seal.log is None or seal.incarnation is None or not keys:
        return "a checkpoint"
    try:
        with patience.asking():
            raw = PublishedLog(place, seal.tenant, seal.incarnation).checkpoint()
        if raw is None:
            return "a published checkpoint: there is none at the place of the published logs"
        found, names = open_checkpoint(raw, keys)
        return _agrees(found, names, ledger_claims.sealed_root(conn, seal.log, found.size), keys[0].name)
    except (PlaceAway, Unreadable) as error:
        return f"a published checkpoint that can be read: {one_line(error)}"


def _agrees(found: Checkpoint, names: Collection[str], sealed: bytes | None, origin: str) -> str | None:
    if found.origin != origin or origin not in names:
        return "a published checkpoint that is signed by a key of the log"
    if sealed != found.root:
        return f"a published checkpoint that the database has too: the one of size {found.size} is not in it"
    return None


def _anchor(conn: Connection, what: str, found: Found, seal: Seal, now: datetime) -> str | None:
    """A log at rest stays anchored for as long as the same anchor is verified again; one that has grown has a day."""
    if found.at is None or seal.log is None:
        return f"{what}: {found.why or 'name one in WAXSEAL_LOG_ANCHORS'}"
    since = ledger_claims.leaf_at(conn, seal.log, found.size) or seal.waiting_at
    if now - found.at <= FRESH or since is None or since >= (now - FRESH).timestamp() * 1e6:
        return None
    return (
        f"{what} of the last day, because the log has grown: the latest is of {found.at:%Y-%m-%d %H:%M}Z, for size {found.size}"
    )
