"""Checks of a database URL with several hosts: exactly one of them takes writes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from ops.admin.doctor.finding import Finding, note, ok, wrong
from ops.errors import one_line
from ops.runtime.db import make_engine
from ops.runtime.driver import db_timelines

_SECONDS: Final = 3.0
_STANDBY: Final = "standby"


def check_hosts(database_url: str) -> Iterator[Finding]:
    """What each host is; nothing about a URL with a single one."""
    url = make_url(database_url)
    named = url.query.get("host", ())
    hosts = named.split(",") if isinstance(named, str) else list(named)
    if len(hosts) < 2:
        return
    if url.query.get("target_session_attrs") not in ("read-write", "primary"):
        mend = "add target_session_attrs=read-write to WAXSEAL_DATABASE_URL"
        yield wrong("postgres hosts", "the first that answers is used, and may be a standby", mend)
    with ThreadPoolExecutor(len(hosts)) as pool:
        found = dict(zip(hosts, pool.map(lambda host: _state(url, host), hosts), strict=True))
    said = "; ".join(f"{host}: {state}" for host, state in found.items())
    primaries = [state for state in found.values() if state.startswith("primary")]
    if len(primaries) > 1:
        mend = "stop the one of the lower timeline, and make it a standby: pg_rewind, standby.signal"
        yield wrong("postgres hosts", f"several take writes: {said}", mend)
    elif len(primaries) + list(found.values()).count(_STANDBY) < len(hosts):
        yield note("postgres hosts", said, "start it as a standby, or take it out of WAXSEAL_DATABASE_URL")
    elif primaries:
        yield ok("postgres hosts", said)


def _state(url: URL, host: str) -> str:
    name, _, port = host.rpartition(":") if ":" in host else (host, "", "5432")
    others = {key: value for key, value in url.query.items() if key not in ("host", "port", "target_session_attrs")}
    alone = url.set(host=name, port=int(port), query=others).render_as_string(hide_password=False)
    engine = make_engine(alone, pool_size=1, statement_timeout=_SECONDS)
    try:
        with engine.connect() as conn:
            driver = conn.connection.driver_connection
            seen = None if driver is None else db_timelines.timeline(driver)
            return _STANDBY if seen is None else f"primary, timeline {seen.number}"
    except (psycopg.Error, DBAPIError) as error:
        return one_line(error)
    finally:
        engine.dispose()
