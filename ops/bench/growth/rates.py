"""`bench growth`: rates of ingest and delivery, and bytes on disk and of write-ahead log, in databases of several sizes.

A database is filled to the largest size, and copied at each smaller one. Then one after the other, in alternating order, is
given the same number of events: an ingest process takes them from RabbitMQ, with a delivery each, and then a relay and a
deliver process deliver those over HTTP. So the load of other programs meets all sizes alike. The medians of the rounds are
compared. In the first round all pages are written whole to the write-ahead log, as after any checkpoint; the bytes of log are
those of the last round, with those of whole pages apart. Each round ends with a VACUUM of `delivery`, which is timed:
autovacuum does the same after every 25,000 deliveries.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil
import psycopg
from psycopg import sql
from sqlalchemy import Connection, make_url, text

from ops.bench import peers
from ops.bench.configured_system import fresh_servers, kept_servers
from ops.bench.delivery import delivered, processes
from ops.bench.delivery_stage import Stage
from ops.bench.growth.disk_and_log import bytes_per_event, log_by_relation, position
from ops.bench.growth.filled import MAINTAIN, Filling, maintain, settle_down
from ops.bench.ingest import OURS, Contestant, race
from ops.bench.load import SUBJECTS
from ops.bench.measuring.results import ratio, report, tell
from ops.errors import OpsError
from ops.migrate import migrate
from ops.runtime.db import transaction
from ops.servers.private import PrivateServers
from ops.servers.process_tree import wait_until
from pipeline.dedupe import chain_key
from pipeline.ledger.heads import SUBJECT
from pipeline.store.array_literals import plain
from pipeline.store.log.heads import last as last_heads

AT: Final = (100_000, 1_000_000, 5_000_000)
QUICK_AT: Final = (2_000, 20_000)
ROUNDS: Final = 4
EVENTS: Final = 20_000  # in one round, at most a fifth of the smallest size
BYTES: Final = 4_000  # on disk for an event with all that belongs to it, at most
SPARE: Final = 2 * 2**30

# The heads of the measured events' chains, and of no others: to count all takes longer where there are more.
COUNT: Final = text("SELECT coalesce(sum(seq + 1), 0) FROM chain WHERE key = ANY(CAST(:keys AS uuid[]))")

# A system reads all chains once a day to say where they end. In these databases that would be in each round, with each ingest.
HEADS_EVERY: Final = 10 * 365 * 86_400  # seconds
HEADS_SECONDS: Final = 600.0  # for the first time, which comes before the rounds

Round = dict[str, float]


def run(*, quick: bool = False, at: Sequence[int] = (), data: Path | None = None) -> dict[str, Any]:
    """Fill, copy and measure on private servers; gives the report of CONTRACT §8.

    With `data` the databases stay in that folder, and the next run there goes on with filling, or only measures.
    """
    wanted = sorted({*(at or (QUICK_AT if quick else AT))})
    count, rounds = min(EVENTS, wanted[0] // 5), 1 if quick else ROUNDS
    need_disk(wanted, data)
    with fresh_servers() if data is None else kept_servers(data) as (servers, folder), Stage(servers, folder) as stage:
        urls = _filled(stage, servers, folder, wanted)
        return report("growth", _measured(stage, servers, urls, count, rounds), servers.database_url)


def need_disk(wanted: Sequence[int], data: Path | None) -> None:
    """Raises `OpsError` unless the databases find room beside what is on the disk, and leave some."""
    folder = (
        Path(tempfile.gettempdir())
        if data is None
        else next(each for each in (data, *data.absolute().parents) if each.exists())
    )
    free, need = psutil.disk_usage(str(folder)).free, sum(wanted) * BYTES + SPARE
    if free < need:
        raise OpsError(
            f"{folder} has {free / 2**30:.1f} GiB free; these sizes may take {need / 2**30:.1f}: say --at less, or --data"
        )


def _filled(stage: Stage, servers: PrivateServers, folder: Path, wanted: Sequence[int]) -> dict[int, str]:
    """The URL of a database of each size; the largest is the one that was filled."""
    filling, main = Filling(stage, folder, tell), servers.database_url
    urls = {size: make_url(main).set(database=f"growth_{size}").render_as_string(hide_password=False) for size in wanted[:-1]}
    urls[wanted[-1]] = main
    made = _databases(main)
    for size, url in urls.items():
        if url != main and make_url(url).database in made:
            migrate(url)  # an earlier version may have filled it
            continue
        if filling.filled > size:
            raise OpsError(f"the folder has {filling.filled:,} events already: say --at {filling.filled}, or another folder")
        if filling.filled < size:
            with processes(stage, "sequencer"):
                filling.to(size)
            maintain(stage.engine, *MAINTAIN)
        if url != main:
            tell(f"copies the database at {size:,} events")
            stage.engine.dispose()
            _copy(main, url)
    return urls


def _databases(url: str) -> set[str]:
    with _admin(url) as conn:
        return {name for (name,) in conn.execute("SELECT datname FROM pg_database")}


def _copy(main: str, url: str) -> None:
    names = (sql.Identifier(make_url(each).database or "") for each in (url, main))
    with _admin(main) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))


def _admin(url: str) -> psycopg.Connection[Any]:
    admin = make_url(url).set(database="postgres").render_as_string(hide_password=False)
    return psycopg.connect(admin, autocommit=True, connect_timeout=10)


def _measured(stage: Stage, servers: PrivateServers, urls: Mapping[int, str], count: int, rounds: int) -> dict[str, Any]:
    settle_down(stage.engine)  # a filling that was killed left its settings
    stage.env["WAXSEAL_LOG_HEADS_EVERY"] = str(HEADS_EVERY)
    found: dict[int, list[Round]] = {size: [] for size in urls}
    disk: dict[int, dict[str, float]] = {}
    log: dict[int, dict[str, dict[str, float]]] = {}
    for number in range(rounds):
        for size, url in sorted(urls.items(), reverse=number % 2 == 1):
            stage.engine.dispose()
            stage.use(url)
            stage.point()
            if size not in disk:
                _record_heads(stage)
                disk[size] = bytes_per_event(stage.engine)
            figures, log[size] = _round(stage, servers, count)
            found[size].append(figures)
            tell(f"round {number + 1} at {size:,}: " + ", ".join(f"{name} {value:,.0f}" for name, value in figures.items()))
    return _results(found, disk, log, count)


def _record_heads(stage: Stage) -> None:
    key, _ = stage.known()

    def recorded() -> bool:
        with transaction(stage.engine) as conn:
            return last_heads(conn, chain_key(key, SUBJECT)) is not None

    if recorded():
        return
    with processes(stage, "ingest"):
        if not wait_until(recorded, HEADS_SECONDS):
            raise OpsError(f"ingest has not recorded where the chains end within {HEADS_SECONDS:.0f} s")


def _round(stage: Stage, servers: PrivateServers, count: int) -> tuple[Round, dict[str, dict[str, float]]]:
    peers.fill_inbox(servers.amqp_url, count)
    began = position(stage.engine)
    taken = race(servers, stage.env, count, Contestant("ingest", peers.fill_inbox, OURS["ingest"], counted=counting(stage)))
    log = {"ingest": log_by_relation(stage.engine, began)}
    began = position(stage.engine)
    sent = delivered(stage, count)
    log["delivery"] = log_by_relation(stage.engine, began)
    vacuum = maintain(stage.engine, "VACUUM delivery")
    figures = {
        "ingest_per_s": taken["events_per_s"],
        "delivery_per_s": sent["deliveries_per_s"],
        **{
            f"{what}_{name}": value
            for what, part in (("ingest", taken), ("delivery", sent))
            for name, value in part.items()
            if name.endswith("_cpu_us")
        },
        **{f"{what}_wal_bytes": sum(part.values()) / count for what, part in log.items()},
        "vacuum_of_delivery_ms": vacuum * 1000,
    }
    return figures, {what: {name: size / count for name, size in part.items()} for what, part in log.items()}


def counting(stage: Stage) -> Callable[[Connection], int]:
    """Counts the entries of the chains that measured events belong to."""
    key, _ = stage.known()
    keys = plain([chain_key(key, f"order-{number}").hex() for number in range(SUBJECTS)])
    return lambda conn: int(conn.execute(COUNT, {"keys": keys}).scalar_one())


def _results(
    found: Mapping[int, Sequence[Round]],
    disk: Mapping[int, Mapping[str, float]],
    log: Mapping[int, Mapping[str, Mapping[str, float]]],
    count: int,
) -> dict[str, Any]:
    """Medians at each size, and the rates at the largest divided by those at the smallest: of each round, then the median."""
    least, most = min(found), max(found)
    pairs = list(zip(found[least], found[most], strict=True))
    return {
        "events_in_a_round": count,
        "rounds": len(pairs),
        **{
            f"at_{size}_{name}": round(median(each[name] for each in rounds), 1)
            for size, rounds in found.items()
            for name in rounds[0]
        },
        "tables": {
            "bytes per event on disk": _by_size(disk),
            **{
                f"bytes per event of write-ahead log, {what}": _by_size({size: at[what] for size, at in log.items()})
                for what in ("ingest", "delivery")
            },
        },
        **{f"ratio_{what}_by_cpu_{most}_to_{least}": _compared(pairs, what, _by_cpu) for what in ("ingest", "delivery")},
        **{f"ratio_{what}_{most}_to_{least}": _compared(pairs, what, _by_clock) for what in ("ingest", "delivery")},
    }


def _compared(pairs: Sequence[tuple[Round, Round]], what: str, rate: Callable[[Round, str], float]) -> float:
    """The rate in the larger database, divided by that in the smaller: of each round, then their median."""
    return round(median(ratio(rate(large, what), rate(small, what)) for small, large in pairs), 2)


def _by_clock(figures: Round, what: str) -> float:
    return figures[f"{what}_per_s"]


def _by_cpu(figures: Round, what: str) -> float:
    """Events per second of CPU, of all processes, Postgres and RabbitMQ: it depends less on what else the machine does."""
    used = sum(value for name, value in figures.items() if name.startswith(what) and name.endswith("_cpu_us"))
    return 1e6 / max(used, 1.0)  # a few events may take less than a tick of the clock


def _by_size(figures: Mapping[int, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """By name first, the largest first; without what is less than a byte."""
    largest = max(figures)
    names = sorted({name for at in figures.values() for name in at}, key=lambda name: -figures[largest].get(name, 0))
    rows = {name: {str(size): round(at.get(name, 0), 1) for size, at in figures.items()} for name in names}
    return {"all": {str(size): round(sum(at.values()), 1) for size, at in figures.items()}} | {
        name: row for name, row in rows.items() if max(row.values()) >= 1
    }
