"""The verdict on one pull of a mailbox: when it is pulled next, whether the pull counts as a failure, and events for operators.

Pure functions of the pull's result, the time, and a random number in [0, 1) for the jitter; then `settle`, which writes.
After a fault of the mailbox the next pull waits, longer each time; after a confirmed refusal, until somebody reauthorizes the
mailbox. A fault on our side does not count against it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy import Connection

from pipeline.delivery.backoff import JITTER
from pipeline.store.mail import leases as mail_leases
from pipeline.store.mail import mailboxes
from pipeline.store.mail.leases import PullLease
from pipeline.store.mail.mailboxes import EventKind

BACKOFF: Final = (30.0, 900.0)  # seconds after the first failure and the longest; doubled each time
DOUBTS: Final = 3  # consecutive failures from which a refusal without a reason is treated as final
TELL: Final = 8  # consecutive failures, about an hour, after which an event is recorded
AGAIN: Final = 5.0  # seconds until the next pull after a fault on our side
SLOW: Final = 20.0  # seconds for a batch; a mailbox that takes longer is pulled by the slow queue's threads
LONGEST_WAIT: Final = 3600.0  # seconds, even if a server asks for more

_LEAST_WAIT: Final = 1.0  # seconds, even if a server asks for less
_DOUBLINGS: Final = 32  # more would only overflow

Outcome = Literal["done", "more", "busy", "away", "throttled", "refused", "fenced", "internal"]


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a batch. `more`: there is more to read now. `wait`: seconds until there is, in place of the poll interval.

    `trouble`: why no folder could be read. If only some folders are unreadable, they are recorded and `trouble` is None.
    """

    mails: int
    more: bool
    trouble: str | None = None
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a batch failed. `ours`: the broker or Postgres is unavailable; `internal`: an unexpected exception.

    `seconds`: the wait that the server asks for. `certain`: the refusal gives its reason.
    """

    fault: Literal["away", "throttled", "refused", "ours", "internal"]
    detail: str
    seconds: float | None = None
    certain: bool = True


@dataclass(frozen=True, slots=True)
class OperatorEvent:
    """An event to be recorded for operators."""

    kind: EventKind
    detail: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The mailbox was read. `enqueued`: the puller enqueues the next batch itself. `slow`: the slow queue pulls it next."""

    outcome: Literal["done", "more"]
    began: datetime
    next_pull: datetime
    enqueued: bool
    slow: bool
    event: OperatorEvent | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The mailbox could not be read; it is tried again at `next_pull`."""

    outcome: Literal["away", "throttled", "internal"]
    error: str
    next_pull: datetime


@dataclass(frozen=True, slots=True)
class SetAside:
    """The server refuses the credentials: the mailbox is not pulled until somebody reauthorizes it."""

    error: str
    outcome: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The pull failed on our side and says nothing about the mailbox."""

    next_pull: datetime
    outcome: Literal["internal"] = "internal"


Verdict = Succeeded | Failed | SetAside | HandedBack


def after_batch(failures: int, done: Done, poll: float, began: datetime, now: datetime, random: float) -> Verdict:
    """The verdict on a batch that began at `began`, after `failures` in a row; `poll` is the mailbox's interval in seconds."""
    if done.trouble is not None and not done.more:
        return Failed("away", done.trouble, _later(now, poll, random))
    slow = (now - began).total_seconds() > SLOW
    next_pull = now if done.more else _later(now, poll if done.wait is None else _bounded(done.wait), random)
    event = OperatorEvent("mailbox_active", "it can be read again") if failures >= TELL else None
    going_on = done.more and not slow
    return Succeeded("more" if going_on else "done", began, next_pull, going_on, slow, event)


def after_failure(failures: int, failure: Failure, now: datetime, random: float) -> Verdict:
    """The verdict on a batch that failed, after `failures` in a row before it."""
    if failure.fault == "ours":
        return HandedBack(_later(now, AGAIN, random))
    if failure.fault != "refused":
        return Failed(failure.fault, failure.detail, _later(now, _wait(failures, failure.seconds), random))
    if failure.certain or failures + 1 >= DOUBTS:
        return SetAside(failure.detail)
    return Failed("away", failure.detail, _later(now, _wait(failures, None), random))


def unreadable(detail: str, now: datetime) -> Failed:
    """The verdict on a mailbox whose stored settings cannot be decrypted here; they have to be stored again."""
    return Failed("internal", detail, now + timedelta(seconds=BACKOFF[1]))


def news_of(failures: int, since: datetime, error: str) -> OperatorEvent | None:
    """The event after so many failures in a row: one for each series of failures."""
    if failures != TELL:
        return None
    return OperatorEvent("mailbox_failing", f"nothing but failures since {since:%Y-%m-%d %H:%M:%SZ}: {error}")


def settle(conn: Connection, lease: PullLease, verdict: Verdict, now: datetime) -> OperatorEvent | None:
    """Gives the lease back with the verdict, and records and returns its event.

    Runs in the caller's transaction. If the lease was lost meanwhile, a failure is not written.
    """
    event = _written(conn, lease, verdict, now)
    if event is not None:
        mailboxes.note(conn, lease.mailbox_id, event.kind, event.detail, now)
    return event


def _written(conn: Connection, lease: PullLease, verdict: Verdict, now: datetime) -> OperatorEvent | None:
    if isinstance(verdict, HandedBack):
        mail_leases.hand_back(conn, lease, verdict.next_pull)
        return None
    if isinstance(verdict, Succeeded):
        ended = {"enqueued": verdict.enqueued, "slow": verdict.slow}
        mail_leases.succeeded(conn, lease, verdict.began, now, verdict.next_pull, **ended)
        return verdict.event
    next_pull = now if isinstance(verdict, SetAside) else verdict.next_pull
    failing = mail_leases.failed(conn, lease, verdict.error, now, next_pull)
    if failing is None:
        return None
    if isinstance(verdict, Failed):
        return news_of(*failing, verdict.error)
    moved = mailboxes.move_from(conn, lease.mailbox_id, "active", "needs_reauthorization", now, verdict.error)
    # Not moved if somebody has paused it.
    return OperatorEvent("mailbox_needs_reauthorization", verdict.error) if moved else None


def _wait(failures: int, asked: float | None) -> float:
    """Seconds without jitter: as the server asks, within bounds, or else doubled with each failure."""
    first, longest = BACKOFF
    return min(first * 2.0 ** min(failures, _DOUBLINGS), longest) if asked is None else _bounded(asked)


def _bounded(asked: float) -> float:
    """The seconds that a server asks for, between the shortest and the longest wait; NaN counts as the shortest."""
    return min(max(_LEAST_WAIT, asked), LONGEST_WAIT)


def _later(now: datetime, seconds: float, random: float) -> datetime:
    return now + timedelta(seconds=seconds * (1 + JITTER * random))
