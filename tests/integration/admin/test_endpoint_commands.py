"""`waxseal endpoint`: the state of endpoints, and operators' acts on them."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from ops.runtime.db import transaction
from pipeline.store.deliveries import notify
from support.deliveries import claimed, event, record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BREAKER = "SELECT breaker, forced, probe_at IS NULL FROM endpoint_health"


@pytest.fixture(autouse=True)
def _endpoints(database) -> None:
    database.add_tenant()
    database.add_tenant("beta")
    database.add_endpoint("billing", "http://127.0.0.1/", rate_limit=5.0, max_in_flight=3, ordered=True)
    database.add_endpoint("audit", "http://127.0.0.1/")
    database.add_endpoint("only", "http://127.0.0.1/", tenant="beta")


def acts(database) -> list[tuple]:
    return database.rows("SELECT who, act, filter ->> 'endpoint', count, phase FROM audit ORDER BY id")


def test_a_list_shows_state_breaker_and_backlog(database, engine: Engine, cli) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(3)], [1], NOW)
    record(engine, [event(f"later-{n}", "s-9") for n in range(2)], [1], datetime.now(UTC) + timedelta(hours=1), ordered=True)
    record(engine, [event("missed")], [1], NOW, state="disabled")
    claimed(engine, 1, NOW)

    [audit, billing, only] = cli.json("endpoint", "list")

    assert [("acme", "audit"), ("acme", "billing"), ("beta", "only")] == [
        (each["tenant"], each["name"]) for each in (audit, billing, only)
    ]
    assert (4, 2, 1, 1, 1) == tuple(billing[name] for name in ("pending", "overdue", "waiting", "leased", "paused"))
    assert "2026-01-01T00:00:00.000000Z" == billing["oldest_due"]
    assert (5.0, 3, True) == tuple(billing[name] for name in ("rate_limit", "max_in_flight", "ordered"))
    assert ("closed", False, 0, None) == tuple(audit[name] for name in ("breaker", "forced", "trips", "oldest_due"))
    assert (None, 20, False) == tuple(audit[name] for name in ("rate_limit", "max_in_flight", "ordered"))
    assert [only] == cli.json("endpoint", "list", "beta")


def test_a_table_is_there_for_people(cli) -> None:
    ended = cli.run("endpoint", "list", "beta")

    assert 0 == ended.exit_code
    head, row = ended.stdout.splitlines()
    assert head.startswith("tenant\tname\tstate\tbreaker")
    assert row.startswith("beta\tonly\tactive\tclosed\t")


def test_one_is_shown_with_its_whole_health(database, engine, cli) -> None:
    cli.run("endpoint", "open-breaker", "acme", "billing")

    [shown] = cli.json("endpoint", "show", "acme", "billing")

    assert ("active", "open", True, None) == tuple(shown[name] for name in ("state", "breaker", "forced", "probe_at"))
    assert shown["opened_at"]
    assert cli.run("endpoint", "show", "acme", "billing").stdout.startswith("tenant")


def test_forcing_a_breaker_open_stops_it_closing_lets_everything_through_and_releasing_leaves_it_to_itself(
    database, engine, cli
) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(20)], [2], NOW)

    [told] = cli.json("endpoint", "open-breaker", "acme", "audit", "--by", "ada")
    assert {"tenant": "acme", "endpoint": "audit", "changed": True} == told
    assert [("open", True, True)] == database.rows(BREAKER)
    assert [] == claimed(engine)[1]

    cli.json("endpoint", "release", "acme", "audit", "--by", "ada")
    assert [("open", False, False)] == database.rows(BREAKER)
    assert 1 == len(claimed(engine)[1]), "a probe"

    cli.json("endpoint", "close-breaker", "acme", "audit", "--by", "bob")
    assert [("closed", True, True)] == database.rows(BREAKER)
    assert 19 == len(claimed(engine)[1])

    assert [
        ("ada", "endpoint open-breaker", "audit", 1, "done"),
        ("ada", "endpoint release", "audit", 1, "done"),
        ("bob", "endpoint close-breaker", "audit", 1, "done"),
    ] == acts(database)
    assert [("breaker_opened", "forced by ada"), ("breaker_closed", "forced by bob")] == database.rows(
        "SELECT kind, detail FROM operator_event ORDER BY id"
    )


def test_an_act_that_changes_nothing_is_said_and_not_noted(database, cli) -> None:
    for act, said in {
        "enable": "was not disabled",
        "release": "was not forced",
    }.items():
        ended = cli.run("endpoint", act, "acme", "audit")
        assert (0, f"acme/audit {said}\n") == (ended.exit_code, ended.stdout)
    cli.run("endpoint", "open-breaker", "acme", "audit")
    assert "acme/audit was forced open before\n" == cli.run("endpoint", "open-breaker", "acme", "audit").stdout
    assert 1 == len(acts(database))


def test_a_relay_hears_of_a_breaker_that_was_forced(engine, cli) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as listener:
        notify.listen(listener)

        cli.run("endpoint", "close-breaker", "acme", "audit")

        assert {2} == notify.received(listener, 5)
        listener.invalidate()


def test_disabling_by_hand_says_why_and_stops_claims(database, engine, cli) -> None:
    record(engine, [event("e-1")], [2], NOW)

    ended = cli.run("endpoint", "disable", "acme", "audit", "--reason", "they migrate", "--by", "ada")

    assert (0, "acme/audit disabled\n") == (ended.exit_code, ended.stdout)
    assert [("disabled", "they migrate")] == database.rows("SELECT state, reason FROM endpoint WHERE id = 2")
    assert [] == claimed(engine)[1]
    assert [("endpoint_disabled", "by ada: they migrate")] == database.rows("SELECT kind, detail FROM operator_event")
    assert "acme/audit was not active\n" == cli.run("endpoint", "disable", "acme", "audit").stdout


@pytest.mark.parametrize("act", ["show", "enable", "disable", "open-breaker", "close-breaker", "release"])
def test_names_that_are_not_there_are_answered_with_those_that_are(database, cli, act) -> None:
    for who, expected in {
        ("gamma", "billing"): "Error: there is no tenant 'gamma'; there are: acme, beta\n",
        ("acme", "nobody"): "Error: tenant acme has no endpoint 'nobody'; there are: audit, billing\n",
    }.items():
        ended = cli.run("endpoint", act, *who)
        assert (2, expected) == (ended.exit_code, ended.stderr)
    assert [] == acts(database)


def test_a_removed_endpoint_can_only_be_configured_again(database, cli) -> None:
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'removed' WHERE id = 2")

    for act in ("show", "enable", "disable", "close-breaker"):
        ended = cli.run("endpoint", act, "acme", "audit")
        assert (2, "Error: acme/audit: it was removed: configure it again with `waxseal apply`\n") == (
            ended.exit_code,
            ended.stderr,
        )


@pytest.mark.parametrize("choice", ["--discard-missed", "--replay"])
def test_what_a_removed_endpoint_missed_is_not_touched_by_an_act_that_is_refused(database, engine, cli, choice) -> None:
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(3)], [2], NOW, state="disabled")
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'removed' WHERE id = 2")

    ended = cli.run("endpoint", "enable", "acme", "audit", choice, "--yes")

    assert (2, "Error: acme/audit: it was removed: configure it again with `waxseal apply`\n") == (
        ended.exit_code,
        ended.stderr,
    )
    assert [("paused", 3)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1")
    assert [] == acts(database)


def test_a_worker_may_do_all_of_it_and_cannot_lock_the_tables(database, engine) -> None:
    may_update = """
        SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = to_regclass(%s) AND attnum > 0 AND has_column_privilege(attrelid, attnum, 'UPDATE')"""
    with transaction(engine) as conn:
        ((health,), (endpoint,)) = (
            conn.exec_driver_sql(may_update, (table,)).one() for table in ("endpoint_health", "endpoint")
        )
        whole = conn.exec_driver_sql(
            "SELECT bool_or(has_table_privilege(place, 'UPDATE')) FROM unnest(ARRAY['endpoint_health', 'endpoint']) AS place"
        ).scalar_one()

    all_columns = database.rows(
        "SELECT attname::text FROM pg_attribute"
        " WHERE attrelid = 'endpoint_health'::regclass AND attnum > 1 AND NOT attisdropped"
    )
    assert {name for (name,) in all_columns} == set(health), "all but the key"
    assert ["state", "reason"] == endpoint
    assert whole is False, "UPDATE of a whole table would allow LOCK TABLE"
