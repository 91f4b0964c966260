"""`bench verify`: entries verified per second, whole and incremental, compared with a bare loop over the same rows.

The bare loop fetches the same rows from the same database, makes each envelope and its SHA-256, and each content's HMAC. It
compares nothing: no hash, link, column, attribute, fingerprint or head. `ratio_to_bare` is of the CPU that both take in their
own process, because Postgres and other load work on the same cores; `ratio_to_bare_by_clock` is of the time that passes, and so
is what two processes gain. They run in alternating order, each in a fresh process.

What two processes can gain at most is said by `whole_cores` and `two_jobs_cores`, how many cores were busy with the processes
and Postgres on the average, and `ratio_two_jobs_cpu_to_one`, the CPU of both together: on two cores two can gain
2 / (whole_cores x that ratio).
"""

import hmac
import json
import re
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import psutil
from sqlalchemy import Engine

from ops.admin.read_session import snapshot
from ops.admin.verifying.verify_jobs import verify_in_jobs
from ops.bench import load
from ops.bench.configured_system import configure, fresh_servers
from ops.bench.measuring.cpu import cpu_seconds
from ops.bench.measuring.results import ratio, report, tell
from ops.bench.processes import figures_of
from ops.errors import OpsError
from ops.runtime import gc_tuning
from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine, transaction
from ops.servers.private import PrivateServers
from ops.settings import Settings
from pipeline.append import append
from pipeline.chain import CONTENT, LEAF, envelope
from pipeline.dedupe import chain_key, fingerprint
from pipeline.ledger.verifying.verify import verify, verify_new
from pipeline.store.ledger import points, scan
from pipeline.store.ledger.scan import Scope
from schemas.event import Event
from schemas.ledger.fault import Verified

EVENTS: Final = 200_000
QUICK_EVENTS: Final = 10_000
ROUNDS: Final = 3
BATCH: Final = 1000
KEY: Final = b"k" * 32
TENANT: Final = "bench"
NEW: Final = 10  # per cent of the events are recorded after the points, for the incremental verification
NO_BLOBS: Final = Blobs("/dev/null/blobs")


def record(engine: Engine, count: int) -> None:
    """Records so many events of the usual size in the ledger."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    batch: list[Event] = []
    for number, (body, headers) in enumerate(load.events(count), 1):
        attributes = {name.removeprefix("cloudEvents:"): value for name, value in headers.items()}
        attributes |= {"datacontenttype": "application/json"}
        subject, id_ = attributes["subject"], attributes["id"]
        batch.append(Event(TENANT, attributes, body, fingerprint(KEY, "bench", id_), chain_key(KEY, subject)))
        if number % BATCH == 0 or number == count:
            with transaction(engine) as conn:
                append(conn, batch, {}, now)
            batch = []


def run(*, quick: bool = False) -> dict[str, Any]:
    """Record events on fresh private servers and verify them; gives the report of CONTRACT §8."""
    events, rounds = (QUICK_EVENTS, 1) if quick else (EVENTS, ROUNDS)
    with fresh_servers() as (servers, folder):
        configure(servers, folder, load.CONFIG.format(url="http://127.0.0.1:9/"))
        engine = make_engine(servers.database_url, pool_size=2)
        try:
            record(engine, events - events * NEW // 100)
            settled(engine)
            measured("points", servers)
            record(engine, events * NEW // 100)
            settled(engine)
            found = _rounds(servers, rounds)
        finally:
            engine.dispose()
        return report("verify", _results(found, events), servers.database_url)


def _rounds(servers: PrivateServers, rounds: int) -> dict[str, list[dict[str, float]]]:
    names = ("bare", "whole", "incremental", "two_jobs")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(measured(name, servers))
            tell(f"round {number + 1}, {name}: {found[name][-1]['entries'] / found[name][-1]['clock']:.0f} entries/s")
    return found


def _results(found: dict[str, list[dict[str, float]]], events: int) -> dict[str, Any]:
    best = {name: {each: min(run[each] for run in runs) for each in runs[0]} for name, runs in found.items()}
    rates = {
        f"{name}_per_{unit}": round(times["entries"] / times[seconds])
        for name, times in best.items()
        for unit, seconds in (("s", "clock"), ("cpu_s", "cpu"))
        if not (name == "two_jobs" and unit == "cpu_s")  # theirs is not their parent's
    }
    return {
        "entries": events,
        **rates,
        "ratio_to_bare": ratio(best["bare"]["cpu"], best["whole"]["cpu"]),
        "ratio_to_bare_by_clock": ratio(best["bare"]["clock"], best["whole"]["clock"]),
        "ratio_two_jobs_to_one": ratio(best["whole"]["clock"], best["two_jobs"]["clock"]),
        "ratio_two_jobs_cpu_to_one": ratio(_all_cpu(best["two_jobs"]), _all_cpu(best["whole"])),
        **{f"{name}_cores": ratio(_all_cpu(best[name]), best[name]["clock"]) for name in ("whole", "two_jobs")},
        "whole_mib": round(max(run["mib"] for run in found["whole"])),
    }


def _all_cpu(run: dict[str, float]) -> float:
    return run["cpu"] + run["others_cpu"] + run["postgres_cpu"]


def measured(name: str, servers: PrivateServers) -> dict[str, float]:
    """One run in a fresh process: its entries, seconds by the clock and of CPU, and its largest size.

    The CPU is its own, that of processes that it started, and that of all of Postgres.
    """
    # Not with -m: the processes that share a verification would import that module again, and all that it needs.
    command = [sys.executable, "-c", "from ops.bench.verify import main; main()", name, servers.database_url]
    postgres = psutil.Process(servers.postgres_pid)
    before = cpu_seconds(postgres)
    found = {key: float(value) for key, value in figures_of(command).items()}
    return found | {"postgres_cpu": cpu_seconds(postgres) - before}


def settled(engine: Engine) -> None:
    """As autovacuum would leave the tables."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        scan.settle(conn)


def whole(engine: Engine, *, keep: bool = False) -> int:
    """Verifies everything; gives the number of entries. `keep`: the verified points too."""
    reached: list[points.Reached] = []
    with snapshot(engine) as conn:
        found = verify(conn, Scope(), {TENANT: KEY}, NO_BLOBS.get, _fail, reached=reached.append if keep else lambda _: None)
    if keep:
        with transaction(engine) as conn:
            points.keep(conn, reached, datetime.now(UTC))
    return _intact(found)


def incremental(engine: Engine) -> int:
    """Verifies what came after the points; gives the number of entries."""
    with snapshot(engine) as conn:
        return _intact(verify_new(conn, {TENANT: KEY}, NO_BLOBS.get, _fail, lambda _: None))


def two_jobs(engine: Engine) -> int:
    """Verifies everything in two processes; gives the number of entries."""
    settings = Settings(database_url=engine.url.render_as_string(hide_password=False))
    with snapshot(engine) as conn:
        return _intact(verify_in_jobs(settings, conn, Scope(), {TENANT: KEY}, 2, _fail, lambda _: None))


def bare(engine: Engine) -> int:
    """Reads the same rows and hashes them; gives their number."""
    count = 0
    with snapshot(engine) as conn:
        for page in scan.pages(conn, Scope()):
            for chain, seq, prev, _, tenant, at, kind, pc, _, attributes, body, _, salt, *_ in page:
                sha256(LEAF + envelope(chain.hex(), seq, prev, tenant, at, kind, pc)).digest()
                hmac.digest(salt, CONTENT + len(attributes).to_bytes(8, "big") + attributes + body, "sha256")
                count += 1
    return count


def largest_size() -> float:
    """The largest resident size that this process had, in MiB; getrusage's is never smaller than that of its parent was."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) / 1024 if found else 0.0


def _intact(found: Verified) -> int:
    if found.verdict != "intact":
        raise OpsError(f"the benchmark's own ledger is {found.verdict}")
    return found.entries


def _fail(fault: object) -> None:
    raise OpsError(f"the benchmark's own ledger has a fault: {fault}")


RUNS: Final[dict[str, Callable[[Engine], int]]] = {
    "bare": bare,
    "whole": whole,
    "points": lambda engine: whole(engine, keep=True),
    "incremental": incremental,
    "two_jobs": two_jobs,
}


def main() -> None:
    """Do the run that is named, on the database that is named, and print what `measured` gives."""
    name, url = sys.argv[1:]
    gc_tuning.tune()  # as `waxseal verify` does; it makes the bare loop faster, too
    engine = make_engine(url, pool_size=1)
    clock, cpu = time.monotonic(), time.process_time()
    entries = RUNS[name](engine)
    taken = {"entries": entries, "clock": time.monotonic() - clock, "cpu": time.process_time() - cpu}
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({**taken, "others_cpu": others.ru_utime + others.ru_stime, "mib": largest_size()}))  # noqa: T201 - for its parent
