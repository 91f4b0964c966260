"""Ingest's notices to operators besides the log: one an hour for each source and chain. A failing notice fails no batch."""

import time
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from ops.errors import one_line
from ops.runtime.db import Connection, Engine, transaction
from ops.telemetry import ingest_metrics
from pipeline.dedupe import Conflict, digest
from pipeline.store.admin import notices
from schemas.catalog import Catalog
from schemas.config.mailbox_kinds import MAIL_KINDS

log = structlog.get_logger()

INTERVAL: Final = 3600.0  # seconds; the database enforces it across all processes
MOST: Final = 10_000  # notices that are remembered


class Notices:
    """Writes operator events, and remembers them, so that the database is asked only once an hour for each."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: dict[Hashable, float] = {}

    def tell(self, about: Hashable, note: Callable[[Connection], None]) -> None:
        """Write `note` unless a notice `about` the same was written within the hour.

        A failure is logged and the notice tried again on the next occasion: the facts are in log and metrics already.
        """
        now = time.monotonic()
        if now - self._told.get(about, -INTERVAL) < INTERVAL:
            return
        if not self.write(about, note):
            return
        if len(self._told) >= MOST:
            self._told.clear()
        self._told[about] = now

    def write(self, about: Hashable, note: Callable[[Connection], None]) -> bool:
        """Write `note` in a transaction of its own; give whether that succeeded. A failure is logged."""
        try:
            with transaction(self._engine) as conn:
                note(conn)
        except Exception as error:  # noqa: BLE001 - whatever it is, the batch is recorded
            log.warning("operator_event_not_written", about=str(about), error=one_line(error))
            return False
        return True

    def conflicts(self, found: Sequence[Conflict], catalog: Catalog) -> None:
        """Report duplicates that differ from the recorded event: count and log each, and notify once an hour for each source.

        Pulled mails are left out: a provider may generate the bytes of a mail anew each time, under one id.
        """
        for conflict in found:
            tenant, name = conflict.event.tenant, conflict.event.attributes["source"]
            source = catalog.sources.get((tenant, name))
            kind = source.kind if source else "unknown"
            if kind in MAIL_KINDS:
                continue
            key = catalog.tenants[tenant]
            facts = {
                "fingerprint": conflict.event.fingerprint.hex(),
                "differs": ",".join(conflict.differs),
                "recorded": digest(key, conflict.recorded),
                "arrived": digest(key, conflict.arrived),
            }
            ingest_metrics.observe_conflict(kind)
            log.warning("duplicate_differs", tenant=tenant, source=name, **facts)
            detail = "an event came again with the id of a recorded one and other content, and was not recorded: "
            detail += "the sender uses an id twice (" + " ".join(f"{name}={value}" for name, value in facts.items()) + ")"
            note = partial(notices.note_conflict, tenant=tenant, source=name, detail=detail, now=datetime.now(UTC))
            self.tell(("duplicate_differs", tenant, name), note)
