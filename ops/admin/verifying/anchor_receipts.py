"""Finds out whether a tenant's log is anchored and witnessed: by asking the places, or verifying what they have signed.

A row that says so is only where to look. What it names must be at a place of WAXSEAL_LOG_ANCHORS, or be signed by it; when that
was, the place says too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection

from ops.errors import OpsError, PlaceAway, one_line
from ops.runtime.anchor_trust import Authorities, witness_key
from ops.runtime.places import Place
from pipeline.errors import Unproven, Unreadable
from pipeline.ledger.checkpoint import Checkpoint, open_checkpoint
from pipeline.ledger.cosignature import read_cosignatures
from pipeline.ledger.notes import Key
from pipeline.store.ledger import ledger_claims
from pipeline.store.ledger.ledger_claims import Receipt, Seal
from schemas.config.anchors import AnchorKind, AnchorPlace, read_anchors
from schemas.ledger.log_names import anchor_folder, anchor_name

SECONDS: Final = 10.0  # limit of one call to a place
MOST: Final = 5  # receipts of one place for one log that are looked at, the latest first

ANCHORED: Final[tuple[AnchorKind, ...]] = ("folder", "s3", "rfc3161")
WITNESSED: Final[tuple[AnchorKind, ...]] = ("witness",)


@dataclass(frozen=True, slots=True)
class Found:
    """When the latest receipt that holds was given, and for which size of the log; None, and why none does."""

    at: datetime | None
    why: str = ""
    size: int = 0


_Check = Callable[[Seal, Sequence[Key], Checkpoint, Receipt], datetime]


class AnchorReceipts:
    """Checks receipts of the places in the setting. A place that cannot be reached is not asked again."""

    def __init__(self, setting: str) -> None:
        self._places = read_anchors(setting)
        self._checks: dict[str, _Check] = {}
        self._away: dict[str, str] = {}

    def look(self, conn: Connection, seal: Seal, keys: Sequence[Key], kinds: Sequence[AnchorKind]) -> Found:
        """The latest receipt, from any place of these kinds, for a checkpoint that one of `keys`, the log's, has signed."""
        if seal.log is None or not keys:
            return Found(None, "there is no checkpoint yet")
        found = [self._latest(conn, seal, keys, named) for named in self._places if named.kind in kinds]
        held = [each for each in found if each.at is not None]
        none = Found(None, "; ".join(each.why for each in found))
        return max(held, key=lambda each: (each.size, each.at), default=none)

    def _latest(self, conn: Connection, seal: Seal, keys: Sequence[Key], named: AnchorPlace) -> Found:
        assert seal.log is not None
        why = self._away.get(named.place) or "it has given no receipt"
        if named.place in self._away:
            return Found(None, f"{named.place}: {why}")
        for row in ledger_claims.receipts(conn, seal.log, named.kind, named.place, MOST):
            try:
                return Found(self._check(named)(seal, keys, _sealed(keys, row), row), size=row.size)
            except PlaceAway as error:
                why = self._away[named.place] = one_line(error)
                break
            except (OpsError, Unreadable) as error:
                why = f"for size {row.size}, {one_line(error)}"
        return Found(None, f"{named.place}: {why}")

    def _check(self, named: AnchorPlace) -> _Check:
        """How a receipt of the place is checked. Raises `Misconfigured`."""
        if named.place not in self._checks:
            self._checks[named.place] = _check_of(named)
        return self._checks[named.place]


def _check_of(named: AnchorPlace) -> _Check:
    if named.kind == "rfc3161":
        return partial(_stamped, Authorities(named.trusts))
    if named.kind == "witness":
        return partial(_cosigned, witness_key(named.place, named.trusts))
    return partial(_kept, Place(named.place, SECONDS))


def _sealed(keys: Sequence[Key], row: Receipt) -> Checkpoint:
    """The stored checkpoint, which the log signed. Raises `Unreadable`."""
    checkpoint, _ = open_checkpoint(row.note, keys)
    if (checkpoint.size, checkpoint.root) != (row.size, row.root):
        raise Unproven("the stored note is of another checkpoint")
    return checkpoint


def _kept(place: Place, seal: Seal, keys: Sequence[Key], checkpoint: Checkpoint, row: Receipt) -> datetime:
    """The place has this checkpoint, signed by the log."""
    assert seal.incarnation is not None
    name = f"{anchor_folder(seal.tenant, seal.incarnation)}/{anchor_name(row.size)}"
    raw, at = place.read(name), place.written_at(name)
    if raw is None or at is None:
        raise Unproven(f"there is no {name} there")
    if open_checkpoint(raw, keys)[0] != checkpoint:
        raise Unproven(f"{name} there is another checkpoint than the database's")
    return at


def _stamped(trusted: Authorities, _seal: Seal, _keys: Sequence[Key], _checkpoint: Checkpoint, row: Receipt) -> datetime:
    return trusted.stamped_at(row.receipt, row.note.encode())


def _cosigned(key: Key, _seal: Seal, _keys: Sequence[Key], _checkpoint: Checkpoint, row: Receipt) -> datetime:
    times = [each.time for each in read_cosignatures(row.note, row.receipt, [key])]
    try:
        return datetime.fromtimestamp(max(times), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Unreadable("the cosignature's time is none") from error
