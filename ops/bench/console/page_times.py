"""`bench console`: times of pages and operations at five million events and deliveries, and what a heavy reader does to ingest.

The database is filled set by set, and indexed by the console's own rounds. Every page that reads is asked for over HTTP from a
console process of its own, one request after the other, with other names and ids each time. Then events are appended by a
process of its own, alone and while readers ask for the heaviest page without a pause, in alternating order: the ratio is of
the two rates in one run, on cores that all of them share.
"""

import json
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, text

from ops.admin.access import tokens
from ops.admin.search.indexing import Indexer
from ops.bench import load
from ops.bench.configured_system import configure, fresh_servers, kept_servers
from ops.bench.console.asking import TENANTS, Asker, examples, requests
from ops.bench.console.filling import LONG, Filling, fill
from ops.bench.measuring.results import percentiles, ratio, report
from ops.bench.processes import figures_of, running
from ops.errors import OpsError
from ops.runtime.db import make_engine, transaction
from ops.servers.accounts import own_file
from ops.servers.ports import choose_ports
from pipeline.append import append
from pipeline.dedupe import chain_key, fingerprint
from schemas.event import Event

EVENTS: Final = 5_000_000
QUICK_EVENTS: Final = 20_000
TIMES: Final = 20  # each page is asked for so often of each tenant
ROUNDS: Final = 3
SECONDS: Final = 8.0  # of appending in one round
QUICK_SECONDS: Final = 1.0
READERS: Final = 4
HEAVY: Final = "/t/big/events?q=subject%3Aorder-%2A+type%3Azzz%2A"  # looks at as many rows as a search may
BATCH: Final = 500
KEY: Final = b"k" * 32
GOOD: Final = (200, 303, 304)
_READY_SECONDS: Final = 60.0

CONFIG: Final = """
tenants: [{name: big}, {name: mid}, {name: small}, {name: void}]
endpoints:
""" + "".join(
    f"  - {{tenant: {tenant}, name: e{n}, url: 'http://127.0.0.1:9/'}}\n"
    for tenant, count in (("big", 20), ("mid", 5), ("small", 2), ("void", 1))
    for n in range(count)
)

SIZES = text("""
    SELECT CAST(sum(pg_total_relation_size(relname::regclass)) AS bigint) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname IN ('event_search', 'subject_search', 'delivery_search')""")
ENTRIES = text("SELECT count(*) FROM (SELECT FROM entry LIMIT 1) AS found")
DATABASE = text("SELECT pg_database_size(current_database())")


def run(*, quick: bool = False, events: int = EVENTS, data: Path | None = None) -> dict[str, Any]:
    """Fill, index, ask and append on private servers; gives the report of CONTRACT §8.

    With `data` they stay in that folder, and the next run there finds them filled.
    """
    events, times, rounds, seconds = (QUICK_EVENTS, 1, 1, QUICK_SECONDS) if quick else (events, TIMES, ROUNDS, SECONDS)
    with fresh_servers() if data is None else kept_servers(data) as (servers, folder):
        env = configure(servers, folder, CONFIG)
        engine = make_engine(servers.database_url, pool_size=3, statement_timeout=1800.0)
        try:
            results = _ready(engine, folder, events)
            with _console({**env, "WAXSEAL_CONSOLE_SHARE": "0"}, engine) as (url, token):  # one who never pauses would wait
                results |= _asked(engine, url, token, times)
            with _console(env, engine) as (url, token):
                results |= _beside(servers.database_url, url, token, rounds, seconds)
            results["database_mib"] = round(_one(engine, DATABASE) / 2**20)
        finally:
            engine.dispose()
        return report("console", results, servers.database_url)


def _ready(engine: Engine, folder: Path, events: int) -> dict[str, Any]:
    """Fills and indexes, unless an earlier run has. What it said is kept beside the data."""
    kept = folder / "filled.json"
    if kept.exists():
        told: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    elif _one(engine, ENTRIES):
        raise OpsError(f"an earlier run has not filled {folder} to its end: remove it")
    else:
        told = {"events": events, **_filled(engine, events), **_indexed(engine, events)}
        own_file(kept, json.dumps(told), None)
    if told["events"] != events:
        raise OpsError(f"{folder} has {told['events']:,} events: say --events {told['events']}, or another folder")
    return told


def _filled(engine: Engine, events: int) -> dict[str, Any]:
    parts = {"big": 60, "mid": 39, "small": 1}  # per cent
    began = time.monotonic()
    fill(engine, [Filling(tenant, max(1, events * part // 100 // LONG)) for tenant, part in parts.items()], lambda _line: None)
    return {"filled_per_s": round(events / (time.monotonic() - began))}


def _indexed(engine: Engine, events: int) -> dict[str, Any]:
    indexer, copied = Indexer(engine), {"events": 0, "deliveries": 0}
    began = time.monotonic()
    more = True
    while more or copied["deliveries"] < copied["events"]:
        turn = indexer.turn()
        assert turn is not None
        copied["events"] += turn.events
        copied["deliveries"] += turn.deliveries
        more = turn.more or turn.behind > 0
    took = time.monotonic() - began
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("VACUUM (ANALYZE) event_search, subject_search, delivery_search"))
    return {
        "indexed_per_s": round(copied["events"] / took),
        "index_bytes_per_event": round(_one(engine, SIZES) / max(1, events)),
    }


@contextmanager
def _console(env: Mapping[str, str], engine: Engine) -> Iterator[tuple[str, str]]:
    """A console process, with a token for all tenants; its rights are the owner's, but it reads as waxseal_reader."""
    _, token = tokens.new(engine, who="bench", role="viewer", tenant=None, lasts=timedelta(hours=6), by="bench")
    port = choose_ports(["console"], {})["console"]
    settings = {"WAXSEAL_CONSOLE_PORT": str(port), "WAXSEAL_LOG": "json"}
    with running([[sys.executable, "-m", "ops.cli", "console"]], {**env, **settings}) as [process]:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                Asker(url, token).seconds("/")
                break
            except OSError:
                if time.monotonic() > deadline or not process.is_running():
                    raise OpsError("the console of the benchmark does not serve") from None
                time.sleep(0.1)
        yield url, token


def paths() -> list[str]:
    """Of every page and operation that reads, and needs no role but a viewer's."""
    from workers.console.api.operations import OPERATIONS  # noqa: PLC0415 - only a benchmark may, and only here
    from workers.console.api.paths import PREFIX  # noqa: PLC0415
    from workers.console.pages.every_page import PAGES  # noqa: PLC0415

    pages = [each.path for each in PAGES if each.role in (None, "viewer")]
    # What asks for more than a subject is left out, and proofs: nothing of these logs is published.
    operations = [
        PREFIX + each.path
        for each in OPERATIONS
        if each.method == "GET" and each.role in (None, "viewer") and "/proofs" not in each.path
        if {name for name, field in each.query.model_fields.items() if field.is_required()} <= {"subject"}
    ]
    return [*pages, *operations]


def _asked(engine: Engine, url: str, token: str, times: int) -> dict[str, Any]:
    """Each page so often for each tenant, in random order; the first of each page is not left out."""
    wanted: list[tuple[str, str]] = []
    for seed in range(times):
        with transaction(engine) as conn:
            known = {each["tenant"]: each for each in examples(conn, seed)}
        for tenant in TENANTS:
            values = known.get(tenant, {"tenant": tenant, "subject": "none", "event_id": "none", "type": "none"})
            if tenant in known or seed == 0:
                wanted += requests(paths(), values)
    random.Random(1).shuffle(wanted)  # noqa: S311 - an order
    asker = Asker(url, token)
    took: dict[str, list[float]] = {}
    refused: list[str] = []
    for name, address in wanted:
        seconds, status = asker.seconds(address)
        if status in GOOD:
            took.setdefault(name, []).append(seconds)
        else:
            refused.append(f"{status} {address}")
    asker.close()
    of_api = [name for name in took if name.startswith("/api/")]
    by_kind = {"pages": [name for name in took if name not in of_api], "api": of_api}
    return {
        **{
            f"{kind}_{key}": value
            for kind, names in by_kind.items()
            if names
            for key, value in percentiles([each for name in names for each in took[name]]).items()
        },
        **{f"{name} p95_ms": percentiles(found)["p95_ms"] for name, found in sorted(took.items())},
        "asked": len(wanted),
        "paths": len(took),
        "refused": len(refused),
        "first_refused": refused[:1],
    }


def _beside(database_url: str, url: str, token: str, rounds: int, seconds: float) -> dict[str, Any]:
    rates: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    answers: list[float] = []
    for number in range(rounds):
        for read in (False, True) if number % 2 == 0 else (True, False):
            with _readers(url, token, READERS if read else 0) as answered:
                done = _appended(database_url, seconds)
            rates[read].append(done["events"] / done["seconds"])
            cpu[read].append(done["cpu"] / done["events"])
            answers += answered
    return {
        "append_alone_per_s": round(max(rates[False])),
        "append_beside_readers_per_s": round(max(rates[True])),
        "ratio_append_beside_readers": ratio(max(rates[True]), max(rates[False])),
        "append_alone_cpu_us": round(min(cpu[False]) * 1e6, 1),
        "append_beside_readers_cpu_us": round(min(cpu[True]) * 1e6, 1),
        "heavy_pages_meanwhile_per_s": round(len(answers) / (rounds * seconds), 1),
        **{f"heavy_pages_meanwhile_{key}": value for key, value in percentiles(answers).items()},
    }


@contextmanager
def _readers(url: str, token: str, count: int) -> Iterator[Sequence[float]]:
    """So many threads that ask for the heaviest page without a pause; gives what each answer took."""
    stop, answered = threading.Event(), list[float]()

    def read() -> None:
        asker = Asker(url, token)
        while not stop.is_set():
            answered.append(asker.seconds(HEAVY)[0])
        asker.close()

    threads = [threading.Thread(target=read) for _ in range(count)]
    for each in threads:
        each.start()
    try:
        yield answered
    finally:
        stop.set()
        for each in threads:
            each.join()


def _appended(url: str, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-c", "from ops.bench.console.page_times import append_for; append_for()", url, str(seconds)]
    return {key: float(value) for key, value in figures_of(command).items()}


def append_for() -> None:
    """Append events of the usual size for so many seconds, in batches as ingest does, and print what it came to."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    engine = make_engine(url, pool_size=1)
    events = load.events(10**9)
    count, clock, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() - clock < seconds:
        batch = [_event(body, headers) for (body, headers), _ in zip(events, range(BATCH), strict=False)]
        with transaction(engine) as conn:
            append(conn, batch, {}, datetime.now(UTC))
        count += len(batch)
    taken = {"events": count, "seconds": time.monotonic() - clock, "cpu": time.process_time() - cpu}
    print(json.dumps(taken))  # noqa: T201 - for its parent


def _event(body: bytes, headers: Mapping[str, Any]) -> Event:
    attributes = {name.removeprefix("cloudEvents:"): value for name, value in headers.items()}
    attributes |= {"datacontenttype": "application/json"}
    id_, subject = fingerprint(KEY, "bench", attributes["id"]), chain_key(KEY, attributes["subject"])
    return Event("mid", attributes, body, id_, subject)


def _one(engine: Engine, statement: Any) -> int:
    with transaction(engine) as conn:
        return int(conn.execute(statement).scalar_one())
