"""`bench ingest`: from a full inbox to committed entries, compared with one task per event and a loop without any logic.

Every contestant takes the same events from RabbitMQ, has the same prefetch, and writes rows to fresh tables of the same
Postgres. Those that record one event at a time take fewer of them: at their rate, all would take minutes. One process of ours
runs against one of a peer, two against two; and one beside a sequencer, which gives what it records positions meanwhile. The
order alternates from round to round, because the machine's speed changes meanwhile. What the sequencer takes is little beside
that: it is raced in more rounds, and its own CPU is counted for each position that it gave until none was pending, however far
behind it was when the clock stopped. The CPU of Postgres is that of all its processes but for the session that counts the
entries. Each database is dropped after its race, with a checkpoint, so that nobody pays for the autovacuum of others'
databases, or for files of write-ahead log that a server which has run for a while has already.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final, TypeVar

import psutil
from sqlalchemy import Connection, Engine

from ops.bench.configured_system import configure, drop_database, fresh_database, fresh_servers
from ops.bench.load import CONFIG, SUBJECTS
from ops.bench.measuring.cpu import CpuMeter, cpu_per_event, mean
from ops.bench.measuring.results import ratio, report, tell
from ops.bench.processes import running, start_telling
from ops.bench.sequencing import sequencing
from ops.errors import OpsError
from ops.runtime.db import make_engine, transaction
from ops.servers.private import PrivateServers
from ops.settings import Settings
from pipeline.store.admin import inspection
from pipeline.store.ledger import entries as ledger_entries

EVENTS: Final = 10_000
QUICK_EVENTS: Final = 2_000
PEERS_SHARE: Final = 4
ROUNDS: Final = 2
PAIRED_ROUNDS: Final = 5  # with and without a sequencer
WINDOW: Final = (0.1, 0.8)  # the share of the events that is timed: the prefetch is full, start and end are left out
DEADLINE: Final = 240.0  # seconds for one contestant
POLL: Final = 0.05  # seconds between two counts of the entries: the counts cost Postgres time as well

Environment = dict[str, str]
_Answer = TypeVar("_Answer")

SEQUENCER: Final = "sequencer"
OURS: Final = {role: [sys.executable, "-m", "ops.cli", role] for role in ("ingest", SEQUENCER)}
_CPU: Final = ("python_cpu_us", "postgres_cpu_us", "rabbitmq_cpu_us", "sequencer_cpu_us", "sequencer_postgres_cpu_us")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program that is measured: what fills its queue, and the command of each of its processes."""

    name: str
    fill: Callable[[str, int], None]
    command: Sequence[str]
    processes: int = 1
    rounds: int = ROUNDS
    share: int = 1  # takes one in so many of the events
    sequenced: bool = False  # a sequencer runs beside it
    counted: Callable[[Connection], int] = ledger_entries.count_by_heads  # the entries, every few moments


def run(*, quick: bool = False) -> dict[str, Any]:
    """Run all contestants one after the other on fresh private servers; gives the report of CONTRACT §8."""
    events, most = (QUICK_EVENTS, 1) if quick else (EVENTS, PAIRED_ROUNDS)
    with fresh_servers() as (servers, folder):
        env = configure(servers, folder, CONFIG.format(url="http://127.0.0.1:9/"))
        env["dramatiq_queue_prefetch"] = str(Settings().prefetch)
        return report("ingest", _compared(_figures(servers, env, events, most), events), servers.database_url)


def _figures(servers: PrivateServers, env: Environment, events: int, most: int) -> dict[str, list[dict[str, float]]]:
    """What each contestant did in each of its rounds, `most` at most."""
    contestants = _contestants()
    found: dict[str, list[dict[str, float]]] = {one.name: [] for one in contestants}
    for number in range(min(most, max(one.rounds for one in contestants))):
        racing = [one for one in contestants if number < one.rounds]
        for one in racing if number % 2 == 0 else reversed(racing):
            url = fresh_database(servers.database_url)
            count = events // one.share
            one.fill(servers.amqp_url, count)
            measured = _floor if one.name == "floor" else race
            found[one.name].append(measured(servers, env | {"WAXSEAL_DATABASE_URL": url}, count, one))
            drop_database(url)
            tell(f"round {number + 1}, {one.name}: {found[one.name][-1]['events_per_s']:.0f} events/s")
    return found


def _contestants() -> Sequence[Contestant]:
    from ops.bench import peers  # noqa: PLC0415 - imports what only the peers need

    ours = OURS["ingest"]
    return (
        Contestant("one_process", peers.fill_inbox, ours, rounds=PAIRED_ROUNDS),
        Contestant("sequenced", peers.fill_inbox, ours, rounds=PAIRED_ROUNDS, sequenced=True),
        Contestant("floor", peers.fill_inbox, _peer("floor")),
        Contestant("dramatiq", peers.fill_dramatiq, _peer("dramatiq"), share=PEERS_SHARE),
        Contestant("celery", peers.fill_celery, _peer("celery"), share=PEERS_SHARE),
        Contestant("dramatiq_two_processes", peers.fill_dramatiq, _peer("dramatiq"), 2, share=PEERS_SHARE),
        Contestant("celery_two_processes", peers.fill_celery, _peer("celery"), 2, share=PEERS_SHARE),
        Contestant("two_processes", peers.fill_inbox, ours, 2),
    )


def _compared(rounds: dict[str, list[dict[str, float]]], events: int) -> dict[str, Any]:
    figures = {name: mean(each) for name, each in rounds.items()}
    rates = {name: found["events_per_s"] for name, found in figures.items()}
    return {
        "events": events,
        "rounds": {name: len(each) for name, each in rounds.items()},
        "subjects": SUBJECTS,
        **{f"{name}_{key}": value for name, found in figures.items() for key, value in found.items()},
        "ratio_to_dramatiq": ratio(rates["one_process"], rates["dramatiq"]),
        "ratio_to_celery": ratio(rates["one_process"], rates["celery"]),
        **_beside_sequencer(rounds["one_process"], rounds["sequenced"]),
        "ratio_to_floor": ratio(rates["one_process"], rates["floor"]),
        "ratio_two_to_one_process": ratio(rates["two_processes"], rates["one_process"]),
        "ratio_two_to_two_of_dramatiq": ratio(rates["two_processes"], rates["dramatiq_two_processes"]),
        "ratio_two_to_two_of_celery": ratio(rates["two_processes"], rates["celery_two_processes"]),
        "ratio_two_to_floor": ratio(rates["two_processes"], rates["floor"]),
    }


def _beside_sequencer(alone: Sequence[Mapping[str, float]], beside: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What ingest keeps of its rate, and of its events per second of CPU, beside a sequencer: medians of the pairs.

    The share is that of the sequencer and its Postgres session in all CPU that an event takes with its position.
    """
    pairs = list(zip(alone, beside, strict=True))
    return {
        "ratio_beside_sequencer_by_clock": median(ratio(with_["events_per_s"], one["events_per_s"]) for one, with_ in pairs),
        "ratio_beside_sequencer_by_cpu": median(ratio(_all_cpu(one), _all_cpu(with_)) for one, with_ in pairs),
        "sequencer_cpu_share": round(median(_of_sequencer(each) / _all_cpu(each) for each in beside), 3),
    }


def _all_cpu(found: Mapping[str, float]) -> float:
    """The CPU of all processes for an event, in microseconds; that of the sequencer for a position.

    One at least: a few events may take less than a tick of the clock.
    """
    return max(1.0, sum(found[name] for name in _CPU if name in found))


def _of_sequencer(found: Mapping[str, float]) -> float:
    return found["sequencer_cpu_us"] + found["sequencer_postgres_cpu_us"]


def race(servers: PrivateServers, env: Environment, count: int, one: Contestant) -> dict[str, float]:
    """Within the window: the rate and the CPU per event. Of the whole run: the largest resident size, and WAL and disk."""
    first, last = (int(count * part) for part in WINDOW)
    rss = 0
    with (
        _database(env) as database,
        sequencing(OURS[SEQUENCER], env, database) if one.sequenced else nullcontext() as sequencer,
        running([one.command] * one.processes, env) as processes,
    ):
        had = database(one.counted)

        def recorded() -> int:
            return database(one.counted) - had

        meter, before = CpuMeter(servers, processes, database(_session)), database(inspection.written)
        launched = began = ended = (time.monotonic(), 0, meter.read())
        deadline = time.monotonic() + DEADLINE
        while ended[1] < last:
            time.sleep(POLL)
            ended = (time.monotonic(), recorded(), meter.read())
            if began[1] < first:
                began = ended
                if sequencer:
                    sequencer.begin()
            rss = max(rss, *(process.memory_info().rss for process in processes))
            if not all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
                raise OpsError(f"a contestant died: {' '.join(one.command)}")
            if time.monotonic() > deadline:
                raise OpsError(f"{one.name}: {ended[1]} of {last} events after {DEADLINE:.0f} s")
        apart = sequencer.postgres() if sequencer else 0.0
        while (counted := recorded()) < count:  # else what is being written would count as what the others cost
            if time.monotonic() > deadline:
                raise OpsError(f"{one.name}: {counted} of {count} events after {DEADLINE:.0f} s")
            time.sleep(POLL)
        sequenced = sequencer.end(deadline) if sequencer else {}
        log, files = (after - first for after, first in zip(database(inspection.written), before, strict=True))
    if began is ended:  # so few events that all were recorded between two counts
        began = launched
    timed = ended[1] - began[1]
    spent = replace(ended[2], postgres=ended[2].postgres - apart)
    return {
        "events_per_s": timed / (ended[0] - began[0]),
        "rss_mib": rss / 2**20,
        "wal_bytes": log / counted,
        "disk_bytes": files / counted,
        **cpu_per_event(["python"] * one.processes, began[2], spent, timed),
        **sequenced,
    }


def _session(conn: Connection) -> int:
    """The pid of the process that serves this connection; `_database` keeps one."""
    driver = conn.connection.driver_connection
    assert driver is not None
    return int(driver.info.backend_pid)


def _floor(servers: PrivateServers, env: Environment, count: int, one: Contestant) -> dict[str, float]:
    """The bare loop itself prints when it has taken so many events: it moves no heads by which they could be counted."""
    command = [*one.command, str(count), *(str(int(count * part)) for part in WINDOW)]
    process = start_telling(command, env)
    with process.stdout as lines:
        try:
            meter = CpuMeter(servers, [process])
            samples = [(time.monotonic(), int(line), meter.read()) for line in lines]
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
    if code or len(samples) != len(WINDOW):
        raise OpsError("the bare loop died")
    (began, first, before), (ended, last, after) = samples
    return {"events_per_s": (last - first) / (ended - began), **cpu_per_event(["python"], before, after, last - first)}


def _peer(name: str) -> list[str]:
    return [sys.executable, "-m", "ops.bench.peers", name]


@contextmanager
def _database(env: Environment) -> Iterator[Callable[[Callable[[Connection], _Answer]], _Answer]]:
    """Give a function that asks a contestant's database."""
    engine: Engine = make_engine(env["WAXSEAL_DATABASE_URL"], pool_size=1)

    def ask(question: Callable[[Connection], _Answer]) -> _Answer:
        with transaction(engine) as conn:
            return question(conn)

    try:
        yield ask
    finally:
        engine.dispose()
