"""`bench distance`: what it costs the processes to be far from their servers.

All that ingest, relay and deliver say to Postgres and RabbitMQ, and hear from them, comes later by the same time each way, as
on a long line without loss. Senders and endpoints are near. The rates are of a backlog, and of different events: one that is
delivered again counts as a repeat. A latency is that of one event at a time, from publishing it until its endpoint has it.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import pika
import psutil

from ops.bench import peers
from ops.bench.configured_system import fresh_servers
from ops.bench.delivery_stage import ENDPOINTS, Stage
from ops.bench.load import events
from ops.bench.measuring.results import percentiles, ratio, report, tell
from ops.bench.processes import running
from ops.errors import OpsError
from ops.runtime.db import transaction
from ops.servers.ports import choose_ports, listens
from ops.servers.process_tree import wait_until
from pipeline.store.ledger import entries as ledger_entries

DELAYS: Final = (0.0, 2.0, 50.0)  # milliseconds each way
DEADLINE: Final = 300.0  # seconds for one part
_START: Final = 30.0
_POLL: Final = 0.02
_WARM: Final = 0.1  # share of a backlog that is not timed, as it includes starting up
_REST: Final = 0.2  # seconds between two single events


@dataclass(frozen=True)
class Sizes:
    """Events in each backlog, and single events."""

    backlog: int
    single: int


WHOLE: Final = Sizes(30_000, 20)
QUICK: Final = Sizes(300, 3)


def run(*, quick: bool = False, ms: Sequence[float] = ()) -> dict[str, Any]:
    """Measure at each of the delays, in milliseconds each way; gives the report of CONTRACT §8."""
    delays, sizes = sorted(set(ms)) or DELAYS, QUICK if quick else WHOLE
    with fresh_servers() as (servers, folder), Stage(servers, folder) as stage:
        found = {each: _measured(stage, each, sizes) for each in delays}
        return report("distance", _compared(found, sizes), servers.database_url)


def _compared(found: Mapping[float, Mapping[str, float]], sizes: Sizes) -> dict[str, Any]:
    results: dict[str, Any] = {"endpoints": ENDPOINTS, "backlog": sizes.backlog}
    least = min(found)
    for delay, figures in found.items():
        results |= {f"{name}_at_{delay:g}_ms": value for name, value in figures.items()}
        for name in ("recorded_per_s", "delivered_per_s"):
            results[f"ratio_{name}_at_{delay:g}_ms"] = ratio(figures[name], found[least][name])
    return results


def _measured(stage: Stage, delay: float, sizes: Sizes) -> dict[str, float]:
    stage.renew()
    with _far(stage, delay) as env:
        peers.fill_inbox(stage.servers.amqp_url, sizes.backlog)
        with running([_ours("ingest")], env):
            recorded = _rate(partial(_recorded, stage), sizes.backlog)
        stage.forget()
        sent = stage.requests()
        with running([_ours("relay"), _ours("deliver")], env):
            delivered = _rate(stage.events, sizes.backlog)
            if not wait_until(lambda: not stage.unfinished(), DEADLINE):
                raise OpsError(f"deliveries of {sizes.backlog} events are not settled within {DEADLINE:.0f} s")
            repeats = stage.requests() - sent - stage.events()
            with running([_ours("ingest")], env):
                single = list(_single(stage, sizes.single))
    tell(f"{delay:g} ms each way: {recorded:.0f} recorded/s, {delivered:.0f} delivered/s")
    latencies = {f"single_{name}": value for name, value in percentiles(single).items()}
    return {"recorded_per_s": round(recorded), "delivered_per_s": round(delivered), "repeats": repeats, **latencies}


def _ours(process: str) -> list[str]:
    return [sys.executable, "-m", "ops.cli", process]


def _recorded(stage: Stage) -> int:
    with transaction(stage.engine) as conn:
        return ledger_entries.count_by_heads(conn)


def _rate(count: Callable[[], int], expected: int) -> float:
    """The rate between the first that are counted, a tenth at least, and the last."""
    deadline, began = time.monotonic() + DEADLINE, None
    while (now := count()) < expected:
        if began is None and now >= expected * _WARM:
            began = (time.monotonic(), now)
        if time.monotonic() > deadline:
            raise OpsError(f"{now} of {expected} events within {DEADLINE:.0f} s")
        time.sleep(_POLL)
    at, had = began or (deadline - DEADLINE, 0)
    return float((expected - had) / (time.monotonic() - at))


def _single(stage: Stage, count: int) -> Iterator[float]:
    """Seconds from publishing an event until its endpoint has it; the first one waits for the processes, and is not counted."""
    with pika.BlockingConnection(pika.URLParameters(stage.servers.amqp_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for number, (body, headers) in enumerate(events(count + 1)):
            had, began = stage.events(), time.monotonic()
            properties = pika.BasicProperties(headers={**headers, "cloudEvents:type": "order.0"}, delivery_mode=2)
            channel.basic_publish("waxseal.in", "bench.orders", body, properties, mandatory=True)
            while stage.events() == had:
                if time.monotonic() - began > DEADLINE:
                    raise OpsError(f"a single event did not arrive within {DEADLINE:.0f} s")
                time.sleep(_POLL / 4)
            if number:
                yield time.monotonic() - began
            connection.sleep(_REST)


@contextmanager
def _far(stage: Stage, delay: float) -> Iterator[Mapping[str, str]]:
    """The environment of processes that reach the stage's servers over lines of this delay, in milliseconds each way."""
    urls = {name: stage.env[name] for name in ("WAXSEAL_DATABASE_URL", "WAXSEAL_AMQP_URL")}
    places = {name: urlsplit(url).port or 0 for name, url in urls.items()}
    ports = choose_ports(list(urls), {})
    pairs = [f"{ports[name]}:{port}" for name, port in places.items()]
    forwarder = [sys.executable, "-m", "ops.bench.distance.forwarder", f"{delay / 1000:.6f}", *pairs]
    with running([forwarder], stage.env) as (process,):
        if not wait_until(lambda: all(map(listens, ports.values())) or not _runs(process), _START) or not _runs(process):
            raise OpsError("the lines to the servers could not be set up")
        moved = {name: url.replace(f":{places[name]}", f":{ports[name]}") for name, url in urls.items()}
        yield {**stage.env, **moved}


def _runs(process: psutil.Popen) -> bool:
    return process.poll() is None
