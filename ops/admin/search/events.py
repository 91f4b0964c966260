"""Search for events, newest first, in pages; and one event with everything but its content."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.search import cursors
from ops.admin.search.deliveries import of_event
from ops.admin.search.found import Found, between, bounded, checked, matches, reading
from ops.admin.views import View, entry_view, object_in, rfc3339
from ops.runtime.blobs import open_blobs
from ops.settings import Settings
from pipeline.errors import BlobLost
from pipeline.ledger.erase import erasures
from pipeline.store.search import event_pages, places
from pipeline.store.search.event_pages import MOST_CHAINS, MOST_OF_CHAINS, MOST_TYPES, Way
from pipeline.store.search.indexing import MOST_TEXT

MOST_LOCATED: Final = 20  # events that have one id

_ALL: Final = 2**62
_CHAIN: Final = re.compile("[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NO_CHAIN: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"

#: The columns of a page's last row that its cursor has, in the order of the way's rows, and the parameters that they become.
_KEYS: Final[Mapping[Way, tuple[tuple[str, str], ...]]] = {
    **dict.fromkeys(("time", "type", "source", "types"), (("at", "at"), ("position", "position"))),
    "id": (("event_id", "id"), ("position", "position")),
    "chain": (("seq", "seq"),),
    "chains": (("at", "at"), ("chain_id", "chain"), ("seq", "seq")),
}


@dataclass(frozen=True)
class Search:
    """What is searched for in a tenant's events; in type, subject and id, a trailing `*` makes a prefix of it.

    `since` and `until` are times of arrival: from the first on, before the second.
    """

    tenant: str
    type: str | None = None
    source: str | None = None
    subject: str | None = None
    id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def events(engine: Engine, search: Search, cursor: str | None, limit: int) -> Found:
    """A page of the events that match, newest first; those with an id that begins with a prefix by their ids.

    Looks at a bounded number of events: see `Found.searched_to`. Raises `BadSearch` and `BadCursor`.
    """
    bounded(limit)
    checked(search.tenant), checked(search.source or "")
    kept = asdict(search)
    with reading(engine) as conn:
        log = event_pages.log(conn, search.tenant)
        if log is None:
            return Found()
        way, given = _begun(conn, search, log["id"], None if cursor is None else cursors.decode(cursor, kept))
        found = event_pages.page(conn, way, given, limit + 1)
        last = event_pages.last_scanned(conn, way, given) if len(found) <= limit and way != "types" else None
        shown = found[:limit]
        details = event_pages.details(conn, [(row["chain_id"], row["seq"]) for row in shown])
    goes_on = shown[-1] if len(found) > limit else last
    rows = [_row_view(row, details[row["chain_id"], row["seq"]]) for row in shown]
    return Found(
        [row for row in rows if matches(row["type"], search.type) and matches(row["id"], search.id)],
        None if goes_on is None else cursors.encode([way, *(_plain(goes_on[column]) for column, _ in _KEYS[way])], kept),
        last["at"] if last is not None else None,
        int(log["behind"]),
        log["at"],
    )


def _begun(conn: Connection, search: Search, log_id: int, key: Sequence[Any] | None) -> tuple[Way, dict[str, Any]]:
    """The way that has least to look at, or that the cursor is of, and its parameters."""
    given = _parameters(search, log_id)
    way: Way = "time"
    if search.subject is not None and search.id is None and (key is None or key[0] in ("chain", "chains")):
        way, given["chains"] = _by_subject(conn, search.subject, given, goes_on=key is not None)
        given["only"] = given["chains"][0] if given["chains"] else UUID(int=0)
    if way == "time":
        way = _by_words(conn, search, given)
    if key is not None:
        if _KEYS.get(key[0]) != _KEYS[way]:
            raise cursors.BadCursor("this page is no more to be had; begin at the first")
        given.update(zip((name for _, name in _KEYS[way]), key[1:], strict=True))
    return way, given


def _parameters(search: Search, log_id: int) -> dict[str, Any]:
    type_low, type_high = between(search.type)
    subject_low, subject_high = between(search.subject)
    id_low, id_high = between(search.id)
    return {
        "log": log_id,
        "type_low": type_low,
        "type_high": type_high,
        "source": search.source,
        "id_low": id_low,
        "id_high": id_high,
        "subject_low": subject_low,
        "subject_high": subject_high,
        "since": search.since or "-infinity",
        "until": search.until or "infinity",
        "at": search.until or "infinity",
        "position": -1 if search.until else _ALL,
        "seq": _ALL,
        "chain": _NO_CHAIN,
        "id": id_low or "",  # not from the beginning: Postgres begins where this says, whatever the other bounds are
    }


def _by_subject(conn: Connection, subject: str, given: Mapping[str, Any], *, goes_on: bool) -> tuple[Way, list[UUID]]:
    """One chain from its end, or few short ones whole; with a prefix that many subjects have, along the time."""
    found = event_pages.chains(conn, given["log"], given["subject_low"], given["subject_high"])
    chains = [row["chain_id"] for row in found if matches(row["subject"], subject)]
    if not subject.endswith("*") and len(chains) <= 1:
        return "chain", chains
    if not goes_on and (len(found) > MOST_CHAINS or sum(row["entries"] for row in found) > MOST_OF_CHAINS):
        return "time", []
    return "chains", chains


def _by_words(conn: Connection, search: Search, given: dict[str, Any]) -> Way:
    if search.id is not None:
        given.update(at="infinity", position=-1)
        return "id"
    if search.type is not None and not search.type.endswith("*"):
        return "type"
    if search.source is not None:
        return "source"
    if search.type is not None and search.subject is None:
        types = event_pages.types(conn, given["log"], given["type_low"], given["type_high"])
        if len(types) <= MOST_TYPES:
            given["types"] = types
            return "types"
    return "time"


def _plain(value: Any) -> Any:
    """A value of a key, as a cursor has it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, UUID) else value


def _row_view(row: Row, found: Row) -> View:
    """An event in a list. `deliveries`: their numbers by state; `size` is null for a large body, which lies apart."""
    attributes = object_in(found["attributes"])
    return {
        "chain": row["chain_id"].hex,
        "seq": row["seq"],
        "at": rfc3339(row["at"]),
        "id": attributes.get("id"),
        "type": attributes.get("type"),
        "source": attributes.get("source"),
        "subject": attributes.get("subject"),
        "size": found["size"],
        "large": found["blob"] is not None,
        "erased": found["attributes"] is None,
        "deliveries": found["states"] or {},
    }


def event(engine: Engine, tenant: str, chain: UUID, seq: int) -> View | None:
    """One entry of the tenant without its content: attributes, hashes, sizes, erasure, deliveries with their attempts.

    None if there is no such entry. `head` is the number of the chain's last entry; `position` null until the log has it.
    """
    with reading(engine) as conn:
        row = places.event(conn, checked(tenant), chain, seq)
        if row is None:
            return None
        sent = of_event(conn, tenant, chain, seq)
        gone = erasures(conn, chain).of(seq) if row["attributes"] is None else None
    view = entry_view(row, chain.hex, None, gone)
    for revealed in ("body", "body_base64"):
        del view[revealed]
    plain = ("tenant", "size", "head", "position", "incarnation")
    return {**view, **{name: row[name] for name in plain}, "subject": view["subject"] or row["subject"], "deliveries": sent}


def content(engine: Engine, settings: Settings, tenant: str, chain: UUID, seq: int) -> tuple[bytes, str] | None:
    """The exact body of an entry of the tenant, and its media type. None: no such entry, or its content is gone."""
    with reading(engine) as conn:
        row = places.content(conn, checked(tenant), chain, seq)
    if row is None:
        return None
    media_type = str(object_in(row["attributes"]).get("datacontenttype") or "application/octet-stream")
    if row["blob"] is None:
        return bytes(row["body"]), media_type
    try:
        return open_blobs(settings).get(tenant, row["blob"]), media_type
    except BlobLost:
        return None


def locate(engine: Engine, tenant: str | None, id_: str) -> list[View]:
    """What has this id, of the tenant or of all: events, a delivery, a dead letter, a job, a chain. Whole ids only."""
    wanted = checked(id_.strip())
    if not wanted or len(wanted) > MOST_TEXT:
        return []
    with reading(engine) as conn:
        found = [_place("event", row) for row in places.by_event_id(conn, tenant, wanted, MOST_LOCATED)]
        if wanted.isascii() and wanted.isdigit() and int(wanted) < _ALL:
            found += [_place(row["kind"], row) for row in places.by_number(conn, tenant, int(wanted))]
        if _CHAIN.fullmatch(wanted):
            found += [_place("chain", row) for row in places.by_chain(conn, tenant, UUID(wanted))]
    return found


def _place(kind: str, row: Row) -> View:
    view: View = {"kind": kind, "tenant": row["tenant"]}
    if kind == "event":
        return {**view, "chain": row["chain_id"].hex, "seq": row["seq"], "at": rfc3339(row["at"])}
    if kind == "chain":
        return {**view, "chain": row["chain_id"].hex, "seq": row["seq"], "subject": row["subject"]}
    return {**view, "id": row["id"], "state": row["state"]}
