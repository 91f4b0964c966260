"""`bench delivery`: from due rows to settled rows, compared with one actor per delivery; and from publishing to receiving.

Twenty endpoints are in one process, the sink; each event is for one of them. Latencies count from the moment an event was due
to be published, so that a system that falls behind cannot hide it. Our relay and deliver processes run against two processes
of the peer, with the same number of deliveries on fresh tables; the order alternates from round to round.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from ops.bench.configured_system import fresh_servers
from ops.bench.delivery_stage import DEADLINE, ENDPOINTS, Stage
from ops.bench.load import BODY_BYTES, SUBJECTS, new_run
from ops.bench.measuring.cpu import Cpu, CpuMeter, cpu_per_event, mean
from ops.bench.measuring.results import percentiles, ratio, report
from ops.bench.processes import running
from ops.errors import OpsError
from ops.settings import Settings

RATES = (50, 200, 500, 1000)  # events per second
DISTURBED = 500  # the one of these rates at which one endpoint then hangs and one fails
WARM = 0.1  # share of the deliveries, and of the latencies, that is not counted, as it includes starting up


@dataclass(frozen=True)
class Sizes:
    """How much is measured: deliveries of the backlog and of a race, rounds of the race, seconds at each rate."""

    backlog: int
    raced: int
    rounds: int
    seconds: float


WHOLE = Sizes(100_000, 20_000, 2, 20)
QUICK = Sizes(2_000, 500, 1, 2)


def run(*, quick: bool = False) -> dict[str, Any]:
    """Run all parts one after the other on fresh private servers; gives the report of CONTRACT §8."""
    with fresh_servers() as (servers, folder), Stage(servers, folder) as stage:
        return report("delivery", _results(stage, QUICK if quick else WHOLE), servers.database_url)


def _results(stage: Stage, sizes: Sizes) -> dict[str, Any]:
    found: dict[str, Any] = {"endpoints": ENDPOINTS, "body_bytes": BODY_BYTES, "backlog": sizes.backlog, "raced": sizes.raced}
    found |= _raced(stage, sizes.raced, sizes.rounds)
    found |= _backlog(stage, sizes.backlog)
    with processes(stage, "ingest", "relay", "deliver"):
        _paced(stage, 20, 2)
        for rate in RATES:
            found |= _named(_paced(stage, rate, sizes.seconds), f"at_{rate}_per_s")
        stage.disturb()
        found |= _named(_paced(stage, DISTURBED, 2 * sizes.seconds, ill=2), "beside_a_hanging_and_a_failing")
    found["ratio_to_undisturbed"] = ratio(found["p95_beside_a_hanging_and_a_failing_ms"], found[f"p95_at_{DISTURBED}_per_s_ms"])
    return found


def _raced(stage: Stage, count: int, rounds: int) -> dict[str, Any]:
    """The means of the rounds in which ours and the peer make `count` deliveries each, in alternating order."""
    races: dict[str, list[dict[str, float]]] = {"ours": [], "dramatiq": []}
    contestants = [("ours", _ours), ("dramatiq", _peer)]
    for number in range(rounds):
        for name, race in contestants if number % 2 == 0 else reversed(contestants):
            stage.renew()
            races[name].append(race(stage, count))
    ours, peer = (mean(found) for found in races.values())
    return {
        **{f"raced_{name}": value for name, value in ours.items()},
        **{f"dramatiq_{name}": value for name, value in peer.items()},
        "ratio_to_dramatiq": ratio(ours["deliveries_per_s"], peer["deliveries_per_s"]),
    }


def _backlog(stage: Stage, count: int) -> dict[str, float]:
    """Drain `count` deliveries that are due on fresh tables, with one relay and one deliver process."""
    stage.renew()
    return mean([_ours(stage, count)])


def _ours(stage: Stage, count: int) -> dict[str, float]:
    stage.plan(count)
    return delivered(stage, count)


def delivered(stage: Stage, count: int) -> dict[str, float]:
    """One relay and one deliver process make the `count` deliveries that are due."""
    with processes(stage, "deliver") as [deliver]:
        time.sleep(2)  # for the deliver process to start, so that the time has only the relay's start in it
        began = time.monotonic()
        with processes(stage, "relay") as [relay]:
            found = _drained(stage, count, {"deliver": deliver, "relay": relay})
            return found | {"drain_s": time.monotonic() - began}


def _peer(stage: Stage, count: int) -> dict[str, float]:
    from ops.bench.delivery_peer import hand_out  # noqa: PLC0415 - imports what only benchmarks need

    stage.plan(count)
    hand_out(stage.servers.amqp_url, stage.engine)
    env = stage.env | {"dramatiq_queue_prefetch": str(Settings().max_leased)}  # as many as ours may have claimed
    with running([[sys.executable, "-m", "ops.bench.delivery_peer"]] * 2, env) as [one, other]:
        return _drained(stage, count, {"one": one, "other": other})


def _drained(stage: Stage, count: int, processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """From the first tenth received until the last is settled: the rate, the CPU per delivery, the largest resident sizes."""
    before, began = stage.requests(), time.monotonic()
    meter = CpuMeter(stage.servers, list(processes.values()))
    launched = (began, 0, meter.read())
    warm: tuple[float, int, Cpu] | None = None
    rss = dict.fromkeys(processes, 0)
    while stage.unfinished():
        time.sleep(0.05)
        rss = {name: max(rss[name], process.memory_info().rss) for name, process in processes.items()}
        if warm is None and (done := stage.requests() - before) >= count * WARM:
            warm = (time.monotonic(), done, meter.read())
        if time.monotonic() > began + DEADLINE:
            raise OpsError(f"{stage.requests() - before} of {count} deliveries after {DEADLINE:.0f} s")
    if warm is None or warm[1] == count:  # so few that all were delivered between two polls
        warm = launched
    started, done, used = warm
    return {
        "deliveries_per_s": (count - done) / (time.monotonic() - started),
        **cpu_per_event(list(processes), used, meter.read(), count - done),
        **{f"{name}_rss_mib": each / 2**20 for name, each in rss.items()},
    }


def _paced(stage: Stage, rate: int, seconds: float, ill: int = 0) -> list[float]:
    """Publish `rate` events a second for `seconds`; gives the latencies, in seconds, without the first tenth.

    The first `ill` endpoints are not waited for.
    """
    import pika  # noqa: PLC0415 - what upstream systems use

    from workers.amqp.topology import declare  # noqa: PLC0415 - imported lazily: `ops` may not import a worker otherwise

    stage.received(0)
    run, count = new_run(), int(rate * seconds)
    parameters = pika.URLParameters(stage.servers.amqp_url)
    parameters.heartbeat = 0  # nothing is read from the connection while it waits
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        declare(channel)  # the processes may not have come to it yet
        began = time.monotonic()
        for number in range(count):
            due = began + number / rate
            if (wait := due - time.monotonic()) > 0:
                connection.sleep(wait)
            body, properties = _message(run, number, due)
            channel.basic_publish("waxseal.in", "bench.orders", body, pika.BasicProperties(**properties))
        # A quorum queue on a busy machine drops what it has not taken when a channel without confirms closes.
        latencies = stage.received(sum(number % ENDPOINTS >= ill for number in range(count)))
    return latencies[int(len(latencies) * WARM) :]


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


@contextmanager
def processes(stage: Stage, *names: str) -> Iterator[Sequence[psutil.Process]]:
    """Run processes of ours while the block runs."""
    with running([[sys.executable, "-m", "ops.cli", name] for name in names], stage.env) as processes:
        yield processes
