"""Rows of entries, deliveries, dead letters and the like as the plain JSON objects that commands show and print."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import RowMapping as Row

from pipeline.ledger.erase import Erasure
from pipeline.store.dead_letters.dead_letter_list import Group
from pipeline.store.deliveries.attempt_partitions import Partition
from pipeline.store.deliveries.undelivered import PlannedTries
from schemas.endpoint import DEFAULT_MAX_IN_FLIGHT

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

View = dict[str, Any]


def entry_view(row: Row, chain: str, body: bytes | None, erased: Erasure | None = None) -> View:
    """An entry of a timeline. `body_base64` is the exact body; `body` is its text, null if it is gone or not UTF-8.

    `erased` is the erasure that took its content.
    """
    attributes = object_in(row["attributes"])
    named = ("id", "type", "source", "subject", "time", "datacontenttype")
    return {
        "seq": row["seq"],
        "kind": row["kind"],
        **{name: attributes.get(name) for name in named},
        "at": microseconds_view(row["at"]),
        "chain": chain,
        "hash": row["hash"].hex(),
        "prev": row["prev_hash"] and row["prev_hash"].hex(),
        "attributes": attributes or None,
        "blob": row["blob"],
        "body": _text(body),
        "body_base64": None if body is None else base64.b64encode(body).decode(),
        "erased": erased and {"by_entry": erased.seq, "reason": erased.reason, "by": erased.by, "at": rfc3339(erased.at)},
    }


def without_body(view: View) -> View:
    """The same without what only a reveal shows."""
    return {name: value for name, value in view.items() if name not in ("body", "body_base64")}


def delivery_view(row: Row, tries: Sequence[Row]) -> View:
    """A delivery with its attempts, called `tries`; `attempts` is their number."""
    return {
        "id": row["id"],
        "endpoint": row["endpoint"],
        "event_id": object_in(row["attributes"]).get("id"),
        "subject": row["subject"],
        "chain": row["chain_id"].hex,
        "seq": row["seq"],
        "state": row["state"],
        "attempts": row["attempts"],
        "created_at": rfc3339(row["created_at"]),
        "next_attempt_at": rfc3339(row["next_attempt_at"]),
        "settled_at": rfc3339(row["settled_at"]),
        "error": row["error"],
        "tries": [try_view(each) for each in tries],
    }


def dead_letter_view(row: Row) -> View:
    """A dead letter as it is listed."""
    plain = ("id", "stage", "state", "reason", "error", "detail", "tenant", "source", "endpoint", "delivery_id", "event_id")
    times = ("first_at", "last_at", "decided_at")
    return {
        **{name: row[name] for name in (*plain, "routing_key", "attempts")},
        **{name: rfc3339(row[name]) for name in times},
        "decided_by": row["decided_by"],
    }


def whole_dead_letter_view(row: Row, tries: Sequence[Row], act: Row | None, body: bytes | None) -> View:
    """A dead letter with all that is kept: a message as it arrived; a delivery's place in the ledger, and its tries.

    `act` is the operator's act that closed it, as `waxseal audit` shows it; null while it is open.
    """
    return {
        **dead_letter_view(row),
        "act": None if act is None else act_view(act),
        "chain": row["chain_id"] and row["chain_id"].hex,
        "seq": row["seq"],
        "tries": [try_view(each) for each in tries],
        "content_type": row["content_type"],
        "headers": row["headers"],
        "blob": row["blob"],
        "body": _text(body),
        "body_base64": None if body is None else base64.b64encode(body).decode(),
    }


def group_view(group: Group) -> View:
    """The number of dead letters in a group, with its oldest and newest."""
    plain = ("stage", "reason", "tenant", "endpoint", "count")
    return {
        **{name: getattr(group, name) for name in plain},
        "oldest": rfc3339(group.oldest),
        "newest": rfc3339(group.newest),
    }


def reason_view(groups: Sequence[Group]) -> View:
    """The dead letters of one stage and reason, with the names of their tenants and endpoints."""
    return {
        "stage": groups[0].stage,
        "reason": groups[0].reason,
        "count": sum(each.count for each in groups),
        "tenants": sorted({each.tenant for each in groups if each.tenant is not None}),
        "endpoints": sorted({f"{each.tenant}/{each.endpoint}" for each in groups if each.endpoint is not None}),
        "oldest": rfc3339(min(each.oldest for each in groups)),
        "newest": rfc3339(max(each.newest for each in groups)),
    }


def undelivered_view(row: Row) -> View:
    """An undelivered pair of event and endpoint, with the reason."""
    attributes = object_in(row["attributes"])
    plain = ("id", "endpoint", "subject", "seq", "state", "attempts")
    return {
        **{name: row[name] for name in plain},
        "event_id": attributes.get("id"),
        "type": attributes.get("type"),
        "chain": row["chain_id"].hex,
        "created_at": rfc3339(row["created_at"]),
        "next_attempt_at": rfc3339(row["next_attempt_at"]),
        "settled_at": rfc3339(row["settled_at"]),
        "reason": _reason(row),
        "dead_letter": row["dead_letter"],
    }


def planned_view(planned: PlannedTries, endpoint: str) -> View:
    """How many tries of an endpoint are planned for later, and between which times."""
    times = {"earliest": rfc3339(planned.earliest), "latest": rfc3339(planned.latest)}
    return {"endpoint": endpoint, "count": planned.count, **times}


def partition_view(partition: Partition) -> View:
    """The attempts of one day, their number estimated."""
    return {"day": f"{partition.day}", "attempts": partition.rows, "bytes": partition.bytes, "state": partition.state}


def act_view(row: Row) -> View:
    """An act of an operator; `done` and `ended_at` are null if it was interrupted or has not ended.

    `principal` is the id of the token or session by which it came from `address`; `outcome` says if it was refused or failed.
    `cell` is that which the tenant has left since, if it was done there.
    """
    plain = (
        *("id", "who", "act", "filter", "planned", "done", "tenant", "object", "outcome", "reason", "cell"),
        *("means", "principal", "role", "address", "request_id"),
    )
    return {**{name: row[name] for name in plain}, "at": rfc3339(row["at"]), "ended_at": rfc3339(row["ended_at"])}


def event_view(row: Row) -> View:
    """An operator event."""
    plain = ("id", "kind", "tenant", "endpoint", "mailbox", "detail", "cell")
    return {**{name: row[name] for name in plain}, "at": rfc3339(row["at"])}


def endpoint_view(row: Row) -> View:
    """State, health and backlog of an endpoint. `forced`: an operator forced its `breaker`."""
    settings = row["settings"]
    plain = ("tenant", "name", "transport", "state", "reason", "breaker", "forced", "trips", "failures", "successes")
    times = ("opened_at", "probe_at", "window_from", "not_before", "failing_since", "oldest_due")
    return {
        **{name: row[name] for name in plain},
        **{name: rfc3339(row[name]) for name in times},
        "waits_until": rfc3339(max((at for at in (row["probe_at"], row["not_before"]) if at is not None), default=None)),
        **{name: row[name] for name in ("streak", "last_error", "pending", "overdue", "waiting", "leased", "paused")},
        "rate_limit": settings.get("rate_limit"),
        "max_in_flight": settings.get("max_in_flight", DEFAULT_MAX_IN_FLIGHT),
        "ordered": settings.get("ordered", False),
    }


def rfc3339(moment: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC, to the microsecond."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def try_view(row: Row) -> View:
    """An attempt, with the beginning of what was answered."""
    plain = ("n", "outcome", "status", "error", "detail", "address", "reused")
    phases = {name: row[name] for name in ("dns", "connect", "tls", "first_byte")}
    return {
        **{name: row[name] for name in plain},
        "started_at": rfc3339(row["started_at"]),
        "seconds": round(row["seconds"], 6),
        "phases": {name: round(seconds, 6) for name, seconds in phases.items() if seconds is not None},
        "response": (row["response"] or b"").decode(errors="replace"),
    }


def _reason(row: Row) -> str | None:
    """Why it is not delivered: what ended it, what holds it back, or the last error."""
    if row["state"] == "paused" and row["disabled"]:
        return f"disabled: {row['disabled']}"
    if row["state"] == "pending" and row["next_attempt_at"] is None:
        return "waits for its turn: an earlier event of its subject is not settled"
    parts = (row["buried"] if row["state"] == "dead" else None, row["error"])
    return ": ".join(part for part in parts if part) or None


def microseconds_view(at: int) -> str | None:
    """A time of an entry, which is in microseconds."""
    try:
        return rfc3339(_EPOCH + timedelta(microseconds=at))
    except OverflowError:
        return None  # the entry was altered: `waxseal verify` reports it


def object_in(stored: bytes | None) -> dict[str, Any]:
    """The attributes as stored; empty if there are none, or if they were altered."""
    try:
        found = orjson.loads(stored or b"{}")
    except orjson.JSONDecodeError:
        return {}  # the entry was altered: `waxseal verify` reports it
    return found if isinstance(found, dict) else {}


def _text(body: bytes | None) -> str | None:
    try:
        return None if body is None else body.decode()
    except UnicodeDecodeError:
        return None
