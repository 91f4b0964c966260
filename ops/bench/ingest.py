"""`bench ingest`: from a full inbox to committed entries, beside one task per event and a loop without any logic.

Every contestant takes the same events from RabbitMQ and leaves rows in the same tables of the same Postgres.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine

from ops.bench.load import CONFIG, SUBJECTS
from ops.bench.private import configure
from ops.bench.report import ratio, report
from ops.db import make_engine, transaction
from ops.errors import OpsError
from ops.servers import private_servers
from pipeline.store import ledger

WARM = 0.1  # of the events, not timed: starting up is no part of the rate
DEADLINE = 120.0  # seconds for one contestant

Environment = dict[str, str]


def run(*, quick: bool = False) -> dict[str, Any]:
    """Runs all contestants one after the other on fresh private servers; gives the report of CONTRACT §8."""
    events, tasks = (5_000, 1_000) if quick else (60_000, 6_000)
    with tempfile.TemporaryDirectory(prefix="waxseal-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with private_servers(folder) as servers:
            env = configure(servers, folder, CONFIG.format(url="http://127.0.0.1:9/"))
            engine = make_engine(servers.database_url, pool_size=1)
            figures = _figures(engine, env, servers.amqp_url, events, tasks)
            engine.dispose()
            return report("ingest", _compared(figures, events), servers.database_url)


def _figures(engine: Engine, env: Environment, amqp_url: str, events: int, tasks: int) -> dict[str, dict[str, float]]:
    from ops.bench import peers  # noqa: PLC0415 - imports what only the peers need

    ours, figures = [sys.executable, "-m", "ops.cli", "ingest"], {}
    for name, commands in (("one_process", [ours]), ("two_processes", [ours, ours])):
        peers.fill_inbox(amqp_url, events)
        figures[name] = _race(engine, env, events, commands)
    peers.fill_inbox(amqp_url, events)
    figures["floor"] = _floor(env, events)
    peers.fill_dramatiq(amqp_url, tasks)
    figures["dramatiq"] = _race(engine, env, tasks, [_peer("dramatiq")])
    peers.fill_celery(amqp_url, tasks)
    figures["celery"] = _race(engine, env, tasks, [_peer("celery")])
    return figures


def _compared(figures: dict[str, dict[str, float]], events: int) -> dict[str, Any]:
    ours = figures["one_process"]["events_per_s"]
    return {
        "events": events,
        "subjects": SUBJECTS,
        **{f"{name}_{key}": value for name, found in figures.items() for key, value in found.items()},
        "ratio_to_dramatiq": ratio(ours, figures["dramatiq"]["events_per_s"]),
        "ratio_to_celery": ratio(ours, figures["celery"]["events_per_s"]),
        "ratio_to_floor": ratio(ours, figures["floor"]["events_per_s"]),
        "ratio_two_to_one_process": ratio(figures["two_processes"]["events_per_s"], ours),
    }


def _race(engine: Engine, env: Environment, count: int, commands: Sequence[Sequence[str]]) -> dict[str, float]:
    """The rate from the first tenth to the last of `count` events, and the largest resident size of a process."""
    before = _entries(engine)
    samples: list[tuple[float, int]] = []
    rss = 0
    with _running(commands, env) as processes:
        deadline = time.monotonic() + DEADLINE
        while not samples or samples[-1][1] < before + count:
            time.sleep(0.02)
            samples.append((time.monotonic(), _entries(engine)))
            rss = max(rss, *(process.memory_info().rss for process in processes))
            if not all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
                raise OpsError(f"a contestant died: {' '.join(commands[0])}")
            if time.monotonic() > deadline:
                raise OpsError(f"{samples[-1][1] - before} of {count} events after {DEADLINE:.0f} s")
    began, first = next(sample for sample in samples if sample[1] >= before + count * WARM)
    ended, last = samples[-1]
    return {"events_per_s": round((last - first) / (ended - began), 1), "rss_mib": round(rss / 2**20, 1)}


def _floor(env: Environment, count: int) -> dict[str, float]:
    """The bare loop says itself how fast it was: it moves no heads that could be watched."""
    printed = subprocess.run(
        [*_peer("floor"), str(count)], env=env, capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    return {"events_per_s": float(json.loads(printed.stdout)["events_per_s"])}


def _peer(name: str) -> list[str]:
    return [sys.executable, "-m", "ops.bench.peers", name]


def _entries(engine: Engine) -> int:
    with transaction(engine) as conn:
        return ledger.count_by_heads(conn)


@contextmanager
def _running(commands: Sequence[Sequence[str]], env: Environment) -> Iterator[Sequence[psutil.Process]]:
    processes = [psutil.Popen(command, env=env, stdout=subprocess.DEVNULL) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
