"""How the tenants' logs stand: their size, what is sealed, published and anchored, their keys, and what is refused."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Engine, RowMapping

from ops.admin.log.signing_keys import key_view
from ops.admin.views import View
from ops.errors import PlaceAway
from ops.runtime.db import transaction
from ops.runtime.places import Patience, Place
from ops.runtime.published_log import PublishedLog
from ops.settings import Settings
from pipeline.errors import Unreadable
from pipeline.ledger.checkpoint import open_checkpoint
from pipeline.ledger.notes import ED25519, Key
from pipeline.store.log import anchors, checkpoints, keys
from schemas.config.anchors import AnchorPlace, read_anchors
from schemas.ledger.log_names import log_origin

_SECONDS = 5.0  # for the published checkpoint of one log


def standing(engine: Engine, settings: Settings, tenant: str | None) -> list[View]:
    """Each log, the newest incarnation last. What is published is read where it is published, and its signature checked."""
    with transaction(engine) as conn:
        rows = checkpoints.summary(conn, tenant)
        known = {row["id"]: keys.keys(conn, row["id"]) for row in rows}
        anchored = anchors.newest(conn, [row["id"] for row in rows])
    place = Place(settings.log_files, _SECONDS) if settings.log_files else None
    patience, named = Patience(), read_anchors(settings.log_anchors)
    return [_view(row, known[row["id"]], anchored, settings, partial(_published, place, patience), named) for row in rows]


def _view(
    row: RowMapping,
    known: Sequence[keys.LogKey],
    anchored: Sequence[RowMapping],
    settings: Settings,
    published: Callable[[RowMapping, str, Sequence[keys.LogKey]], View],
    named: Sequence[AnchorPlace],
) -> View:
    origin = log_origin(settings.log_origin, row["tenant"], row["incarnation"])
    refused = {"kind": row["refused"], "detail": row["refusal"], "since": _time(row["refused_since"])}
    return {
        "tenant": row["tenant"],
        "incarnation": row["incarnation"],
        "origin": origin,
        "state": row["state"],
        "size": row["size"],
        "pending": int(row["pending"]) if row["state"] == "open" else 0,
        "sealed": None if row["sealed"] is None else {"size": row["sealed"], "at": _time(row["signed_at"])},
        "published": published(row, origin, known),
        "anchored": [_anchor(each, row, anchored) for each in named],
        "keys": [key_view(key, origin) for key in known],
        "refused": refused if row["refused"] is not None else None,
    }


def _published(place: Place | None, patience: Patience, row: RowMapping, origin: str, known: Sequence[keys.LogKey]) -> View:
    """What is at the place, verified; `size` is None if there is nothing that can be."""
    if place is None:
        return {"place": None, "size": None, "error": "WAXSEAL_LOG_FILES is not set"}
    try:
        with patience.asking():
            raw = PublishedLog(place, row["tenant"], row["incarnation"]).checkpoint()
        if raw is None:
            return {"place": place.where, "size": None, "error": "nothing is published"}
        checkpoint, _ = open_checkpoint(raw, [Key(origin, ED25519, key.public) for key in known])
    except (PlaceAway, Unreadable) as error:
        return {"place": place.where, "size": None, "error": str(error)}
    return {"place": place.where, "size": checkpoint.size, "error": None}


def _anchor(named: AnchorPlace, row: RowMapping, anchored: Sequence[RowMapping]) -> View:
    """What the place took of this log last, by its receipt; `size` is None if it never took one."""
    wanted = (row["id"], named.kind, named.place)
    for each in anchored:
        if (each["log_id"], each["kind"], each["place"]) == wanted:
            age = (datetime.now(UTC) - each["at"]).total_seconds()
            return {
                "kind": named.kind,
                "place": named.place,
                "size": each["size"],
                "at": _time(each["at"]),
                "age": round(age, 1),
            }
    return {"kind": named.kind, "place": named.place, "size": None, "at": None, "age": None}


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
