"""What `bench console` asks a console for: every page and operation that reads, with names and ids that the ledger has."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from time import perf_counter
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from sqlalchemy import Connection, text

PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
TENANTS: Final = ("big", "big", "mid", "small", "void")  # the largest is asked for most

# Of each tenant, an event that was delivered, one delivery, one dead letter and one endpoint.
EXAMPLES = text("""
    SELECT tenant.name AS tenant, event.chain_id, event.seq, event.event_id, event.type, chain.subject, delivery.id AS delivery,
      (SELECT id FROM dead_letter WHERE tenant = tenant.name AND state = 'open' LIMIT 1) AS dead_letter,
      (SELECT endpoint.name FROM endpoint WHERE tenant_id = tenant.id ORDER BY endpoint.id LIMIT 1) AS endpoint
    FROM tenant JOIN log ON log.tenant = tenant.name CROSS JOIN LATERAL (
      SELECT * FROM event_search WHERE log_id = log.id AND position >= CAST(log.size * :share AS bigint)
      ORDER BY position LIMIT 1) AS event
    JOIN chain ON chain.chain_id = event.chain_id
    JOIN LATERAL (
      SELECT id FROM delivery WHERE delivery.chain_id = event.chain_id AND delivery.seq = event.seq LIMIT 1
    ) AS delivery ON true""")

#: What is searched for on the page of events, by what the figures call it; some of it never meets.
SEARCHES: Final[Mapping[str, str]] = {
    "newest": "",
    "by type": "type:{type}",
    "by a type far back": "type:audit.rare",
    "by prefix of types": "type:order.*",
    "by type and source": "type:{type} source:shop",
    "by what never meets": "type:audit.rare source:nowhere",
    "by prefix of subjects": "subject:{subject}*",
    "by prefix of all subjects": "subject:order-*",
    "by a scan that finds nothing": "subject:order-* type:zzz*",
    "by id": "id:{event_id}",
    "by prefix of ids": "id:evt_0*",
    "by time": "until:2d",
}
STATES: Final = ("pending", "leased", "delivered", "dead", "paused", "discarded")


def examples(conn: Connection, seed: int) -> Sequence[Mapping[str, str]]:
    """Values for the parameters in paths, of each tenant that has events."""
    share = random.Random(seed).random() * 0.999  # noqa: S311 - which event, nothing more
    return [
        {**{name: str(value) for name, value in row.items() if value is not None}, "chain": row["chain_id"].hex}
        for row in conn.execute(EXAMPLES, {"share": share}).mappings()
    ]


def requests(paths: Sequence[str], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each path that can be filled in with what is known, under its name; the page of events once for each search."""
    for path in paths:
        kind = "dead_letter" if "/dead" in path else "delivery" if "/deliveries" in path else ""
        values = {**known, "id": known.get(kind, ""), "name": known.get("endpoint", "") if "/endpoints" in path else ""}
        if not all(values.get(name) for name in PARAMETER.findall(path)):
            continue
        filled = PARAMETER.sub(lambda found, values=values: quote(values[found[1]], safe=""), path)  # type: ignore[misc]
        if path == "/t/{tenant}/events":
            for name, words in SEARCHES.items():
                yield f"events {name}", f"{filled}?{urlencode({'q': words.format(**known)})}"
        elif path == "/t/{tenant}/deliveries":
            yield from ((f"deliveries {state}", f"{filled}?{urlencode({'q': f'state:{state}'})}") for state in STATES)
            yield "deliveries of all states", filled
        elif path == "/t/{tenant}/subjects" or path.endswith("/timeline"):
            yield path, f"{filled}?{urlencode({'subject': known['subject']})}"
        elif path.endswith("/find"):
            yield path, f"{filled}?{urlencode({'q': known['event_id']})}"
        else:
            yield path, filled


class Asker:
    """Asks for one after the other on a connection that is kept."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._connection = HTTPConnection(parts.hostname, parts.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "text/html, application/json"}

    def seconds(self, address: str) -> tuple[float, int]:
        """How long the whole answer took, and its status."""
        began = perf_counter()
        self._connection.request("GET", address, headers=self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return perf_counter() - began, answer.status

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
