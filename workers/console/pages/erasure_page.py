"""Erasing what is recorded of a subject: counted, confirmed by a reason and that count, and left to the eraser as a job."""

from typing import Final
from uuid import UUID

from starlette.responses import Response

from ops.admin.erasure import erase_subject
from ops.admin.jobs import jobs
from ops.admin.read_session import snapshot
from ops.errors import OpsError, Unknown
from pipeline.ledger.erase import Order
from schemas.ledger.erasure import Counted, ErasableChain
from workers.console.call import Call, Refused
from workers.console.pages.layout import go
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import Choice, Question, ask, by, other, wrong
from workers.console.rendering.figures_in_words import many, number, size
from workers.console.rendering.page_addresses import asked, at

_DISCARDED: Final = ("pending", "leased", "paused", "dead")  # deliveries in these states, which nothing sends any more
_WAYS: Final = (
    Choice("content", "Erase the content, and keep the name of the subject"),
    Choice("name", "Erase the content and the name of the subject"),
)
_POINTS: Final = (
    "Erased: bodies, attributes and salts, what search has of them, documents of mails, texts of dead letters, and answers.",
    "Stays: every entry with its hash. The ledger still verifies, earlier proofs too, and a duplicate is still dropped.",
    "Not reached: backups, exports, and what endpoints have received.",
    "Kept in the ledger for ever: the reason, and who asked for it. Neither may name the subject.",
)


def question(call: Call) -> Response:
    """What would be erased, and what stays."""
    _check_allowed(call)
    return ask(call, _question(call, *_counted(call)))


def erase(call: Call) -> Response:
    """Add the job, if what was confirmed is still what is there."""
    _check_allowed(call)
    chain, counted = _counted(call)
    asked_now = _question(call, chain, counted)
    if field(call, "count") != asked_now.hidden["count"]:
        return other(call, asked_now, f"It would be {many(counted.erasable, 'entry', 'entries')} now. Nothing was erased.")
    if (again := wrong(call, asked_now)) is not None:
        return again
    reason, name = field(call, "reason", 500), field(call, "choice") == "name"
    try:
        if chain.subject is not None:
            erase_subject.check_told(chain.subject, Order(call.principal.who, reason))
    except OpsError as error:
        return ask(call, asked_now, {"field": "reason", "say": f"{error}. Nothing was erased."})
    given = {"chain": chain.chain_id.hex, "reason": reason, "subject_name": name}
    id_ = jobs.start(call.console.acts, "erase", call.tenant, given, by(call), counted.erasable)
    return go(call, at(call.tenant, "jobs", id_), "The eraser has been asked.")


def _question(call: Call, chain: ErasableChain, counted: Counted) -> Question:
    count, named = counted.erasable, chain.subject is not None
    entries = many(count, "entry", "entries")
    there = f"The content of {entries} is erased, for good: nobody can bring it back."
    gone = "The content of every event of this subject is erased already." + (" Its name can be, too." if named else "")
    unfinished = sum(counted.deliveries.get(state, 0) for state in _DISCARDED)
    return Question(
        title=f"Erase {chain.subject}" if named else "Erase a subject without a name",
        sentence=there if count else gone,
        action=at(call.tenant, "subjects", chain.chain_id.hex, "erase"),
        cancel=asked(at(call.tenant, "subjects"), subject=chain.subject) if named else at(call.tenant, "events"),
        submit=f"Erase {number(count)}" if count else "Erase the name",
        facts=[
            ("Events", number(counted.events)),
            ("Erased before", number(counted.gone)),
            ("Content", size(counted.bytes)),
            ("Deliveries that are discarded", number(unfinished)),
        ],
        points=_POINTS,
        hidden={"count": str(count)},
        choices=(_WAYS if count else _WAYS[1:]) if named else (),
        reason="required",
        typed=number(count) if count else "erase",
        danger=True,
    )


def _counted(call: Call) -> tuple[ErasableChain, Counted]:
    """The chain in the path, and what there is to erase of it. Raises `Refused` if there is none, or nothing."""
    try:
        with snapshot(call.console.reads) as conn:
            chain = erase_subject.chain(conn, call.tenant, UUID(str(call.path["chain"])))
            counted = erase_subject.counted(conn, chain, None)
    except (ValueError, Unknown):
        raise Refused(404, "not_found", "there is no such subject") from None
    if not counted.erasable and chain.subject is None:
        raise Refused(409, "erased", "everything of this subject is erased already, its name too")
    return chain, counted


def _check_allowed(call: Call) -> None:
    """Raise `OpsError` where erasing is left to the command, and `Refused` if the last login was long ago."""
    erase_subject.check_requests(call.console.settings)
    call.must_be_fresh()


_PATH: Final = "/t/{tenant}/subjects/{chain}/erase"
PAGES: Final = [Page(_PATH, "admin", "", question)]
ACTS: Final = [Act(_PATH, "admin", erase)]
