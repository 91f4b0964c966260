"""The first token of a new system: nothing is open without one, and only who may run commands can make one."""

from datetime import timedelta
from pathlib import Path
from typing import Final

from ops.admin.access import tokens
from ops.runtime.db import make_engine, transaction
from ops.servers.accounts import login_name, own_file
from pipeline.store.access import tokens as store

LASTS: Final = timedelta(days=90)


def first_token(database_url: str, file: Path | None) -> str | None:
    """Makes a token that may do everything; None if the database ever had one, so that this happens once.

    With a `file` it is written there too, for its owner alone, before it becomes valid.
    """
    engine = make_engine(database_url, pool_size=1)
    try:
        with transaction(engine) as conn:
            if store.any_yet(conn):
                return None
            who = login_name()
            _, text = tokens.make(conn, who=who, role="admin", tenant=None, lasts=LASTS, by=who)
            if file is not None:
                own_file(file, f"{text}\n", None)
            return text
    finally:
        engine.dispose()
