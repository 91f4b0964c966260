"""Marks a moment in the write-ahead log, to which a restore can replay an archive."""

from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from ops.admin.backup.replaying import LATEST
from ops.admin.bulk import Act, noted
from ops.errors import OpsError
from ops.runtime.db import transaction
from pipeline.store.admin import server_facts
from schemas.access import By
from schemas.units import seconds

_LONGEST: Final = 63  # characters, as PostgreSQL has it


def mark(engine: Engine, name: str, who: By) -> str:
    """Make the restore point; gives its position in the write-ahead log. Raises `OpsError` for a name that reads as a time."""
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= _LONGEST) or name == LATEST or _is_a_time(name):
        raise OpsError(f"{name!r}: name it in at most {_LONGEST} plain characters, not as a time, a duration or {LATEST}")
    with noted(engine, Act(who, "backup point", {"name": name}), 1) as tally:
        with transaction(engine) as conn:
            at = server_facts.mark(conn, name)
        tally.done = 1
    return at


def _is_a_time(name: str) -> bool:
    for read in (datetime.fromisoformat, seconds):
        try:
            read(name)
        except ValueError:
            continue
        return True
    return False
