"""How often one address may try to log in, and the like: counted in Postgres, for all consoles together."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from sqlalchemy import Engine

from ops.runtime.db import transaction
from pipeline.store.access import rates as store

_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many of this in a minute, and as many at once."""

    what: str
    in_a_minute: int


LOGINS: Final = Rate("login", 10)
RETURNS: Final = Rate("return", 20)  # from an OpenID provider
BAD_TOKENS: Final = Rate("bad token", 20)
REFUSALS: Final = Rate("refusal", 10)  # that the audit records, of one principal


def exceeded(engine: Engine, rate: Rate, whose: str) -> int | None:
    """Counts one; or, if it is too much, tells after how many seconds it will not be."""
    with transaction(engine) as conn:
        wait = store.take(conn, rate.what, _network(whose), datetime.now(UTC), _MINUTE / rate.in_a_minute, _MINUTE)
    return None if wait is None else max(1, math.ceil(wait.total_seconds()))


def _network(whose: str) -> str:
    """An IPv6 address counts as its /64 network, within which a client may choose any."""
    try:
        address = ip_address(whose)
    except ValueError:
        return whose
    if isinstance(address, IPv4Address):
        return whose
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))


def sweep(engine: Engine, most: int) -> int:
    """Deletes counts that say nothing any more; returns how many."""
    with transaction(engine) as conn:
        return store.sweep(conn, datetime.now(UTC), most)
