"""What is no part of the ledger is kept as long as the settings say: nothing goes that is needed, whoever acts beside."""

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from random import Random

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine

from ops.admin.erasure import keeping
from ops.admin.erasure.keeping import Keeping, remove, remove_old
from ops.admin.search.indexing import Indexer
from ops.runtime.blobs import Blobs
from ops.runtime.db import make_engine, transaction
from ops.settings import Settings
from pipeline.store.admin import verifications
from pipeline.store.dead_letters import decisions
from pipeline.store.deliveries import settling
from pipeline.store.search import delivery_pages
from schemas.delivery import Receipt, Settlement
from support.cli import Cli
from support.deliveries import claimed, event, record
from support.pages import PAGES
from support.waiting import wait_for
from workers.eraser.worker import erase_due

DAY = timedelta(days=1)
LONG = timedelta(days=40)
KEPT = Keeping(deliveries=30 * DAY)


@pytest.fixture(autouse=True)
def _configured(database) -> None:
    database.run(
        "DO $$ DECLARE name text; BEGIN"
        " FOR name IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^attempt_[0-9]{8}$'"
        " LOOP EXECUTE 'DROP TABLE ' || name; END LOOP; END $$"
    )
    database.add_tenant()
    database.add_endpoint("billing", "http://127.0.0.1:1/")


def delivered(engine: Engine, database, count: int, ago: timedelta = LONG, first: int = 0) -> list[int]:
    """So many deliveries that were recorded, tried once and delivered so long ago."""
    then = datetime.now(UTC) - ago
    database.rows("SELECT make_attempt_partitions(%s, 1)", then.date())
    record(engine, [event(f"e-{first + n}", f"order-{n % 7}") for n in range(count)], now=then)
    return settled(engine, then, count)


def settled(engine: Engine, then: datetime, count: int) -> list[int]:
    lease, found = claimed(engine, count, now=then)
    tried = [(lease, Settlement(each.id, 1, "delivered", Receipt(then, 0.1, 204), None)) for each in found]
    with transaction(engine) as conn:
        return sorted(settling.settle(conn, tried, then))


def states(database) -> dict[str, int]:
    return dict(database.rows("SELECT state, count(*)::int FROM delivery GROUP BY 1"))


def run(eraser: Engine, kept: Keeping = KEPT) -> dict[str, int]:
    found: dict[str, int] = {}
    for what, count in remove_old(eraser, kept, datetime.now(UTC)):
        found[what] = found.get(what, 0) + count
    return found


def past(database) -> list[tuple]:
    return database.rows("SELECT endpoint_id, day, state, n::int FROM past_delivery ORDER BY 1, 2, 3")


def metric(name: str, what: str) -> float:
    return REGISTRY.get_sample_value(name, {"what": what}) or 0.0


def test_nothing_is_removed_unless_a_setting_says_so(engine, eraser, database) -> None:
    delivered(engine, database, 3, timedelta(days=4000))

    assert {} == run(eraser, keeping.keeping(Settings()))
    assert {"delivered": 3} == states(database)


def test_old_deliveries_go_with_their_attempts_and_are_counted_by_day(engine, eraser, database) -> None:
    delivered(engine, database, 5)
    young = delivered(engine, database, 2, 3 * DAY, first=100)

    assert {"attempts": 1, "deliveries": 5} == run(eraser)
    assert young == [id_ for (id_,) in database.rows("SELECT id FROM delivery ORDER BY 1")]
    assert [(1, (datetime.now(UTC) - LONG).date(), "delivered", 5)] == past(database)
    assert [(2,)] == database.rows("SELECT count(*)::int FROM attempt")
    assert [(7,)] == database.rows("SELECT count(*)::int FROM entry")
    assert {} == {what: n for what, n in run(eraser).items() if n}


def test_what_may_still_be_tried_or_is_referred_to_stays(engine, eraser, database) -> None:
    ids = delivered(engine, database, 8)
    then = datetime.now(UTC) - LONG
    database.run("UPDATE delivery SET state = 'dead' WHERE id = %s", ids[0])
    for id_, state in ((ids[1], "pending"), (ids[2], "paused")):
        database.run(
            "UPDATE delivery SET state = %s, settled_at = NULL, next_attempt_at = CASE WHEN %s = 'pending' THEN now() END"
            " WHERE id = %s",
            state,
            state,
            id_,
        )
    database.run("UPDATE delivery SET state = 'discarded' WHERE id = ANY(%s)", ids[3:6])
    for id_, state in ((ids[3], "open"), (ids[4], "discarded")):
        decided = None if state == "open" else then
        database.run(
            "INSERT INTO dead_letter (stage, reason, detail, tenant, endpoint_id, delivery_id, first_at, last_at, state,"
            " decided_at, decided_by) VALUES ('deliver', 'gone', '', 'acme', 1, %s, now(), now(), %s, %s, %s)",
            id_,
            state,
            decided,
            decided and "ann",
        )

    assert 3 == run(eraser)["deliveries"]
    assert sorted(ids[:5]) == [id_ for (id_,) in database.rows("SELECT id FROM delivery ORDER BY 1")]
    assert ["delivered", "discarded"] == [state for _, _, state, _ in past(database)]

    # The closed letter goes by its own setting, and then its delivery.
    assert {"dead_letters": 1, "deliveries": 1} == run(eraser, Keeping(deliveries=30 * DAY, dead_letters=30 * DAY))


def test_a_delivery_stays_while_an_attempt_of_its_day_may_be_there(engine, eraser, database) -> None:
    delivered(engine, database, 2)
    old = datetime.now(UTC) - 30 * DAY

    assert [0] == list(remove(eraser, "deliveries", old))  # an erasure would not find what the endpoint answered
    assert [1] == list(remove(eraser, "attempts", old))
    assert [2] == list(remove(eraser, "deliveries", old))


def test_an_event_that_comes_again_is_not_delivered_again(engine, eraser, database) -> None:
    delivered(engine, database, 3)
    assert 3 == run(eraser)["deliveries"]
    record(engine, [event(f"e-{n}", f"order-{n}") for n in range(3)])

    assert {} == states(database)


def test_the_clock_must_be_trusted_before_anything_is_removed(engine, eraser, database, settings, tmp_path) -> None:
    delivered(engine, database, 3)
    policy = settings.model_copy(update={"keep_deliveries": "30d"})
    blobs = Blobs(str(tmp_path / "blobs"))

    def turn() -> dict[str, int]:
        erase_due(eraser, policy, blobs, lambda: False)
        return states(database)

    database.run("DELETE FROM retention_run")
    assert {"delivered": 3} == turn()  # the first run only notes the time
    database.run("UPDATE retention_run SET ran_at = now() + interval '1 day'")
    assert {"delivered": 3} == turn()
    database.run("UPDATE retention_run SET ran_at = now() - interval '1 hour', held = NULL")
    removed = metric("waxseal_removed_total", "deliveries")
    assert metric("waxseal_kept_since_timestamp_seconds", "deliveries") < time.time() - 30 * 86400
    assert {} == turn()

    assert 3 == metric("waxseal_removed_total", "deliveries") - removed
    assert metric("waxseal_kept_since_timestamp_seconds", "deliveries") > time.time() - 60  # there are none


def test_workers_cannot_remove_and_the_eraser_nothing_of_today(engine, eraser, database) -> None:
    delivered(engine, database, 1)
    removing = ("remove_deliveries(now(), 0, 10)", "drop_attempts(now())", "remove_told('audit', now(), 10)")
    for statement in (*removing, "remove_mail_items(now(), 1)"):
        with pytest.raises(Exception, match="permission denied"), transaction(engine) as conn:
            conn.connection.driver_connection.execute(f"SELECT {statement}")
        with pytest.raises(Exception, match="less than a day old"), transaction(eraser) as conn:
            conn.connection.driver_connection.execute(f"SELECT {statement}")
    with pytest.raises(Exception, match="permission denied"), transaction(eraser) as conn:
        conn.connection.driver_connection.execute("DELETE FROM delivery")

    assert {"delivered": 1} == states(database)


def test_the_consoles_index_forgets_what_is_removed_and_copies_nothing_of_it_later(engine, eraser, database) -> None:
    delivered(engine, database, 4)
    console = make_engine(database.console_url, pool_size=1)
    indexer = Indexer(console)
    wait_for(lambda: indexer.turn() is not None and database.rows("SELECT count(*)::int FROM delivery_search") == [(4,)])
    young = delivered(engine, database, 2, 3 * DAY, first=100)
    assert 4 == run(eraser)["deliveries"]
    wait_for(lambda: indexer.turn() is not None and database.rows("SELECT count(*)::int FROM delivery_search") == [(2,)])
    with transaction(console) as conn:
        page = delivery_pages.page(conn, [1], None, {"before": 2**62}, 50)
    console.dispose()

    assert sorted(young, reverse=True) == [id_ for id_, _ in page.ids]


def test_beside_recording_settling_and_replaying_every_old_delivery_is_removed_once(
    engine, eraser, database, monkeypatch
) -> None:
    """Two erasers at once, in small batches, while events are recorded and delivered, and old dead deliveries are replayed."""
    monkeypatch.setattr(keeping, "BATCH", 7)
    dead = delivered(engine, database, 320)[::16]
    database.run("UPDATE delivery SET state = 'dead' WHERE id = ANY(%s)", dead)
    database.rows("SELECT make_attempt_partitions(%s, 2)", (datetime.now(UTC) - DAY).date())
    other = make_engine(database.eraser_url, pool_size=1)
    counts: list[int] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def erasing(of: Engine) -> None:
        try:
            counts.append(run(of).get("deliveries", 0))
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    def delivering() -> None:
        number = 1000
        try:
            while not done.is_set():
                with transaction(engine) as conn:
                    decisions.revive(conn, dead[number % 20 : number % 20 + 1], datetime.now(UTC))
                record(engine, [event(f"e-{number + n}", f"order-{n % 7}") for n in range(10)])
                settled(engine, datetime.now(UTC), 10)
                number += 11
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    erasers = [threading.Thread(target=erasing, args=(each,)) for each in (eraser, other)]
    worker = threading.Thread(target=delivering)
    worker.start()
    for each in erasers:
        each.start()
    for each in erasers:
        each.join()
    done.set()
    worker.join()
    other.dispose()

    assert [] == failures
    assert 300 == sum(counts)
    assert [300] == [n for *_, n in past(database)]
    old = "SELECT array_agg(id ORDER BY id) FROM delivery WHERE created_at < now() - interval '30 days'"
    assert [(dead,)] == database.rows(old)
    made, left = database.rows("SELECT (SELECT count(*) FROM entry)::int, (SELECT count(*) FROM delivery)::int")[0]
    assert made == left + 300


def test_a_batch_that_is_killed_removes_and_counts_nothing(engine, eraser, database) -> None:
    delivered(engine, database, 3)
    database.run("DROP TABLE attempt_" + f"{datetime.now(UTC) - LONG:%Y%m%d}")
    before = datetime.now(UTC) - 30 * DAY
    conn = psycopg.connect(database.eraser_url)
    assert (3,) == conn.execute("SELECT removed FROM remove_deliveries(%s, 0, 100)", [before]).fetchone()
    database.run("SELECT pg_terminate_backend(%s)", conn.info.backend_pid)
    with pytest.raises(psycopg.OperationalError, match="terminating"):
        conn.execute("SELECT 1")
    conn.close()

    assert ({"delivered": 3}, []) == (states(database), past(database))
    assert 3 == run(eraser)["deliveries"]


def test_what_an_erasure_has_locked_is_left_for_the_next_run(engine, eraser, database) -> None:
    ids = delivered(engine, database, 3)
    with psycopg.connect(database.url) as conn:
        conn.execute("SELECT FROM delivery WHERE id = %s FOR UPDATE", [ids[1]])
        assert 2 == run(eraser)["deliveries"]
    assert 1 == run(eraser)["deliveries"]


def test_attempts_in_use_keep_nobody_waiting_long_and_go_later(engine, eraser, database, monkeypatch) -> None:
    monkeypatch.setattr(keeping, "BETWEEN", 0.0)
    delivered(engine, database, 1)
    before = datetime.now(UTC) - 30 * DAY
    with psycopg.connect(database.url) as reader:
        reader.execute("SELECT count(*) FROM attempt")
        assert [] == list(remove(eraser, "attempts", before))
    assert [1] == list(remove(eraser, "attempts", before))


def test_notices_and_acts_go_by_their_own_settings(engine, eraser, database) -> None:
    for days, endpoint in ((400, None), (400, 1), (40, 1), (3, 1)):
        database.run(
            "INSERT INTO operator_event (at, kind, tenant, endpoint_id, detail)"
            " VALUES (now() - %s * interval '1 day', 'breaker_opened', 'acme', %s, '')",
            days,
            endpoint,
        )
    database.run("DELETE FROM audit")
    acts = (
        "INSERT INTO audit (at, who, act, filter, count, phase, begun)"
        " VALUES (now() - %s * interval '1 day', 'a', 'b', '{}', 1, %s, %s) RETURNING id"
    )
    for began, ended in ((400, 399), (400, 3), (3, 2)):
        [(begun,)] = database.rows(acts, began, "begun", None)
        database.rows(acts, ended, "done", begun)

    assert {"operator_events": 2, "audit": 2} == run(eraser, Keeping(operator_events=100 * DAY, audit=100 * DAY))
    assert 4 == database.rows("SELECT count(*)::int FROM audit")[0][0]
    assert {"endpoint_events": 1} == {what: n for what, n in run(eraser).items() if n}


def test_prune_forgets_mails_that_were_imported_long_ago(cli: Cli, database) -> None:
    database.add_source("support", "imap")
    database.run("INSERT INTO mailbox (id, settings, credentials) SELECT id, '{}', '' FROM source")
    database.run(
        "INSERT INTO mail_item (mailbox_id, source_key, folder, size, internal_date, event_id, seen_at, listed_at)"
        " SELECT id, 'import/' || days, 'import', 1, now(), 'x', now(), now() - days * interval '1 day'"
        " FROM mailbox, unnest(ARRAY[3, 40, 400]) AS days"
    )
    asked = ("prune", "--mail-items-older-than", "30d")
    assert [{"old_mail_items": 2}] == cli.owner.json(*asked)

    assert [{"old_mail_items": 2}, {"removed_mail_items": 2}] == cli.owner.json(*asked, "--yes")
    assert [("import/3",)] == database.rows("SELECT source_key FROM mail_item")
    assert [("prune mail items", 2)] == database.rows("SELECT act, count::int FROM audit WHERE phase = 'done' AND act ~ 'mail'")


def test_prune_shows_first_and_removes_by_hand_with_an_act(engine, cli: Cli, database) -> None:
    delivered(engine, database, 3)
    asked = ("prune", "--attempts-older-than", "30d", "--deliveries-older-than", "30d")
    shown = cli.owner.json(*asked)
    assert {"old_deliveries": 0} == shown[-1]  # their attempts are there
    assert {"delivered": 3} == states(database)

    assert [{"old_deliveries": 3}, {"removed_deliveries": 3}] == cli.owner.json(*asked, "--yes")[-2:]
    assert {} == states(database)
    status = cli.json("status", "--over", "0")[0]
    assert ({}, {"delivered": 3}) == (status["deliveries"], status["deliveries_removed"])
    assert [("prune deliveries", 3)] == database.rows(
        "SELECT act, count::int FROM audit WHERE phase = 'done' AND act ~ 'deliv'"
    )


def test_a_page_reads_no_more_than_its_own_rows(engine, eraser, database) -> None:
    """A hundred of 20,000 deliveries; with a plan of before there were dead letters, of which it must not read all for each."""
    delivered(engine, database, 20)
    database.run("DROP TABLE attempt_" + f"{datetime.now(UTC) - LONG:%Y%m%d}")
    database.run(
        "INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, settled_at)"
        " SELECT 1, 'acme', md5(n::text)::uuid, 0, 1, 'delivered', now() - interval '40 days', now() - interval '40 days'"
        " FROM generate_series(1, 20000) n"
    )
    page = "SELECT * FROM remove_deliveries(now() - interval '30 days', 0, 100)"
    with database.connect() as conn:
        conn.execute(page)
        conn.execute(
            "INSERT INTO dead_letter (stage, reason, detail, delivery_id, first_at, last_at)"
            " SELECT 'deliver', 'gone', '', n, now(), now() FROM generate_series(1000000, 1005000) n"
        )
        plan = "\n".join(line for (line,) in conn.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {page}"))

    assert int(plan.split("shared hit=")[1].split()[0]) < 4000


def test_verifications_go_and_what_the_ledger_was_last_found_to_be_stays(cli, eraser, database) -> None:
    """Beside a copy from which none was removed, whatever was found of whichever part."""
    database.run("DELETE FROM verification")
    database.run("CREATE TABLE kept_whole (LIKE verification)")
    whole = verifications.LAST.text.replace("verification", "kept_whole"), verifications.LAST_SLICE.text
    random, removed = Random(5), 0
    for n in range(160):
        part = random.choices(["new", "slice", "whole"], [6, 3, 0.3 if n > 40 else 0])[0]
        cut = (random.randrange(3), 3) if part == "slice" else (None, None)
        [row] = database.rows(
            "INSERT INTO verification (began_at, ended_at, entries, chains, faults, part, read, slice, parts)"
            " SELECT at, at, %s, 1, %s, %s, 1, %s, %s FROM (SELECT now() - %s * interval '1 hour' AS at) AS ended RETURNING id",
            *(n, int(random.random() < 0.1), part, *cut, 4000 - n),
        )
        database.run("INSERT INTO kept_whole SELECT * FROM verification WHERE id = %s", row[0])
        if random.random() < 0.3:
            removed += run(eraser, Keeping(verifications=30 * DAY)).get("verifications", 0)
        for statement in (whole[0], whole[1].replace("verification", "kept_whole")):
            assert database.rows(statement) == database.rows(statement.replace("kept_whole", "verification"))

    assert 100 < removed < 160
    assert [] == database.rows("SELECT id FROM kept_whole WHERE faults > 0 EXCEPT SELECT id FROM verification")
    assert 160 - removed == database.rows("SELECT count(*)::int FROM verification")[0][0]
    database.run("DROP TABLE kept_whole")


def test_verifications_of_these_days_stay(cli, eraser, database) -> None:
    database.run("DELETE FROM verification")
    for days_ago in (40, 20, 10):
        database.run(
            "INSERT INTO verification (began_at, ended_at, entries, chains, faults)"
            f" SELECT at, at, 1, 1, 0 FROM (SELECT now() - interval '{days_ago} days' AS at) AS ended"
        )

    assert {"verifications": 1} == run(eraser, Keeping(verifications=30 * DAY))
    assert 2 == database.rows("SELECT count(*)::int FROM verification")[0][0]


def test_the_page_says_of_each_table_what_bounds_it(database) -> None:
    """And of none twice."""
    (table,) = (part for part in PAGES["ops/docs/growth.md"].split("\n\n") if part.startswith("| what bounds it | tables |"))
    told = [name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", line.split("|")[2])]
    kept = "relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname !~ '^attempt_'"

    assert sorted(told) == [name for (name,) in database.rows(f"SELECT relname::text FROM pg_class WHERE {kept} ORDER BY 1")]
