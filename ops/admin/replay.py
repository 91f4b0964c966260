"""Replays dead letters by the route they came, or discards them; in chunks.

A replayed message is published again, and marked only when the broker has confirmed it. If the process dies in between, the
next run publishes it a second time, and the ledger drops the duplicate.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine

from ops.admin.read_session import check_chosen, snapshot
from pipeline.store.dead_letters import dead_letter_list, dead_letters, decisions
from pipeline.store.dead_letters.dead_letter_list import Group
from pipeline.store.dead_letters.dead_letters import Taken
from schemas.access import By
from schemas.dead_letter import DeadLetterFilter, Stage
from schemas.message import Message

MOST_BYTES: Final = 8 * 1024 * 1024  # of bodies in one chunk, unless a single one is larger

UNREACHABLE: Final = "their endpoint was removed: discard them, or configure it again"
UNREADABLE: Final = "their stored content is not a message: discard them"
UNCONFIRMED: Final = "the broker did not confirm them: run the same command again"

Publish = Callable[[Sequence[Message]], Sequence[bool]]
"""Publishes messages; returns for each whether the broker has confirmed it as durable."""


class Decision:
    """Goes through the dead letters that were counted, oldest first. Dead letters that are new since then are not touched.

    `left` counts those that stay open, by reason. It is at `after`, an id, and goes on to `last`.
    """

    def __init__(self, wanted: DeadLetterFilter, counted: Sequence[Group], who: By) -> None:
        self.wanted = wanted
        self.counted = counted
        self.who = who
        self.left: Counter[str] = Counter()
        self.after = min((group.first for group in counted), default=0) - 1
        self.last = max((group.last for group in counted), default=-1)

    def next(self, conn: Connection, size: int) -> list[Taken]:
        """The next dead letters, locked; empty when there are no more."""
        taken = _bounded(dead_letters.take(conn, self.wanted, self.after, self.last, size))
        if taken:
            self.after = taken[-1].id
        return taken


def decision_on(engine: Engine, wanted: DeadLetterFilter, who: By) -> Decision:
    """Counts the dead letters that match. Raises `OpsError` for a tenant or endpoint that neither exists nor has any."""
    with snapshot(engine) as conn:
        check_chosen(conn, wanted)
        return Decision(wanted, dead_letter_list.count(conn, wanted), who)


def discard(decision: Decision, conn: Connection, size: int) -> int | None:
    """Discards the next dead letters, and their deliveries; returns how many, or None when there are no more."""
    taken = decision.next(conn, size)
    if not taken:
        return None
    now = datetime.now(UTC)
    decisions.give_up(conn, _deliveries(taken, "deliver"), _deliveries(taken, "actor"), now)
    return dead_letters.decide(conn, [each.id for each in taken], "discarded", now, str(decision.who))


def replay(decision: Decision, publish: Publish, conn: Connection, size: int) -> int | None:
    """Replays the next dead letters; returns how many, or None at the end. Those that cannot be replayed stay open."""
    taken = decision.next(conn, size)
    if not taken:
        return None
    able = [each for each in taken if not each.unreachable]
    decision.left[UNREACHABLE] += len(taken) - len(able)
    published = _published(decision, conn, [each.id for each in able if _is_message(each)], publish)
    now = datetime.now(UTC)
    decisions.revive(conn, _deliveries(able, "deliver", "actor"), now)
    done = [*published, *(each.id for each in able if not _is_message(each))]
    return dead_letters.decide(conn, done, "replayed", now, str(decision.who))


def _published(decision: Decision, conn: Connection, ids: Sequence[int], publish: Publish) -> list[int]:
    messages = dead_letters.messages(conn, ids) if ids else {}
    confirmed = publish(list(messages.values())) if messages else []
    published = [id_ for id_, durable in zip(messages, confirmed, strict=True) if durable]
    decision.left[UNREADABLE] += len(ids) - len(messages)
    decision.left[UNCONFIRMED] += len(messages) - len(published)
    return published


def _is_message(taken: Taken) -> bool:
    return taken.stage in ("admit", "append")


def _deliveries(taken: Sequence[Taken], *stages: Stage) -> list[int]:
    return sorted({each.delivery_id for each in taken if each.delivery_id is not None and each.stage in stages})


def _bounded(taken: Sequence[Taken]) -> list[Taken]:
    """As many as `MOST_BYTES` allows, and one at least; the others stay for the next chunk."""
    kept: list[Taken] = []
    size = 0
    for each in taken:
        size += each.size
        if kept and size > MOST_BYTES:
            break
        kept.append(each)
    return kept
