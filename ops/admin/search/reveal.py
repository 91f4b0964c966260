"""Reveals content: bodies, header values, what endpoints answered. The audit says who saw what before it is shown."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from ops.admin.search import deliveries, events
from ops.admin.timeline import dead_letter
from ops.admin.views import View
from ops.errors import Unknown
from ops.runtime.db import transaction
from ops.settings import Settings
from pipeline.store.admin import audit
from schemas.access import By


def of_event(reads: Engine, acts: Engine, settings: Settings, tenant: str, place: tuple[UUID, int], by: By) -> View:
    """The exact body of an entry, and its media type. Raises `Unknown` if there is no such entry, or its content is gone."""
    chain, seq = place
    found = events.content(reads, settings, tenant, chain, seq)
    if found is None:
        raise Unknown("there is no such entry, or its content is gone")
    _note(acts, by, {"tenant": tenant, "chain": chain.hex, "seq": seq})
    return {"content_type": found[1], **_body(found[0])}


def of_delivery(reads: Engine, acts: Engine, tenant: str, id_: int, by: By) -> View:
    """What an endpoint answered to each try. Raises `Unknown`."""
    found = deliveries.answers(reads, tenant, id_)
    if found is None:
        raise Unknown(f"tenant {tenant} has no delivery {id_}")
    _note(acts, by, {"tenant": tenant, "delivery": id_})
    return {"answers": found}


def of_dead_letter(reads: Engine, acts: Engine, settings: Settings, tenant: str | None, id_: int, by: By) -> View:
    """The message of a dead letter, and what an endpoint answered to each try. Raises `Unknown`."""
    found = dead_letter(reads, settings, id_, tenant)
    _note(acts, by, {**({} if found["tenant"] is None else {"tenant": found["tenant"]}), "id": id_})
    answers = [{name: each[name] for name in ("n", "response")} for each in found["tries"]]
    return {**{name: found[name] for name in ("content_type", "headers", "body", "body_base64")}, "answers": answers}


def without_content(dead_letter: View) -> View:
    """A dead letter as it is shown before it is revealed."""
    kept = {name: value for name, value in dead_letter.items() if name not in ("headers", "body", "body_base64")}
    tries = [{name: value for name, value in each.items() if name != "response"} for each in dead_letter["tries"]]
    sizes = [len(each["response"].encode()) for each in dead_letter["tries"]]
    kept["tries"] = [{**each, "response_bytes": size} for each, size in zip(tries, sizes, strict=True)]
    return kept


def _note(engine: Engine, by: By, what: Mapping[str, Any]) -> None:
    with transaction(engine) as conn:
        audit.record(conn, by, "reveal", what, 1, datetime.now(UTC), "done")


def _body(raw: bytes) -> View:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = None
    return {"body": text, "body_base64": base64.b64encode(raw).decode(), "size": len(raw)}
