"""A new incarnation of a tenant's log, after a restore: its first leaf names the log that it follows."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from ops.admin.bulk import Act, noted
from ops.errors import OpsError
from ops.runtime.db import transaction
from ops.runtime.places import Place
from ops.runtime.published_log import PublishedLog
from ops.runtime.vault import Vault
from ops.settings import Settings
from pipeline.append import append_own
from pipeline.errors import Unreadable
from pipeline.ledger.checkpoint import Checkpoint, unverified_checkpoint
from pipeline.ledger.merkle import EMPTY_ROOT
from pipeline.ledger.own_events import ORIGIN_KIND, origin_event
from pipeline.store.admin import queries
from pipeline.store.log import incarnations, leaves
from schemas.access import By
from schemas.ledger.log_names import log_origin

_SECONDS = 10.0  # for one published checkpoint


@dataclass(frozen=True, slots=True)
class Successor:
    """What a new incarnation would be: it follows `former`, as it was published, and holds all entries there are."""

    tenant: str
    incarnation: int
    origin: str
    former: Checkpoint
    held: int  # leaves of the former log that the database has for certain: it knows a checkpoint of them
    entries: int


def plan(engine: Engine, settings: Settings, tenant: str) -> Successor:
    """What `start` would do now. Raises `OpsError` for a tenant without a log, and `PlaceAway`."""
    with transaction(engine) as conn:
        newest = incarnations.newest(conn, tenant)
        entries = incarnations.entries(conn, tenant)
    place = Place(settings.log_files, _SECONDS)
    last, former = _last_published(settings, place, tenant, 1 if newest is None else newest.incarnation)
    if newest is None and former is None:
        raise OpsError(f"{tenant} has no log: nothing of it is recorded, and nothing is published at {place.where}")
    origin = log_origin(settings.log_origin, tenant, last)
    former = former or Checkpoint(origin, 0, EMPTY_ROOT)
    held = 0
    if newest is not None and newest.incarnation == last:
        with transaction(engine) as conn:
            held = _held(conn, newest.id, former)
    return Successor(tenant, last + 1, log_origin(settings.log_origin, tenant, last + 1), former, held, entries)


def start(engine: Engine, settings: Settings, successor: Successor, who: By) -> int:
    """Begin it, with its first leaf, and have every entry positioned again; gives the number of chains.

    Writers wait while the chains are noted, some seconds per million. Killed before its COMMIT, nothing has happened.
    """
    tenant, now = successor.tenant, datetime.now(UTC)
    about = {"tenant": tenant, "origin": successor.origin}
    with noted(engine, Act(who, "log new-origin", about), 1) as tally:
        with transaction(engine) as conn:
            event = origin_event(tenant, _key(conn, settings, tenant), successor.incarnation, successor.former, now)
            incarnations.open_next(conn, tenant, successor.incarnation)
            entry = append_own(conn, event, ORIGIN_KIND, now)
            chains = incarnations.note_all(conn, tenant, entry.chain_id)
        tally.done = 1
    return chains


def _last_published(settings: Settings, place: Place, tenant: str, known: int) -> tuple[int, Checkpoint | None]:
    """The newest incarnation that was published, or that the database knows, and what was published of it."""
    found, last = _published(settings, place, tenant, known), known
    while (later := _published(settings, place, tenant, last + 1)) is not None:
        found, last = later, last + 1
    return last, found


def _published(settings: Settings, place: Place, tenant: str, incarnation: int) -> Checkpoint | None:
    raw = PublishedLog(place, tenant, incarnation).checkpoint()
    if raw is None:
        return None
    try:
        checkpoint = unverified_checkpoint(raw)
    except Unreadable as error:
        raise OpsError(f"{place.where} has a checkpoint of {tenant} that cannot be read: {error}") from error
    origin = log_origin(settings.log_origin, tenant, incarnation)
    if checkpoint.origin != origin:
        raise OpsError(f"{place.where} has a checkpoint of {checkpoint.origin} in place of {origin}: check WAXSEAL_LOG_ORIGIN")
    return checkpoint


def _held(conn: Connection, log_id: int, former: Checkpoint) -> int:
    """Up to which size the database knows the published log. That its own is longer says nothing: it may be another tree."""
    for size in leaves.signed_sizes(conn, log_id, former.size, 2):
        note = leaves.signed(conn, log_id, size)
        if note is not None and (size < former.size or note.partition("\n\n")[0] + "\n" == former.text):
            return size
    return 0


def _key(conn: Connection, settings: Settings, tenant: str) -> bytes:
    known = queries.tenants(conn)
    if tenant not in known:
        raise OpsError(f"there is no tenant {tenant!r} in the configuration: apply it first")
    return Vault(settings.fernet_keys()).decrypt(known[tenant])
