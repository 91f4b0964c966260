"""Acts that were refused to somebody who is known: recorded in the audit, at a bounded rate."""

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Engine

from ops.admin.access.rates import REFUSALS, exceeded
from ops.runtime.db import transaction
from pipeline.store.admin import audit
from pipeline.store.storable_text import storable
from schemas.access import Actor


def note(engine: Engine, by: Actor, act: Mapping[str, str], reason: str) -> bool:
    """Records a refused act and why; False if there were too many of the same principal lately."""
    if exceeded(engine, REFUSALS, by.principal) is not None:
        return False
    with transaction(engine) as conn:
        about = {name: storable(value) for name, value in {**act, "because": reason}.items()}
        audit.record(conn, by, "refused", about, 0, datetime.now(UTC), "done", "refused")
    return True
