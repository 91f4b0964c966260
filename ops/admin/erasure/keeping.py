"""Removes what is no part of the ledger and is kept no longer: by policy, hourly, or because an operator says so.

In batches, each a transaction. Nothing is remembered between two runs: each begins at the oldest row, and what a run that was
killed has left, the next one finds. Two runs at once remove everything once.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from ops.admin.bulk import Act, noted
from ops.admin.read_session import snapshot
from ops.keeping_settings import KeepingSettings, kept_for
from ops.runtime.db import sqlstate, transaction
from pipeline.store.admin import removal

BATCH: Final = 5000  # deliveries looked at in one transaction
TOLD: Final = 1000  # dead letters, operator events, acts, verifications or mails
REST: Final = 3  # times as long as a batch took
TRIES: Final = 5  # to drop a day of attempts, while others use them
BETWEEN: Final = 1.0  # seconds between two tries
_LOCKED_OUT: Final = "55P03"  # SQLSTATE lock_not_available

_Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how long everything is kept; None: for ever."""

    deliveries: timedelta | None = None
    attempts: timedelta | None = None
    dead_letters: timedelta | None = None
    operator_events: timedelta | None = None
    audit: timedelta | None = None
    verifications: timedelta | None = None
    mail_items: timedelta | None = None

    def ages(self) -> Iterator[tuple[str, timedelta]]:
        """What is removed after which age, in the order in which it can be.

        Attempts, and operator events of endpoints, are kept no longer than deliveries, by which an erasure finds them.
        """
        bounded = [each for each in (self.attempts, self.deliveries) if each is not None]
        found = {
            "dead_letters": self.dead_letters,
            "attempts": min(bounded, default=None),
            "endpoint_events": self.deliveries,
            "deliveries": self.deliveries,
            "operator_events": self.operator_events,
            "audit": self.audit,
            "verifications": self.verifications,
            "mail_items": self.mail_items,
        }
        return ((what, age) for what, age in found.items() if age is not None)


def keeping(settings: KeepingSettings) -> Keeping:
    """What the settings say."""
    return Keeping(
        kept_for(settings.keep_deliveries),
        kept_for(settings.keep_attempts),
        kept_for(settings.keep_dead_letters),
        kept_for(settings.keep_operator_events),
        kept_for(settings.keep_audit),
        kept_for(settings.keep_verifications),
        kept_for(settings.keep_mail_items),
    )


def remove_old(engine: Engine, kept: Keeping, now: datetime, stop: _Stop = lambda: False) -> Iterator[tuple[str, int]]:
    """Removes what is older; gives what and how many, batch by batch.

    Rests between batches, so that others have the most of Postgres.
    """
    for what, age in kept.ages():
        yield from ((what, removed) for removed in remove(engine, what, now - age, stop))


def remove(engine: Engine, what: str, before: datetime, stop: _Stop = lambda: False) -> Iterator[int]:
    """Removes what is older than that; gives how many, batch by batch: of attempts days, of the audit rows."""
    batches = {"deliveries": _deliveries, "attempts": _attempts}.get(what)
    found = batches(engine, before, stop) if batches else _told(engine, what, before, stop)
    began = time.monotonic()
    for removed in found:
        yield removed
        time.sleep(min(1.0, REST * (time.monotonic() - began)))
        began = time.monotonic()


def oldest(engine: Engine) -> Mapping[str, datetime | None]:
    """Since when there are rows of each kind."""
    with transaction(engine) as conn:
        return removal.oldest(conn)


def count_old(engine: Engine, what: str, before: datetime) -> int:
    """How many deliveries, operator_events, mail_items or rows of the audit would be removed."""
    with snapshot(engine) as conn:
        return removal.count_deliveries(conn, before) if what == "deliveries" else removal.count_told(conn, what, before)


def remove_rows(engine: Engine, act: Act, what: str, planned: int, before: datetime, show: Callable[[int], None]) -> int:
    """Removes them; returns how many. A command that was cut off is repeated to do the rest."""
    with noted(engine, act, planned) as tally:
        for removed in remove(engine, what, before):
            tally.done += removed
            show(tally.done)
    return tally.done


def _deliveries(engine: Engine, before: datetime, stop: _Stop) -> Iterator[int]:
    after = 0
    while not stop():
        with transaction(engine) as conn:
            page = removal.remove_deliveries(conn, before, after, BATCH)
        if not page.more or page.last is None:
            return
        after = page.last
        yield page.removed


def _attempts(engine: Engine, before: datetime, stop: _Stop) -> Iterator[int]:
    tries = 0
    while not stop() and tries < TRIES:
        try:
            with transaction(engine) as conn:
                dropped = removal.drop_attempts(conn, before)
        except Exception as error:
            if sqlstate(error) != _LOCKED_OUT:
                raise
            tries += 1
            time.sleep(BETWEEN)
            continue
        if dropped is None:
            return
        tries = 0
        yield 1


def _told(engine: Engine, what: str, before: datetime, stop: _Stop) -> Iterator[int]:
    while not stop():
        with transaction(engine) as conn:
            removed = removal.remove_told(conn, what, before, TOLD)
        if not removed:
            return
        yield removed
