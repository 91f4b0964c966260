"""Fills a migrated database set by set: the rows satisfy every CHECK and trigger of the ledger, links and hashes included.

A set is one entry of each of many chains, after the one before. What is not made: salts and commitments that verification
could check, and roots of the logs.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, text

from ops.runtime.db import transaction

LONG: Final = 20  # entries of each chain
DAYS: Final = 30  # over which the events have arrived
CHUNK: Final = 100_000  # rows in one statement
RARE: Final = 2000  # events of the one rare type are so many apart, and all old

# The c-th chain's s-th entry is event number n of its tenant; every number has its time.
_EVENTS: Final = """
    FROM generate_series(CAST(:first AS bigint), :end - 1) AS c
    CROSS JOIN LATERAL (SELECT CAST(md5(:tenant || c) AS uuid) AS chain_id, :seq * CAST(:chains AS bigint) + c AS n) AS each
    CROSS JOIN LATERAL (SELECT :began + CAST(n * :step AS bigint) AS at,
      CASE WHEN n % :rare = 7 AND n * 2 < CAST(:chains AS bigint) * :long THEN 'audit.rare'
           ELSE (ARRAY['order', 'invoice', 'user', 'ship'])[1 + n % 4] || '.'
             || (ARRAY['made', 'paid', 'sent', 'gone', 'seen', 'kept'])[1 + n / 4 % 6] END AS type,
      (ARRAY['shop', 'till', 'api'])[1 + n % 3] AS source, 'evt_' || left(md5(:tenant || n), 16) AS id) AS told"""

ENTRIES = text(f"""
    INSERT INTO entry (chain_id, seq, at, fingerprint, prev_hash, hash, pc, tenant, kind)
    SELECT made.chain_id, :seq, made.at, made.fingerprint, made.prev,
      sha256('\\x00'::bytea || entry_envelope(made.chain_id, :seq, made.prev, :tenant, made.at, 'event', made.pc)),
      made.pc, :tenant, 'event'
    FROM (
      SELECT each.chain_id, told.at, CAST(md5(told.id || :tenant) AS uuid) AS fingerprint, before.hash AS prev,
        sha256(CAST(told.id AS bytea)) AS pc
      {_EVENTS} LEFT JOIN entry AS before ON before.chain_id = each.chain_id AND before.seq = :seq - 1 OFFSET 0) AS made""")  # noqa: S608

CONTENT = text(f"""
    INSERT INTO content (chain_id, seq, attributes, body, salt, source, type, subject, time)
    SELECT each.chain_id, :seq, convert_to('{{"datacontenttype":"application/json","id":"' || id || '","source":"' || source
        || '","specversion":"1.0","subject":"order-' || c || '","time":"2026-01-01T12:00:00Z","type":"' || type || '"}}',
        'UTF8'),
      convert_to('{{"order":' || c || ',"amount":"12.50"}}', 'UTF8'),
      sha256(CAST(id AS bytea)), source, type, 'order-' || c, '2026-01-01T12:00:00Z' {_EVENTS}""")

# Most are delivered; the last set, which is the newest, has some of each other state.
DELIVERIES = text(f"""
    INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, attempts, created_at, next_attempt_at, settled_at)
    SELECT (CAST(:endpoints AS int[]))[1 + n % cardinality(CAST(:endpoints AS int[]))], :tenant, chain_id, :seq, 60, state, 1,
      arrived, CASE WHEN state = 'pending' THEN arrived + interval '30 days' END,
      CASE WHEN state IN ('delivered', 'dead', 'discarded') THEN arrived END
    {_EVENTS} CROSS JOIN LATERAL (
      SELECT timestamptz 'epoch' + at * interval '1 microsecond' AS arrived,
        CASE WHEN n % 200 = 3 THEN 'dead' WHEN n % 1000 = 4 THEN 'paused' WHEN n % 1000 = 5 THEN 'discarded'
             WHEN :seq = :long - 1 AND n % 50 = 6 THEN 'pending' ELSE 'delivered' END AS state) AS now""")

LEAVES = text("""
    INSERT INTO leaf (log_id, position, chain_id, seq)
    SELECT :log, :seq * CAST(:chains AS bigint) + c, CAST(md5(:tenant || c) AS uuid), :seq
    FROM generate_series(CAST(:first AS bigint), :end - 1) AS c""")
GROW = text("""
    UPDATE log SET size = :size, frontier = decode(repeat('00', CAST(32 * bit_count(int8send(:size)) AS int)), 'hex')
    WHERE id = :log""")

CHAINS = text("""
    INSERT INTO chain (key, tenant, subject, chain_id, seq, hash)
    SELECT CAST(md5('key' || :tenant || c) AS uuid), :tenant, 'order-' || c, entry.chain_id, entry.seq, entry.hash
    FROM generate_series(CAST(:first AS bigint), :end - 1) AS c
    JOIN entry ON entry.chain_id = CAST(md5(:tenant || c) AS uuid) AND entry.seq = :long - 1""")

ATTEMPTS = text("""
    INSERT INTO attempt (delivery_id, n, started_at, seconds, outcome, status, error)
    SELECT id, 1, created_at, 0.01 + id % 100 * 0.001, CASE state WHEN 'delivered' THEN 'delivered' ELSE 'dead' END,
      CASE state WHEN 'delivered' THEN 204 END, CASE WHEN state <> 'delivered' THEN 'timeout' END
    FROM delivery WHERE id >= :first AND id < :end AND state IN ('delivered', 'dead')""")
DEAD_LETTERS = text("""
    INSERT INTO dead_letter (stage, reason, detail, tenant, endpoint_id, delivery_id, first_at, last_at)
    SELECT 'deliver', (ARRAY['exhausted', 'gone', 'refused'])[1 + id % 3], 'timeout', tenant, endpoint_id, id, created_at,
      created_at
    FROM delivery WHERE state = 'dead'""")

PREPARE = (
    *(f"ALTER TABLE {table} SET (autovacuum_enabled = off)" for table in ("entry", "content", "delivery", "leaf", "chain")),
    "ALTER TABLE entry DISABLE TRIGGER pending",  # the positions are given here
    f"SELECT make_attempt_partitions((now() AT TIME ZONE 'UTC')::date - {DAYS}, 32)",
)
SETTLE = (
    "ALTER TABLE entry ENABLE ALWAYS TRIGGER pending",
    *(f"ALTER TABLE {table} RESET (autovacuum_enabled)" for table in ("entry", "content", "delivery", "leaf", "chain")),
    "VACUUM (ANALYZE) entry, content, delivery, leaf, chain, attempt, dead_letter",
)

NEW_LOG = text("INSERT INTO log (tenant) VALUES (:tenant) RETURNING id")
BEGAN = text(f"SELECT CAST(extract(epoch FROM now() - interval '{DAYS} days') * 1000000 AS bigint)")  # noqa: S608
ENDPOINTS = text("""
    SELECT endpoint.id FROM endpoint JOIN tenant ON tenant.id = tenant_id WHERE tenant.name = :tenant ORDER BY 1""")
LAST_DELIVERY = text("SELECT max(id) FROM delivery")


@dataclass(frozen=True, slots=True)
class Filling:
    """A tenant that is configured, and how many chains of `LONG` entries it gets."""

    tenant: str
    chains: int


def fill(engine: Engine, tenants: list[Filling], tell: Callable[[str], None]) -> None:
    """Fills the database with the tenants' events, two tenants at a time. `engine` is its owner's."""
    _maintain(engine, PREPARE)
    stop = threading.Event()  # at Ctrl-C, the threads end with their statements

    def told(line: str) -> None:
        if stop.is_set():
            raise InterruptedError
        tell(line)

    with ThreadPoolExecutor(2) as pool:
        try:
            list(pool.map(lambda each: _tenant(engine, each, told), tenants))
        except BaseException:
            stop.set()
            raise
        with transaction(engine) as conn:
            last = conn.execute(LAST_DELIVERY).scalar_one()
        ranges = [{"first": first, "end": first + CHUNK} for first in range(0, last + 1, CHUNK)]
        list(pool.map(lambda given: _run(engine, (ATTEMPTS, given)), ranges))
    _run(engine, (DEAD_LETTERS, {}))
    tell("filled")
    _maintain(engine, SETTLE)


def _tenant(engine: Engine, filling: Filling, tell: Callable[[str], None]) -> None:
    with transaction(engine) as conn:
        log = conn.execute(NEW_LOG, {"tenant": filling.tenant}).scalar_one()
        endpoints = list(conn.execute(ENDPOINTS, {"tenant": filling.tenant}).scalars())
        began = conn.execute(BEGAN).scalar_one()
    step = DAYS * 86_400_000_000 / (filling.chains * LONG)
    told = {"tenant": filling.tenant, "chains": filling.chains, "long": LONG, "log": log, "endpoints": endpoints}
    told |= {"began": began, "step": step, "rare": RARE}
    for seq in range(LONG):
        for first in range(0, filling.chains, CHUNK):
            end = min(first + CHUNK, filling.chains)
            given = {**told, "seq": seq, "first": first, "end": end, "size": seq * filling.chains + end}
            _run(engine, *((each, given) for each in (ENTRIES, CONTENT, DELIVERIES, LEAVES, GROW)))
        tell(f"{filling.tenant}: {(seq + 1) * filling.chains} events")
    for first in range(0, filling.chains, CHUNK):
        _run(engine, (CHAINS, {**told, "first": first, "end": min(first + CHUNK, filling.chains)}))


def _run(engine: Engine, *statements: tuple[Any, dict[str, Any]]) -> None:
    with transaction(engine) as conn:
        for statement, given in statements:
            conn.execute(statement, {name: given[name] for name in statement.compile().params})


def _maintain(engine: Engine, statements: tuple[str, ...]) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for statement in statements:
            conn.execute(text(statement))
