"""Finds out whether damaged storage concerns one message or all of them."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import NoReturn

from ops.runtime.db import Connection, Engine, damaged, transaction
from pipeline.append import append
from pipeline.fanout import Subscriptions
from pipeline.store.config import catalog
from schemas.event import Event


class _Undo(Exception):
    """Rolls the probe back."""


def can_append(engine: Engine, events: Sequence[Event], subscribed: Subscriptions, decrypt: Callable[[bytes], bytes]) -> bool:
    """Whether Postgres can read the catalog and record the same events under other identities; nothing is kept.

    Raises every error that is not about damaged storage.
    """
    probes = [replace(event, fingerprint=os.urandom(16), chain_key=os.urandom(16), former=None) for event in events]
    try:
        with suppress(_Undo), transaction(engine) as conn:
            catalog.load(conn, decrypt)
            _append_and_undo(conn, probes, subscribed)
    except Exception as error:
        if damaged(error):
            return False
        raise
    return True


def _append_and_undo(conn: Connection, events: Sequence[Event], subscribed: Subscriptions) -> NoReturn:
    append(conn, events, subscribed, datetime.now(UTC))
    raise _Undo
