"""Events of our own that say something of a tenant's whole log: heads, and the origin of a new incarnation (LEDGER §3)."""

from collections.abc import Mapping
from datetime import datetime
from uuid import uuid4

import orjson

from pipeline.dedupe import chain_key, identity
from pipeline.ledger.checkpoint import Checkpoint
from schemas.event import Event

SOURCE = "waxseal"
ORIGIN_KIND = "origin"


def own_event(tenant: str, key: bytes, subject: str, type_: str, body: bytes, now: datetime) -> Event:
    """An event of the tenant whose key this is; its chain is that of `subject`, its id fresh."""
    attributes: Mapping[str, str] = {
        "id": str(uuid4()),
        "source": SOURCE,
        "specversion": "1.0",
        "type": type_,
        "subject": subject,
        "time": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "datacontenttype": "application/json",
    }
    return Event(tenant, attributes, body, identity(key, attributes), chain_key(key, subject))


def origin_subject(incarnation: int) -> str:
    """The subject of an incarnation's first leaf.

    From the third one on, a chain of its own: the entry is leaf 0, and must not come before an earlier one of its chain.
    """
    return "waxseal.origin" if incarnation == 2 else f"waxseal.origin.r{incarnation}"


def origin_event(tenant: str, key: bytes, incarnation: int, former: Checkpoint, now: datetime) -> Event:
    """What a new incarnation begins with: the origin, size and root of the log that it follows."""
    said = {"origin": former.origin, "root": former.root.hex(), "size": former.size}
    body = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return own_event(tenant, key, origin_subject(incarnation), "waxseal.origin", body, now)
