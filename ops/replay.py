"""Dead letters, decided about in chunks: replayed by the route they came, or discarded.

Of a message, a replay publishes it again and marks it only when the broker has confirmed it. Cut off in between, it is
published twice, and the ledger drops the second.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection

from pipeline.store import graves
from pipeline.store.graves import Taken
from pipeline.store.letters import Group, Letters
from schemas.message import Message

MOST_BYTES: Final = 8 * 1024 * 1024  # of bodies in one chunk, unless one alone is larger

Publish = Callable[[Sequence[Message]], Sequence[bool]]
"""Says of each message whether the broker has it durably."""


class Decision:
    """Goes through the dead letters that were counted, oldest first: what is buried in the meantime is not among them."""

    def __init__(self, wanted: Letters, counted: Sequence[Group], who: str) -> None:
        self.wanted = wanted
        self.who = who
        self._after = min((group.first for group in counted), default=0) - 1
        self._last = max((group.last for group in counted), default=-1)

    def next(self, conn: Connection, size: int) -> list[Taken]:
        """The next ones, locked; empty when there are no more."""
        taken = _bounded(graves.take(conn, self.wanted, self._after, self._last, size))
        if taken:
            self._after = taken[-1].id
        return taken


class Discard:
    """The step of an act that discards."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def __call__(self, conn: Connection, size: int) -> int | None:
        """Discards the next ones, and the deliveries among them."""
        taken = self._decision.next(conn, size)
        if not taken:
            return None
        graves.give_up(conn, _deliveries(taken))
        return graves.decide(conn, [each.id for each in taken], "discarded", datetime.now(UTC), self._decision.who)


class Replay:
    """The step of an act that replays. `unreachable` and `unconfirmed` count those that it left open."""

    def __init__(self, decision: Decision, publish: Publish) -> None:
        self._decision = decision
        self._publish = publish
        self.unreachable = 0
        self.unconfirmed = 0

    def __call__(self, conn: Connection, size: int) -> int | None:
        """Replays the next ones; what cannot be now stays open."""
        taken = self._decision.next(conn, size)
        if not taken:
            return None
        able = [each for each in taken if not each.unreachable]
        done = [*self._published(conn, [each.id for each in able if _is_message(each)])]
        graves.revive(conn, _deliveries(able), datetime.now(UTC))
        done += [each.id for each in able if not _is_message(each)]
        self.unreachable += len(taken) - len(able)
        return graves.decide(conn, done, "replayed", datetime.now(UTC), self._decision.who)

    def _published(self, conn: Connection, ids: Sequence[int]) -> list[int]:
        if not ids:
            return []
        confirmed = self._publish(graves.messages(conn, ids))
        self.unconfirmed += len(ids) - sum(confirmed)
        return [id_ for id_, durable in zip(ids, confirmed, strict=True) if durable]


def _is_message(taken: Taken) -> bool:
    return taken.stage in ("admit", "append")


def _deliveries(taken: Sequence[Taken]) -> list[int]:
    return sorted({each.delivery_id for each in taken if each.delivery_id is not None})


def _bounded(taken: Sequence[Taken]) -> list[Taken]:
    """As many as their bodies allow; the others stay for the next chunk."""
    kept: list[Taken] = []
    size = 0
    for each in taken:
        size += each.size
        if kept and size > MOST_BYTES:
            break
        kept.append(each)
    return kept
