"""`bench ingress`: signed webhooks that are answered when RabbitMQ has them durably, compared with the two halves of that work.

One half is a bare uvicorn, which reads the same requests and answers without doing anything; the other publishes the same
messages as the ingress, without HTTP. Ingress and uvicorn alternate, because the machine's speed changes. RabbitMQ and the
client share the cores with them.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any

import psutil

from ops.bench.configured_system import configure, fresh_servers
from ops.bench.http_load import webhook
from ops.bench.load import body, new_run
from ops.bench.measuring.cpu import CpuMeter, cpu_per_event, mean
from ops.bench.measuring.results import ratio, report
from ops.bench.processes import figures_of, running
from ops.errors import OpsError
from ops.runtime import log as logs
from ops.servers.ports import LOOPBACK, choose_ports
from ops.servers.private import PrivateServers
from ops.servers.process_tree import wait_until
from pipeline.receive import receive
from schemas.source import Source

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - a published test vector, for private servers
CONFIG = f"""
tenants: [{{name: bench}}]
sources: [{{tenant: bench, name: hooks, kind: standard-webhooks, secrets: ["{SECRET}"]}}]
"""
CONNECTIONS = 64
COUNT, QUICK_COUNT = 30_000, 3_000  # requests of a flood
RATES = (200, 1000)  # a second
SECONDS = 10  # at each rate
Served = tuple[psutil.Process, str]  # a server, and where it takes webhooks
DEADLINE = 180.0  # seconds for one run of the client


def run(*, quick: bool = False) -> dict[str, Any]:
    """Run the ingress on fresh private servers; gives the report of CONTRACT §8."""
    logs.configure("auto", "warning", "bench")
    count, seconds = (QUICK_COUNT, 1) if quick else (COUNT, SECONDS)
    with fresh_servers() as (servers, folder):
        env = configure(servers, folder, CONFIG)
        results = _measured(servers, env, count, seconds)
        results |= _raced(servers, env, count)
        floor = _floor(servers, count)
        results |= {"floor_per_s": round(floor, 1), "ratio_to_floor": ratio(results["raced_acks_per_s"], floor)}
        results = {"messages": count, "connections": CONNECTIONS} | results
        return report("ingress", results, servers.database_url, _broker_version(servers))


def _measured(servers: PrivateServers, env: Mapping[str, str], count: int, seconds: int) -> dict[str, float]:
    with serving(env) as (process, url):
        _load(url, count // 10, 0)  # not timed, as it includes starting up
        _empty_inbox(servers)
        used = _cpu(process)
        flood = _load(url, count, 0)
        cpu = (_cpu(process) - used) / count
        results = {
            "acks_per_s": round(flood["per_s"], 1),
            "cpu_per_ack_us": round(cpu * 1e6, 1),
            **_latencies(flood, "flooded"),
        }
        for rate in RATES:
            _empty_inbox(servers)
            paced = _load(url, rate * seconds, rate)
            results |= {f"rate_at_{rate}_per_s": round(paced["per_s"], 1), **_latencies(paced, f"at_{rate}")}
        return results | {"rss_mib": round(process.memory_info().rss / 2**20, 1)}


def _raced(servers: PrivateServers, env: Mapping[str, str], count: int) -> dict[str, float]:
    """The ingress and a bare uvicorn, flooded one after the other: ours, theirs, theirs, ours."""
    found: dict[str, list[dict[str, float]]] = {"ours": [], "uvicorn": []}
    with serving(env) as ours, _uvicorn(env) as theirs:
        for name, one in (("ours", ours), ("uvicorn", theirs), ("uvicorn", theirs), ("ours", ours)):
            found[name].append(flooded(servers, one, count))
    ours_, theirs_ = mean(found["ours"]), mean(found["uvicorn"])
    return {
        **{f"raced_{name}": value for name, value in ours_.items()},
        "uvicorn_per_s": theirs_["acks_per_s"],
        "uvicorn_python_cpu_us": theirs_["python_cpu_us"],
        "uvicorn_client_cpu_us": theirs_["client_cpu_us"],
        "ratio_to_uvicorn": ratio(ours_["acks_per_s"], theirs_["acks_per_s"]),
    }


def flooded(servers: PrivateServers, one: Served, count: int) -> dict[str, float]:
    """The rate and the CPU per request of a server that gets `count` requests as fast as it answers."""
    process, url = one
    _empty_inbox(servers)
    _load(url, count // 10, 0)  # not timed, as it includes starting up
    meter = CpuMeter(servers, [process])
    before = meter.read()
    flood = _load(url, count, 0)
    cpu = cpu_per_event(["python"], before, meter.read(), count) | {"client_cpu_us": flood["driver_cpu_us"]}
    _empty_inbox(servers)
    return {"acks_per_s": flood["per_s"], **cpu}


def _latencies(figures: Mapping[str, Any], at: str) -> dict[str, float]:
    return {f"p{p}_{at}_ms": figures[f"p{p}_ms"] for p in (50, 95, 99)}


def _load(url: str, count: int, rate: int) -> dict[str, Any]:
    """The figures of the client, which runs in its own process. Raises `OpsError` unless every answer was a 202."""
    command = [sys.executable, "-m", "ops.bench.http_load", url, SECRET, str(count), str(CONNECTIONS), str(rate)]
    figures = figures_of(command, DEADLINE)
    if figures["statuses"] != {"202": count}:
        raise OpsError(f"not everything was accepted: {figures['statuses']}")
    return figures


def _floor(servers: PrivateServers, count: int) -> float:
    """Messages per second without HTTP: the same messages, made beforehand, through the same publisher."""
    from workers.amqp.inbox_message import to_inbox  # noqa: PLC0415 - imported lazily: `ops` may not import a worker otherwise
    from workers.amqp.publisher_thread import PublisherThread  # noqa: PLC0415

    source = Source("bench", "hooks", "standard-webhooks", (SECRET,))
    now, run_name = datetime.now(UTC), new_run()
    messages = []
    for number in range(count):
        content = body(number)
        headers = webhook(run_name, number, content, SECRET)
        ((attributes, data),) = receive(source, headers, content, now, str)
        messages.append(to_inbox(source, attributes, data))
    publisher = PublisherThread(servers.amqp_url, "floor")
    try:
        if not wait_until(lambda: publisher.ready() is None, 10):
            raise OpsError("the floor did not reach RabbitMQ")
        publisher.publish_all(messages[: count // 10], 60)
        _empty_inbox(servers)
        began = time.perf_counter()
        if not all(publisher.publish_all(messages, 60)):
            raise OpsError("the floor was not confirmed")
        return count / (time.perf_counter() - began)
    finally:
        publisher.close()


def _empty_inbox(servers: PrivateServers) -> None:
    import pika  # noqa: PLC0415 - imported lazily: only `workers` may import pika otherwise

    from workers.amqp.topology import INBOX  # noqa: PLC0415

    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        connection.channel().queue_purge(INBOX)


def _broker_version(servers: PrivateServers) -> str:
    import pika  # noqa: PLC0415

    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        return str(connection._impl.server_properties["version"])  # noqa: SLF001 - pika has no public way


def _cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def serving(env: Mapping[str, str]) -> AbstractContextManager[Served]:
    """Run an ingress while the block runs."""
    port = choose_ports(["ingress"], {})["ingress"]
    settings = {"WAXSEAL_INGRESS_HOST": LOOPBACK, "WAXSEAL_INGRESS_PORT": str(port)}
    return _serving([sys.executable, "-m", "ops.cli", "ingress"], {**env, **settings}, port)


def _uvicorn(env: Mapping[str, str]) -> AbstractContextManager[Served]:
    port = choose_ports(["uvicorn"], {})["uvicorn"]
    options = ["--host", LOOPBACK, "--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "ops.bench.bare_app:app",
        "--lifespan",
        "off",
        "--log-level",
        "warning",
        *options,
    ]
    return _serving(command, env, port)


@contextmanager
def _serving(command: Sequence[str], env: Mapping[str, str], port: int) -> Iterator[Served]:
    with running([command], env) as (process,):
        if not wait_until(lambda: _is_ready(port), 30):
            raise OpsError(f"not ready in time: {' '.join(command)}")
        yield process, f"http://{LOOPBACK}:{port}/in/bench/hooks"


def _is_ready(port: int) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
