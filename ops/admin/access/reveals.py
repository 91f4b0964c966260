"""Content that somebody sees is in the audit before it is shown: who, of what, why and from where."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from ops.runtime.db import transaction
from pipeline.store.admin import audit
from schemas.access import By


def note_reveal(engine: Engine, by: By, what: str, about: Mapping[str, Any]) -> None:
    """Record that `what` of something is about to be shown. It is shown only once this has returned."""
    with transaction(engine) as conn:
        audit.record(conn, by, f"reveal {what}", about, 1, datetime.now(UTC), "done")
