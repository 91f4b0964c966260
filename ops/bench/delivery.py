"""`bench delivery`: from due rows to settled rows beside one actor per delivery, and from publish to received.

Twenty endpoints in one process, the sink; each event is for one of them. Latencies count from the moment an event was due to
be published, so that a system that falls behind cannot hide it.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine

from ops.bench.load import BODY_BYTES, new_run
from ops.bench.report import percentiles, ratio, report
from ops.db import make_engine, transaction
from ops.errors import OpsError
from ops.ports import choose_ports
from ops.secrets import Vault
from ops.servers import PrivateServers, private_servers
from ops.settings import Settings
from pipeline.append import append
from pipeline.fanout import Subscriptions, subscriptions
from pipeline.store import catalog, deliveries

ENDPOINTS = 20
SUBJECTS = 1000
RATES = (50, 200, 1000)  # events per second
DISTURBED = 200  # events per second while one endpoint hangs and one fails
WARM = 0.1  # of the deliveries, and of the seconds, that are not counted: starting up is no part of a rate
DEADLINE = 300.0  # seconds for one part

Environment = Mapping[str, str]


def run(quick: bool = False) -> dict[str, Any]:
    """Runs all parts one after the other on fresh private servers; gives the report of CONTRACT §8."""
    with tempfile.TemporaryDirectory(prefix="waxseal-bench-") as folder:
        Path(folder).chmod(0o711)
        with private_servers(Path(folder)) as servers, _Stage(servers, Path(folder)) as stage:
            return report("delivery", _results(stage, quick), servers.database_url)


def _results(stage: "_Stage", quick: bool) -> dict[str, Any]:
    backlog, tasks, seconds = (5_000, 500, 3) if quick else (100_000, 5_000, 20)
    found: dict[str, Any] = {"endpoints": ENDPOINTS, "body_bytes": BODY_BYTES, "backlog": backlog}
    found |= _backlog(stage, backlog)
    found |= _peer(stage, tasks)
    found["ratio_to_dramatiq"] = ratio(found["deliveries_per_s"], found["dramatiq_deliveries_per_s"])
    with _processes(stage.env, "ingest", "relay", "deliver"):
        _paced(stage, 20, 2)
        for rate in RATES:
            found |= _named(_paced(stage, rate, seconds)["well"], f"at_{rate}_per_s")
        stage.disturb()
        found |= _named(_paced(stage, DISTURBED, 2 * seconds)["well"], "beside_a_hanging_and_a_failing")
    return found


def _backlog(stage: "_Stage", count: int) -> dict[str, Any]:
    """Drains `count` deliveries that are due with one relay and one deliver process."""
    stage.plan(count)
    with _processes(stage.env, "deliver") as [deliver]:
        time.sleep(2)
        with _processes(stage.env, "relay") as [relay]:
            began = time.monotonic()
            rate, rss = _drained(stage, count, [deliver, relay])
            seconds = time.monotonic() - began
    return {
        "deliveries_per_s": rate,
        "drain_s": round(seconds, 2),
        "deliver_rss_mib": rss[0],
        "relay_rss_mib": rss[1],
    }


def _peer(stage: "_Stage", count: int) -> dict[str, Any]:
    from ops.bench.delivery_peer import hand_out  # noqa: PLC0415 - imports what only benchmarks need

    stage.plan(count)
    assert hand_out(stage.servers.amqp_url, stage.engine) == count
    with _running([[sys.executable, "-m", "ops.bench.delivery_peer"]], stage.env) as processes:
        rate, rss = _drained(stage, count, processes)
    return {"dramatiq_deliveries_per_s": rate, "dramatiq_rss_mib": rss[0]}


def _drained(stage: "_Stage", count: int, processes: Sequence[psutil.Process]) -> tuple[float, list[float]]:
    """The rate, and the largest resident size of each process: from the first tenth received until the last is settled."""
    before, began, warm = stage.requests(), time.monotonic(), None
    rss = [0] * len(processes)
    while stage.unfinished():
        time.sleep(0.05)
        rss = [max(most, process.memory_info().rss) for most, process in zip(rss, processes, strict=True)]
        if warm is None and (done := stage.requests() - before) >= count * WARM:
            warm = (time.monotonic(), done)
        if time.monotonic() > began + DEADLINE:
            raise OpsError(f"{stage.requests() - before} of {count} deliveries after {DEADLINE:.0f} s")
    started, done = warm or (began, 0)
    return round((count - done) / (time.monotonic() - started), 1), [round(each / 2**20, 1) for each in rss]


def _paced(stage: "_Stage", rate: int, seconds: float) -> dict[str, list[float]]:
    """Publishes `rate` events a second for `seconds`; gives the latencies by kind of endpoint, without the first tenth."""
    import pika  # noqa: PLC0415 - what upstream systems use

    stage.figures()
    run, count = new_run(), int(rate * seconds)
    with pika.BlockingConnection(pika.URLParameters(stage.servers.amqp_url)) as connection:
        channel = connection.channel()
        began = time.monotonic()
        for number in range(count):
            due = began + number / rate
            if (wait := due - time.monotonic()) > 0:
                connection.sleep(wait)
            body, properties = _message(run, number, due)
            channel.basic_publish("waxseal.in", "bench.orders", body, pika.BasicProperties(**properties))
        latencies = stage.received(count)
    return {kind: each[int(len(each) * WARM) :] for kind, each in latencies.items()}


def _message(run: str, number: int, due: float) -> tuple[bytes, dict[str, Any]]:
    head = f'{{"due": {int(due * 1e9)}, "number": {number}, "note": "'
    body = head + "x" * (BODY_BYTES - len(head) - 2) + '"}'
    return body.encode(), {
        "message_id": f"{run}-{number}",
        "type": f"order.{number % ENDPOINTS}",
        "content_type": "application/json",
        "headers": {"subject": f"order-{number % SUBJECTS}"},
        "delivery_mode": 2,
    }


def _named(latencies: list[float], condition: str) -> dict[str, float]:
    return {f"{name.removesuffix('_ms')}_{condition}_ms": value for name, value in percentiles(latencies).items()}


class _Stage:
    """A configured system without its processes, and the sink."""

    def __init__(self, servers: PrivateServers, folder: Path) -> None:
        from ops.bench.private import configure  # noqa: PLC0415 - reads configuration, which the other parts need not

        self.servers = servers
        self.port = choose_ports(["sink"], {})["sink"]
        self.env: Environment = configure(servers, folder, _config(self.port))
        self.engine: Engine = make_engine(servers.database_url, pool_size=2)
        self._planned = 0
        self._sink = psutil.Popen([sys.executable, "-m", "ops.bench.sink", str(self.port)], env=self.env)

    def __enter__(self) -> "_Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.terminate()
        self._sink.wait(10)
        self.engine.dispose()

    def plan(self, count: int) -> None:
        """Appends `count` events, each due at one of the endpoints."""
        with transaction(self.engine) as conn:
            known = catalog.load(conn, Vault(Settings(keys=self.env["WAXSEAL_KEYS"]).fernet_keys()).decrypt)
        key, subscribed = known.tenants["bench"], subscriptions(known)
        for first in range(self._planned, self._planned + count, 1000):
            self._plan(range(first, min(first + 1000, self._planned + count)), key, subscribed)
        self._planned += count

    def _plan(self, numbers: range, key: bytes, subscribed: Subscriptions) -> None:
        with transaction(self.engine) as conn:
            append(conn, [_event(number, key) for number in numbers], subscribed, datetime.now(UTC))

    def unfinished(self) -> bool:
        """Whether a delivery is due or leased."""
        with transaction(self.engine) as conn:
            return deliveries.next_due(conn) is not None or deliveries.leased(conn, 1) > 0

    def requests(self) -> int:
        """How many requests the sink has had."""
        return int(self._figures()["requests"])

    def received(self, count: int) -> dict[str, list[float]]:
        """The latencies of the last `count` events, as soon as all of them that anybody answers are there."""
        found: dict[str, list[float]] = {}
        deadline = time.monotonic() + DEADLINE
        while sum(map(len, found.values())) < count:
            if time.monotonic() > deadline:
                raise OpsError(f"{sum(map(len, found.values()))} of {count} events were received")
            time.sleep(0.1)
            for kind, latencies in self._figures()["latencies"].items():
                found[kind] = found.get(kind, []) + latencies
        return found

    def disturb(self) -> None:
        """Makes one endpoint hang and one fail."""
        _apply(self.servers, self._folder, self.env, _config(self.port, "hanging", "failing"))

    def _figures(self) -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{self.port}/", timeout=10) as answer:  # noqa: S310 - our own sink
            found: dict[str, Any] = json.load(answer)
            return found


def _config(port: int, *kinds: str) -> str:
    """Twenty endpoints, the first of the given kinds, the others well."""
    lines = ["tenants: [{name: bench}]", "sources: [{tenant: bench, name: orders, kind: amqp}]", "endpoints:"]
    for number in range(ENDPOINTS):
        kind = kinds[number] if number < len(kinds) else "well"
        lines.append(f"  - tenant: bench\n    name: e{number}\n    url: http://127.0.0.1:{port}/{kind}/{number}")
        lines.append(f'    secrets: [{SECRET}]\n    filter: {{exact: {{type: "order.{number}"}}}}')
    return "\n".join(lines) + "\n"


def _event(number: int, key: bytes) -> Event:
    subject = f"order-{number % SUBJECTS}"
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


@contextmanager
def _processes(env: Environment, *names: str) -> Iterator[list[psutil.Process]]:
    """Runs processes of ours while the block runs."""
    with _running([[sys.executable, "-m", "ops.cli", name] for name in names], env) as processes:
        yield processes


@contextmanager
def _running(commands: Sequence[Sequence[str]], env: Environment) -> Iterator[list[psutil.Process]]:
    processes = [psutil.Popen(command, env=env, stdout=subprocess.DEVNULL) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
