"""Benchmarks on the servers that the tests share, instead of on servers of their own."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pika
import psutil
import psycopg
import pytest

from ops.bench import capacity, claims, delivery, delivery_peer, ingest, ingress, peers, processes, verify
from ops.bench.console import page_times
from ops.bench.distance import delays
from ops.bench.growth import rates
from ops.servers.private import PrivateServers
from support.forked import ForkedProcess, TellingProcess, ended
from workers.amqp.dramatiq_broker import QUEUE
from workers.amqp.topology import INBOX

QUEUES = (INBOX, QUEUE, peers.QUEUE, peers.CELERY_QUEUE, delivery_peer.QUEUE)


@pytest.fixture(scope="module")
def forks() -> Iterator[None]:
    """Starts the programs of benchmarks as `up` starts ours, for a tenth of the CPU."""
    ours = ["-m", "ops.cli"]

    def start(command: Sequence[str], env: Mapping[str, str]) -> psutil.Process:
        assert sys.executable == command[0]
        kind = command[1:3]
        return ForkedProcess(*command[3:], env=env) if kind == ours else ForkedProcess(env=env, python=command[1:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "start", start)
        patch.setattr(processes, "ended", ended)
        patch.setattr(ingest, "start_telling", lambda command, env: TellingProcess(command[1:], env))
        yield


@pytest.fixture(scope="module")
def small(
    forks: None, servers: PrivateServers, shared_database: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Makes benchmarks use the servers of the tests, and measure so little that it takes seconds."""

    @contextmanager
    def tests_servers() -> Iterator[tuple[SimpleNamespace, Path]]:
        pids = {"postgres_pid": servers.postgres_pid, "rabbitmq_pid": servers.rabbitmq_pid}
        urls = {"database_url": shared_database.url, "amqp_url": servers.amqp_url}
        yield SimpleNamespace(**urls, **pids), tmp_path_factory.mktemp("bench")

    def use(patch: pytest.MonkeyPatch, module: ModuleType, **sizes: object) -> None:
        patch.setattr(module, "fresh_servers", tests_servers)
        for name, value in sizes.items():
            patch.setattr(module, name, value)

    with pytest.MonkeyPatch.context() as patch:
        use(patch, capacity, QUICK_COUNT=300)
        use(patch, claims)
        use(patch, rates, QUICK_AT=(400,))
        use(patch, page_times, QUICK_EVENTS=2000, QUICK_SECONDS=0.1)
        use(patch, ingest, QUICK_EVENTS=400)
        use(patch, ingress, QUICK_COUNT=640)
        use(patch, verify, QUICK_EVENTS=600)
        use(patch, delays, QUICK=delays.Sizes(backlog=40, single=2))
        use(patch, delivery, QUICK=delivery.Sizes(backlog=200, raced=100, rounds=1, seconds=0.25))
        yield
    clear(servers)


def clear(servers: PrivateServers) -> None:
    """Removes what the benchmarks leave to the end of their own servers: messages and databases."""
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
                channel.queue_delete(name)
    with psycopg.connect(servers.database_url, autocommit=True) as conn:
        made = r"SELECT datname FROM pg_database WHERE datname ~ '^(bench_|growth_)' OR datname IN ('few', 'many')"
        for (name,) in conn.execute(made).fetchall():
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
