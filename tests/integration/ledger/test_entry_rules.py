"""What Postgres itself refuses in the ledger, whoever asks and however: wrong hashes, links, gaps, forks, strays, rewinds."""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.errors import CheckViolation, ForeignKeyViolation, IntegrityConstraintViolation, UniqueViolation
from sqlalchemy import Engine

from ops.runtime.db import UNIQUE_VIOLATION, sqlstate, transaction
from pipeline.append import append, append_own
from pipeline.chain import entry_hash, envelope
from pipeline.dedupe import chain_key, fingerprint, identity
from pipeline.errors import ChainBroken
from pipeline.ledger.verifying.verify import verify
from pipeline.store.ledger.scan import Scope
from schemas.event import Event
from schemas.ledger.fault import Fault
from support.blobs import NO_BLOBS
from support.sessions import waits_for_lock
from support.waiting import wait_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = b"k" * 32
COLUMNS = "chain_id, seq, prev_hash, hash, tenant, at, kind, pc"


@dataclass(frozen=True)
class Row:
    """An entry's row; its hash is that of its columns unless another is given."""

    chain_id: UUID
    seq: int
    prev: bytes | None
    at: int = 1767225600000000
    tenant: str = "acme"
    kind: str = "event"
    pc: bytes | None = b"p" * 32
    other_hash: bytes | None = None

    @property
    def hash(self) -> bytes:
        sealed = envelope(self.chain_id.hex, self.seq, self.prev, self.tenant, self.at, self.kind, self.pc)
        return self.other_hash or entry_hash(sealed)

    @property
    def values(self) -> tuple:
        return (self.chain_id, self.seq, self.prev, self.hash, self.tenant, self.at, self.kind, self.pc)


def chain(length: int, chain_id: UUID | None = None) -> list[Row]:
    rows: list[Row] = []
    for seq in range(length):
        rows.append(Row(chain_id or (rows[0].chain_id if rows else uuid4()), seq, rows[-1].hash if rows else None))
    return rows


def following(row: Row, at: int = 1) -> Row:
    return Row(row.chain_id, row.seq + 1, row.hash, at)


def by_values(conn: psycopg.Connection, *rows: Row) -> None:
    places = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(rows))
    conn.execute(f"INSERT INTO entry ({COLUMNS}) VALUES {places}", [value for row in rows for value in row.values])


def by_copy(conn: psycopg.Connection, *rows: Row) -> None:
    with conn.cursor().copy(f"COPY entry ({COLUMNS}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row.values)


def by_select(conn: psycopg.Connection, *rows: Row) -> None:
    conn.execute("CREATE TEMP TABLE offered AS SELECT " + COLUMNS + " FROM entry LIMIT 0")
    conn.cursor().executemany("INSERT INTO offered VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", [row.values for row in rows])
    conn.execute(f"INSERT INTO entry ({COLUMNS}) SELECT * FROM offered")
    conn.execute("DROP TABLE offered")


def in_replica_mode(conn: psycopg.Connection, *rows: Row) -> None:
    conn.execute("SET LOCAL session_replication_role = replica")
    by_values(conn, *rows)


def by_two_statements(conn: psycopg.Connection, *rows: Row) -> None:
    by_values(conn, *rows[:1])
    if rows[1:]:
        by_values(conn, *rows[1:])


def in_one_query_twice(conn: psycopg.Connection, *rows: Row) -> None:
    """Two INSERTs of one query share one transition table."""
    place = "(%s, %s, %s, %s, %s, %s, %s, %s)"
    rest = ", ".join([place] * len(rows[1:]))
    first = f"INSERT INTO entry ({COLUMNS}) VALUES {place}"
    query = f"WITH first AS ({first}) INSERT INTO entry ({COLUMNS}) VALUES {rest}" if rest else first
    conn.execute(query, [value for row in rows for value in row.values])


WAYS = [by_values, by_copy, by_select, in_replica_mode, by_two_statements, in_one_query_twice]


@pytest.fixture
def owner(shared_database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shared_database.url) as conn:
        yield conn
        conn.rollback()


def refused(conn: psycopg.Connection, error: type[psycopg.Error], rule: str, insert: Callable[[], object]) -> None:
    conn.execute("SAVEPOINT before")
    with pytest.raises(error, match=rule):
        insert()
    conn.execute("ROLLBACK TO before")


@pytest.mark.parametrize("way", WAYS)
def test_a_right_link_is_accepted_and_every_wrong_one_a_gap_and_a_fork_are_refused(owner, way) -> None:
    rows, others = chain(3), chain(3)
    by_values(owner, *rows, *others)
    last = rows[-1]
    good = following(last)

    for wrong in (
        Row(last.chain_id, 3, b"x" * 32),  # no entry's hash
        Row(last.chain_id, 3, rows[1].hash),  # that of an earlier entry
        Row(last.chain_id, 3, others[-1].hash),  # that of another chain's entry
        Row(last.chain_id, 4, last.hash),  # a gap
        Row(last.chain_id, 4, good.hash),  # after an entry that is not there
        Row(uuid4(), 1, last.hash),  # a chain that begins with its second entry
        Row(last.chain_id, 3, b""),
        replace(following(good), chain_id=others[0].chain_id),
    ):
        refused(owner, ForeignKeyViolation, "entry_link", lambda wrong=wrong: way(owner, wrong))
        refused(owner, ForeignKeyViolation, "entry_link", lambda wrong=wrong: way(owner, *chain(2), wrong))
    for fork in (Row(last.chain_id, 2, rows[1].hash, at=2), Row(last.chain_id, 0, None, at=2)):
        refused(owner, UniqueViolation, "entry_pkey", lambda fork=fork: way(owner, fork))
    refused(owner, UniqueViolation, "entry_pkey", lambda: way(owner, good, replace(good, at=2)))
    refused(owner, CheckViolation, "entry_first", lambda: way(owner, Row(last.chain_id, 3, None)))
    refused(owner, CheckViolation, "entry_first", lambda: way(owner, Row(uuid4(), 0, last.hash)))

    way(owner, good, following(good), *chain(2))


def test_the_order_of_the_rows_of_one_statement_does_not_matter(owner) -> None:
    by_values(owner, *reversed(chain(5)))


def test_the_statement_trigger_refuses_exactly_what_the_foreign_key_refused(owner) -> None:
    owner.execute("""
        CREATE TEMP TABLE keyed (chain_id uuid, seq bigint, prev_hash bytea, hash bytea NOT NULL,
          prev_seq bigint GENERATED ALWAYS AS (CASE WHEN seq = 0 THEN NULL ELSE seq - 1 END) STORED,
          PRIMARY KEY (chain_id, seq), UNIQUE (chain_id, seq, hash), CHECK ((seq = 0) = (prev_hash IS NULL)),
          FOREIGN KEY (chain_id, prev_seq, prev_hash) REFERENCES keyed (chain_id, seq, hash))""")
    chance = random.Random(11)
    chains = [uuid4(), uuid4()]
    made: list[Row] = []
    verdicts: list[bool] = []
    for at in range(400):
        offered: list[Row] = []
        for _ in range(chance.randint(1, 3)):
            offered.append(likely_row(chance, chance.choice(chains), [*made, *offered], at))
        by_key = accepted(owner, partial(by_keyed, owner, offered))
        by_trigger = accepted(owner, partial(chance.choice(WAYS[:2]), owner, *offered))
        assert by_key == by_trigger, offered
        verdicts.append(by_trigger)
        made += offered if by_trigger else []
        if len(made) > 12:
            chains, made = [uuid4(), uuid4()], []

    assert 100 < sum(verdicts) < 300


def likely_row(chance: random.Random, chain_id: UUID, known: list[Row], at: int) -> Row:
    """A row that often, but not always, continues its chain."""
    here = {row.seq: row for row in known if row.chain_id == chain_id}
    seq = len(here) if chance.random() < 0.8 else chance.randint(0, 6)
    before = here.get(seq - 1) if chance.random() < 0.9 else chance.choice([None, *known])
    return Row(chain_id, seq, before.hash if before else None if seq == 0 else b"x" * 32, at)


def by_keyed(conn: psycopg.Connection, rows: list[Row]) -> None:
    places = ", ".join(["(%s, %s, %s, %s)"] * len(rows))
    values = [value for row in rows for value in row.values[:4]]
    conn.execute(f"INSERT INTO keyed (chain_id, seq, prev_hash, hash) VALUES {places}", values)


def accepted(conn: psycopg.Connection, insert: Callable[[], object]) -> bool:
    conn.execute("SAVEPOINT before")
    try:
        insert()
    except psycopg.IntegrityError:
        conn.execute("ROLLBACK TO before")
        return False
    return True


def test_an_entry_that_was_rolled_back_cannot_be_followed(owner) -> None:
    first, second = chain(2)
    by_values(owner, first)
    owner.execute("SAVEPOINT within")
    by_values(owner, second)
    owner.execute("ROLLBACK TO within")

    refused(owner, ForeignKeyViolation, "entry_link", lambda: by_values(owner, following(second)))


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ])
def test_two_transactions_cannot_make_a_fork_nor_follow_what_is_not_committed(shared_database, level) -> None:
    rows = chain(3)
    with psycopg.connect(shared_database.url) as one, psycopg.connect(shared_database.url) as other:
        one.isolation_level = other.isolation_level = level
        by_values(one, rows[0])
        one.commit()
        other.execute("SELECT count(*) FROM entry")  # takes the snapshot of REPEATABLE READ
        by_values(one, rows[1])
        refused(other, ForeignKeyViolation, "entry_link", lambda: by_values(other, rows[2]))
        outcome: list[BaseException | None] = []

        def fork() -> None:
            try:
                by_values(other, replace(rows[1], at=2))
                outcome.append(None)
            except psycopg.Error as error:
                outcome.append(error)

        racing = threading.Thread(target=fork)
        racing.start()
        wait_for(lambda: waits_for_lock(shared_database))
        one.commit()
        racing.join(30)
        assert UNIQUE_VIOLATION == sqlstate(outcome[0] or AssertionError("the fork was accepted"))
        other.rollback()

        by_values(other, rows[2])
        other.commit()

        by_values(one, following(rows[2]))  # rolled back: what waits for its place may have it
        racing = threading.Thread(target=lambda: by_values(other, following(rows[2], at=3)))
        racing.start()
        wait_for(lambda: waits_for_lock(shared_database))
        one.rollback()
        racing.join(30)
        other.commit()

    assert [(0,), (1,), (2,), (3,)] == shared_database.rows(
        "SELECT seq FROM entry WHERE chain_id = %s ORDER BY seq", rows[0].chain_id
    )


def test_what_a_transaction_began_without_is_not_followed_under_repeatable_read(shared_database) -> None:
    rows = chain(2)
    with psycopg.connect(shared_database.url) as late, psycopg.connect(shared_database.url) as other:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("SELECT count(*) FROM entry")
        by_values(other, rows[0])
        other.commit()

        refused(late, ForeignKeyViolation, "entry_link", lambda: by_values(late, rows[1]))


def test_a_temporary_table_does_not_stand_in_for_the_entries(shared_database) -> None:
    rows = chain(2)
    with psycopg.connect(shared_database.worker_url) as worker:
        worker.execute("CREATE TEMP TABLE entry AS SELECT * FROM public.entry LIMIT 0")
        by_values(worker, rows[0])  # into the temporary one
        with pytest.raises(ForeignKeyViolation, match="entry_link"):
            worker.execute(f"INSERT INTO public.entry ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", rows[1].values)


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("entry_hash", {"other_hash": b"h" * 32}),
        ("entry_hash", {"other_hash": b"h"}),
        ("entry_pc_check", {"pc": b"p" * 31}),
        ("entry_tenant_check", {"tenant": "Acme"}),
        ("entry_tenant_check", {"tenant": ""}),
        ("entry_tenant_check", {"tenant": "a" * 64}),
        ("entry_kind_check", {"kind": "Gift"}),
        ("entry_kind_check", {"kind": ""}),
        ("entry_kind_check", {"kind": "event "}),
        ("entry_at_check", {"at": 2**53}),
        ("entry_seq_check", {"seq": 2**53, "prev": b"x" * 32}),
        ("entry_seq_check", {"seq": -1, "prev": b"x" * 32}),
    ],
)
def test_no_column_holds_what_the_envelope_could_not_say_exactly(owner, rule, wrong) -> None:
    refused(owner, CheckViolation, rule, lambda: by_values(owner, replace(Row(uuid4(), 0, None), **wrong)))


def test_a_quote_or_backslash_in_a_name_is_refused_and_no_way_to_another_envelope(owner) -> None:
    for column in ("tenant", "kind"):
        for name in ('a"', "a\\", "a\\042", "é", "a\x01"):
            with pytest.raises((psycopg.DataError, psycopg.IntegrityError)):
                by_values(owner, replace(Row(uuid4(), 0, None), **{column: name}))
            owner.rollback()


def test_postgres_makes_the_very_bytes_that_python_makes(owner) -> None:
    chance = random.Random(7)
    rows = [
        Row(
            UUID(bytes=chance.randbytes(16)),
            chance.choice([0, 1, 9, 10, 2**31, 2**53 - 1]),
            chance.choice([None, chance.randbytes(32)]),
            chance.choice([0, -1, 1767225600123456, 2**53 - 1, -(2**53) + 1]),
            chance.choice(["a", "acme", "a-0", "0" * 63]),
            chance.choice(["event", "erasure", "heads"]),
            chance.choice([None, chance.randbytes(32)]),
        )
        for _ in range(200)
    ]
    for row in rows:
        arguments = (row.chain_id, row.seq, row.prev, row.tenant, row.at, row.kind, row.pc)
        (made,) = owner.execute("SELECT entry_envelope(%s, %s, %s, %s, %s, %s, %s)", arguments).fetchone()
        assert envelope(row.chain_id.hex, *arguments[1:]) == made


def test_the_check_of_the_hash_does_not_call_the_function_but_holds_its_expression(owner) -> None:
    plan = owner.execute(
        "EXPLAIN VERBOSE SELECT entry_envelope(chain_id, seq, prev_hash, tenant, at, kind, pc) FROM entry"
    ).fetchall()

    assert "entry_envelope" not in str(plan)


def test_the_link_is_looked_up_by_index_in_a_large_table_that_was_never_analysed(owner) -> None:
    owner.execute("SET LOCAL session_replication_role = origin")
    try:
        owner.execute("LOAD 'auto_explain'")
    except psycopg.errors.UndefinedFile:
        pytest.skip("this build of PostgreSQL lacks auto_explain")
    owner.execute("SET LOCAL auto_explain.log_min_duration = 0")
    owner.execute("SET LOCAL auto_explain.log_nested_statements = on")
    owner.execute("SET LOCAL client_min_messages = log")
    notices: list[str] = []
    owner.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    by_values(owner, *chain(1))  # plans the trigger's query while the table is small
    for _ in range(4):
        by_copy(owner, *chain(1500))
    notices.clear()
    rows = chain(300)
    by_copy(owner, *rows)
    owner.execute(
        "INSERT INTO content (chain_id, seq, attributes, body, salt, source, type, subject, time)"
        " SELECT chain_id, seq, '', '', pc, '', '', '', now() FROM entry WHERE chain_id = %s",
        [rows[0].chain_id],
    )

    nested = [notice for notice in notices if "FROM added" in notice]
    assert 2 == len(nested)
    assert all("entry_pkey" in plan and "Seq Scan" not in plan and "Hash" not in plan for plan in nested), nested


# What belongs to entries.


def content(conn: psycopg.Connection, chain_id: UUID, *seqs: int) -> None:
    conn.execute(
        "INSERT INTO content (chain_id, seq, attributes, body, salt, source, type, subject, time)"
        " SELECT %s, seq, '{}', '', %s, 's', 't', 'u', now() FROM unnest(%s) AS seq",
        (chain_id, b"s" * 32, list(seqs)),
    )


@pytest.mark.parametrize("role", ["origin", "replica"])
def test_content_is_refused_where_no_entry_is_or_where_the_entry_commits_to_none(owner, role) -> None:
    owner.execute(f"SET LOCAL session_replication_role = {role}")
    rows = chain(3)
    empty = Row(uuid4(), 0, None, pc=None)
    by_values(owner, *rows, empty)

    refused(owner, ForeignKeyViolation, "content_entry", lambda: content(owner, rows[0].chain_id, 0, 3))
    refused(owner, ForeignKeyViolation, "content_entry", lambda: content(owner, uuid4(), 0))
    refused(owner, ForeignKeyViolation, "content_entry", lambda: content(owner, empty.chain_id, 0))
    content(owner, rows[0].chain_id, 0, 1, 2)


@pytest.mark.parametrize("role", ["origin", "replica"])
def test_a_head_moves_forward_only(owner, role) -> None:
    owner.execute(f"SET LOCAL session_replication_role = {role}")
    key = uuid4()
    owner.execute("INSERT INTO chain (key, tenant, subject, chain_id) VALUES (%s, 'acme', 'x', gen_random_uuid())", [key])
    owner.execute("UPDATE chain SET seq = 4, hash = 'a' WHERE key = %s", [key])

    for change in ("seq = 3", "hash = 'b'", "seq = 4, hash = 'b'", "seq = -1, hash = NULL"):
        refused(
            owner,
            IntegrityConstraintViolation,
            "forward only",
            lambda change=change: owner.execute(f"UPDATE chain SET {change} WHERE key = %s", [key]),
        )
    owner.execute("UPDATE chain SET seq = 5, hash = 'b' WHERE key = %s", [key])
    owner.execute("UPDATE chain SET subject = 'y' WHERE key = %s", [key])


# Entries of our own.


def own(kind: str, subject: str, id_: str, key: bytes | None = None) -> Event:
    attributes = {"id": id_, "source": "waxseal", "type": f"waxseal.{kind}", "subject": subject, "specversion": "1.0"}
    attributes |= {"datacontenttype": "application/json", "time": "2026-01-01T00:00:00Z"}
    return Event("acme", attributes, b"{}", identity(KEY, attributes), key or chain_key(KEY, subject))


def outside(id_: str, subject: str = "order-1") -> Event:
    names = {"id": id_, "source": "shop", "type": "order.paid", "specversion": "1.0", "datacontenttype": "application/json"}
    attributes = {**names, "subject": subject, "time": "2026-01-01T00:00:00Z"}
    return Event("acme", attributes, b"{}", fingerprint(KEY, "shop", id_), chain_key(KEY, subject))


def test_an_entry_of_our_own_is_appended_to_a_chain_without_deliveries(shared_database, shared_engine: Engine) -> None:
    with transaction(shared_engine) as conn:
        append(conn, [outside("e-1")], {}, NOW)
        entry = append_own(conn, own("erasure", "0" * 32, "w-1", chain_key(KEY, "order-1")), "erasure", NOW)
        append(conn, [outside("e-2")], {}, NOW)

    kinds = shared_database.rows("SELECT kind, seq FROM entry WHERE chain_id = %s ORDER BY seq", entry.chain_id)
    head = shared_database.rows("SELECT subject, seq FROM chain WHERE chain_id = %s", entry.chain_id)
    told = shared_database.rows("SELECT type FROM content WHERE chain_id = %s AND seq = 1", entry.chain_id)
    assert [("event", 0), ("erasure", 1), ("event", 2)] == kinds
    assert [("order-1", 2)] == head
    assert [("waxseal.erasure",)] == told
    assert [(0,)] == shared_database.rows("SELECT count(*) FROM delivery")


def test_heads_and_origin_entries_open_their_chain_and_others_do_not(shared_database, shared_engine: Engine) -> None:
    for n in range(2):
        for kind in ("heads", "origin"):
            with transaction(shared_engine) as conn:
                assert n == append_own(conn, own(kind, f"waxseal.{kind}", f"{kind}-{n}"), kind, NOW).seq

    with pytest.raises(ChainBroken), transaction(shared_engine) as conn:
        append_own(conn, own("erasure", "0" * 32, "w-9", chain_key(KEY, "nowhere")), "erasure", NOW)
    with pytest.raises(ValueError, match="append"), transaction(shared_engine) as conn:
        append_own(conn, outside("e-9"), "event", NOW)
    with pytest.raises(psycopg.errors.UniqueViolation), transaction(shared_engine) as conn:
        append_own(conn, own("heads", "waxseal.heads", "heads-0"), "heads", NOW)

    faults: list[Fault] = []
    with shared_engine.connect() as conn:
        verify(conn, Scope("acme", "waxseal.heads"), {"acme": KEY}, NO_BLOBS.get, faults.append)
    assert {"envelope"} >= {fault.kind for fault in faults}  # it does not know the kinds yet
