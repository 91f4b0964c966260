"""The chunks of a job that erases: each appends an erasure entry and takes what that lists, in one transaction with its job."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from ops.admin.erasure import erase_subject
from ops.admin.jobs.arguments import Erasing
from ops.admin.jobs.chunks import Chunk, Moved, Step
from pipeline.ledger.erase import Order


def step(keys: Mapping[str, bytes]) -> Step:
    """The step of such a job, for a process with the rights of the eraser; `keys` are the tenants' keys."""
    return partial(_erase, keys)


def _erase(keys: Mapping[str, bytes], chunk: Chunk, conn: Connection, size: int) -> Moved | None:
    given, place = chunk.arguments, chunk.place
    assert isinstance(given, Erasing)
    chain = erase_subject.chain(conn, str(chunk.tenant), UUID(given.chain))
    erase_subject.check_key(keys, chain.tenant)
    span = int(place["after"]), int(place["last"])
    order = Order(chunk.who, given.reason)
    if chain.subject is not None:
        erase_subject.check_told(chain.subject, order)
    done = erase_subject.erase_next(
        conn, chain, order, keys, span, size, given.seqs, datetime.now(UTC), name=bool(place["name"])
    )
    if done is None:
        return None
    erased, after = done
    told = {name: getattr(erased, name) for name in ("entries", "bytes", "blobs", "documents", "mails", "letters")}
    told["discarded"] = sum(erased.discarded.values())
    before = place.get("result", {})
    result = {name: before.get(name, 0) + count for name, count in told.items()}
    return Moved(erased.entries, {**place, "after": after, "result": result})
