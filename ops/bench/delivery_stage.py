"""The system that `bench delivery` measures: configured, without its processes, and with twenty endpoints in one sink."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from sqlalchemy import Engine

from ops.bench import processes
from ops.bench.configured_system import configure, fresh_database
from ops.bench.load import BODY_BYTES, SUBJECTS, TYPES
from ops.config.apply import apply_file
from ops.errors import OpsError
from ops.runtime.db import make_engine, transaction
from ops.runtime.vault import Vault
from ops.servers.ports import choose_ports, listens
from ops.servers.private import PrivateServers
from ops.servers.process_tree import end_all, wait_until
from ops.settings import Settings
from pipeline.append import append
from pipeline.dedupe import chain_key, fingerprint
from pipeline.fanout import Subscriptions, subscriptions
from pipeline.store.config import catalog
from pipeline.store.deliveries import claims
from schemas.event import Event

ENDPOINTS = TYPES  # each takes one type of events
DEADLINE = 300.0  # seconds for one part of the benchmark
_SINK_SECONDS = 60.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - for private servers


class Stage:
    """A configured system without its processes, and the sink, from construction to the end of the block."""

    def __init__(self, servers: PrivateServers, folder: Path) -> None:
        self.servers = servers
        self.port = choose_ports(["sink"], {})["sink"]
        self.env = configure(servers, folder, config(self.port))
        self._file = folder / "disturbed.yaml"
        self._template = servers.database_url
        self.use(self._template)
        self._sink = processes.start([sys.executable, "-m", "ops.bench.sink", str(self.port)], self.env)
        if not wait_until(lambda: listens(self.port), _SINK_SECONDS):
            end_all([self._sink], 10)
            raise OpsError(f"the sink did not listen within {_SINK_SECONDS:.0f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end_all([self._sink], 10)
        self.engine.dispose()

    def renew(self) -> None:
        """Replace the database by a fresh copy. No process of the stage may be running."""
        self.engine.dispose()
        self.use(fresh_database(self._template))

    def plan(self, count: int) -> None:
        """Append `count` events, each due at one of the endpoints."""
        key, subscribed = self.known()
        for first in range(self._planned, self._planned + count, 1000):
            self._plan(range(first, min(first + 1000, self._planned + count)), key, subscribed)
        self._planned += count

    def known(self) -> tuple[bytes, Subscriptions]:
        """The tenant's key of fingerprints, and the subscriptions of the endpoints."""
        return known(self.engine, self._settings)

    def unfinished(self) -> bool:
        """Whether a delivery is due or leased."""
        with transaction(self.engine) as conn:
            return bool(claims.survey(conn)) or claims.leased(conn, 1) > 0

    def requests(self) -> int:
        """How many requests the sink has received."""
        return int(self._figures()["requests"])

    def events(self) -> int:
        """How many different events the sink has received since `forget`; a repeated one counts once."""
        return int(self._figures()["events"])

    def forget(self) -> None:
        """Have the sink count events from now on."""
        self._figures("anew")

    def received(self, expected: int) -> list[float]:
        """The latencies at the endpoints that work, since the last call, as soon as there are `expected`."""
        found: list[float] = self._well()
        deadline = time.monotonic() + DEADLINE
        while len(found) < expected:
            if time.monotonic() > deadline:
                raise OpsError(f"{len(found)} of {expected} events were received")
            time.sleep(0.1)
            found += self._well()
        return found

    def disturb(self) -> None:
        """Make one endpoint hang and one fail."""
        self.point("hanging", "failing")

    def point(self, *kinds: str) -> None:
        """Point the database's endpoints to this sink; the first are of the given kinds, the others are `well`."""
        self._file.write_text(config(self.port, *kinds), encoding="utf-8")
        apply_file(self._file, self._settings)

    def use(self, database_url: str) -> None:
        """Go on with this database."""
        self.env["WAXSEAL_DATABASE_URL"] = database_url
        self.engine: Engine = make_engine(database_url, pool_size=2)
        self._settings = Settings(database_url=database_url, keys=self.env["WAXSEAL_KEYS"])
        self._planned = 0

    def _plan(self, numbers: range, key: bytes, subscribed: Subscriptions) -> None:
        with transaction(self.engine) as conn:
            append(
                conn, [event(number, f"order-{number % SUBJECTS}", key) for number in numbers], subscribed, datetime.now(UTC)
            )

    def _well(self) -> list[float]:
        return list(self._figures()["latencies"].get("well", []))

    def _figures(self, path: str = "") -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


def known(engine: Engine, settings: Settings) -> tuple[bytes, Subscriptions]:
    """The tenant's key of fingerprints, and the subscriptions of the endpoints."""
    with transaction(engine) as conn:
        found = catalog.load(conn, Vault(settings.fernet_keys()).decrypt)
    return found.tenants["bench"], subscriptions(found)


def config(port: int, *kinds: str) -> str:
    """The configuration of twenty endpoints: the first are of the given kinds, the others are `well`."""
    lines = ["tenants: [{name: bench}]", "sources: [{tenant: bench, name: orders, kind: amqp}]", "endpoints:"]
    for number in range(ENDPOINTS):
        kind = kinds[number] if number < len(kinds) else "well"
        url = f"http://127.0.0.1:{port}/{kind}/{number}"
        terms = f'secrets: ["{SECRET}"], filter: {{exact: {{type: "order.{number}"}}}}'
        lines.append(f'  - {{tenant: bench, name: e{number}, url: "{url}", {terms}}}')
    return "\n".join(lines) + "\n"


def event(number: int, subject: str, key: bytes) -> Event:
    """The planned event of this number, for one of the endpoints."""
    attributes = {
        "id": f"planned-{number}",
        "source": "orders",
        "specversion": "1.0",
        "type": f"order.{number % ENDPOINTS}",
        "subject": subject,
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
    }
    identity = fingerprint(key, "orders", attributes["id"])
    return Event("bench", attributes, b"x" * BODY_BYTES, identity, chain_key(key, subject))
