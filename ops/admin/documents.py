"""Documents of mails, for operators: finds and shows one, counts all, and has them made again."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Engine

from ops.admin.read_session import known_tenant, snapshot, tenant_keys
from ops.admin.views import View, rfc3339
from ops.errors import OpsError
from ops.runtime.db import transaction
from ops.settings import Settings
from pipeline.dedupe import fingerprint
from pipeline.store.mail import documents as mail_documents
from pipeline.store.mail.documents import DueDocument
from schemas.mail_document import PARSER

PIECE: Final = 1000  # documents in one transaction


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail in the ledger, with its document if one was made."""

    due: DueDocument  # what a document is made from
    event: View  # its place in the ledger, and attributes of its event
    document: dict[str, Any] | None
    made_at: str | None


def find_mail(
    engine: Engine, settings: Settings, tenant: str, event_id: str, source: str | None = None, origin: str | None = None
) -> Mail:
    """The mail with that event id. Raises `OpsError` if no event or several have it, or it is not a mail, or it was erased.

    An event whose AMQP or HTTP sender set a CloudEvents `source` of its own is found only with that as `origin`.
    """
    with snapshot(engine) as conn:
        keys = tenant_keys(conn, settings)
        if keys is None:
            raise OpsError("no key to find events by their ids: set WAXSEAL_KEYS or WAXSEAL_KEYS_FILE")
        if known_tenant(conn, tenant) not in keys:
            raise OpsError(f"tenant {tenant} is not configured any more, so its events cannot be found by their ids")
        names = [source] if source else mail_documents.sources(conn, tenant)
        rows = mail_documents.find(conn, [fingerprint(keys[tenant], name, event_id, origin) for name in names])
        if not rows and origin:  # earlier versions computed the fingerprint without the origin
            formers = mail_documents.find(conn, [fingerprint(keys[tenant], name, event_id) for name in names])
            rows = [row for row in formers if row["is_erased"] or orjson.loads(row["attributes"]).get("origin") == origin]
    if not rows:
        raise OpsError(
            f"tenant {tenant} has no event {event_id!r:.200}{f' of {origin}' if origin else ''}; `waxseal timeline {tenant} "
            "SUBJECT` shows ids, and the origins that --origin asks for"
        )
    if len(rows) > 1:
        came = ", ".join(sorted(str(row["source"]) for row in rows))
        raise OpsError(f"{event_id!r:.200} came through {came}: say which with --source")
    (row,) = rows
    if row["is_erased"]:
        raise OpsError(f"the content of {event_id!r:.200} was erased")
    facts = orjson.loads(row["attributes"])
    if not row["is_mail"]:
        raise OpsError(f"{event_id!r:.200} is of type {facts['datacontenttype']}, and no mail")
    where = {"tenant": tenant, "source": row["source"], "id": event_id, "subject": row["subject"], "time": facts["time"]}
    where |= {"chain": row["chain_id"].hex, "seq": row["seq"]}
    due = DueDocument(row["chain_id"], row["seq"], tenant, row["source"], row["body"], row["blob"])
    return Mail(due, where, row["document"], rfc3339(row["made_at"]))


def counted(engine: Engine) -> dict[str, int]:
    """Counts of documents: made, waiting to be made, made by an earlier version of the parser, and unreadable."""
    with snapshot(engine) as conn:
        return mail_documents.count(conn, PARSER)


def make_again(engine: Engine, *, outdated: bool, show: Callable[[int], None]) -> int:
    """Marks all documents, or only those of earlier versions of the parser, to be made again by the relays; returns how many.

    A document stays until its successor replaces it. May be repeated after an interruption.
    """
    before = None if outdated else datetime.now(UTC)
    done = 0
    while True:
        with transaction(engine) as conn:
            moved = mail_documents.make_again(conn, PARSER, before, PIECE)
        done += moved
        show(done)
        if moved < PIECE:
            return done
