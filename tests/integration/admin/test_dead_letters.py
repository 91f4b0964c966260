"""Dead letters and undelivered events: listed, replayed, discarded, retried, and audited."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Engine, text

from ops.admin.replay import UNCONFIRMED, UNREADABLE, Decision, decision_on, discard, replay
from ops.runtime.db import make_engine, transaction
from ops.servers.accounts import login_name
from ops.settings import environment
from pipeline.deliver import judge
from pipeline.settle import Tried, settle
from pipeline.store.dead_letters import dead_letter_list, dead_letters
from pipeline.store.deliveries import attempt_partitions, deliveries, notify
from schemas.dead_letter import DeadLetter, DeadLetterFilter
from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint
from support.cli import Cli
from support.deliveries import claimed, event, record

NOW = datetime.now(UTC).replace(microsecond=0)
FAILED = Receipt(NOW, 0.25, status=500, error="status", detail="500 Internal Server Error")


@pytest.fixture(autouse=True)
def _tenants(database) -> None:
    database.add_tenant("acme")
    database.add_tenant("other")


@pytest.fixture
def billing(cli, database) -> int:
    return database.add_endpoint("billing", "http://127.0.0.1:1/")


@pytest.fixture
def audit(cli, database) -> int:
    return database.add_endpoint("audit", "http://127.0.0.1:1/")


@pytest.fixture
def buried(cli, engine, billing) -> Callable[..., list[tuple]]:
    """Six dead letters, an hour apart, the newest an hour old."""
    found = [
        DeadLetter("admit", "missing_id", "an id is needed", "acme", "shop", body=b"1"),
        DeadLetter("admit", "missing_id", "an id is needed", "acme", "shop", body=b"2"),
        DeadLetter("admit", "unknown_tenant", "nobody", "nobody", "shop", body=b"3"),
        DeadLetter("append", "poison", "cannot be stored", "other", "shop", error="22021", body=b"4"),
        DeadLetter("deliver", "exhausted", "status: 503", "acme", "shop", billing, 77, "e-1", error="status"),
        DeadLetter("actor", "poison", "it fell over", "acme", endpoint_id=billing),
    ]
    with transaction(engine) as conn:
        for n, letter in enumerate(found):
            dead_letters.bury(conn, [letter], NOW - timedelta(hours=6 - n))


def states(database) -> dict[int, str]:
    return dict(database.rows("SELECT id, state FROM dead_letter ORDER BY id"))


def closed(database, state: str) -> list[int]:
    return [id for id, found in states(database).items() if found == state]


def die(engine: Engine, count: int, endpoint: int, subject: str = "order-1") -> list[Delivery]:
    """Records deliveries whose only try failed, and returns them."""
    record(engine, [event(f"e-{endpoint}-{n}", subject, b"body") for n in range(count)], [endpoint])
    lease, claims = claimed(engine, count)
    with transaction(engine) as conn:
        attempt_partitions.ensure(conn, NOW.date(), 1)
        loaded = deliveries.load_leased(conn, [(claim.id, lease) for claim in claims]).deliveries
        terms = Endpoint(endpoint, "acme", "billing", "http://127.0.0.1:1/", retry=())
        settle(conn, [Tried(each, judge(each, terms, FAILED, NOW, 0.0)) for each in loaded], datetime.now(UTC))
    return sorted(loaded, key=lambda each: each.id)


BETWEEN = (NOW - timedelta(minutes=210)).isoformat()  # the third and the fourth
CHOICES = [
    ([1, 2, 3, 4, 5, 6], ["--all"]),
    ([1, 2, 5, 6], ["--tenant", "acme"]),
    ([5, 6], ["--endpoint", "billing"]),
    ([1, 2], ["--reason", "missing_id"]),
    ([4], ["--stage", "append"]),
    ([4, 5, 6], ["--since", BETWEEN]),
    ([1, 2, 3], ["--until", BETWEEN]),
    ([2, 4], ["--id", 2, "--id", 4]),
    ([5], ["--tenant", "acme", "--stage", "deliver"]),
    ([], ["--tenant", "other", "--stage", "deliver"]),
]


@pytest.mark.parametrize(("expected", "options"), CHOICES)
def test_whatever_is_chosen_to_be_listed_is_what_is_discarded(expected, options, cli, buried, database) -> None:
    listed = sorted(line["id"] for line in cli.json("dead", "list", *options))
    told = cli.json("dead", "discard", *options, "--yes")

    assert expected == listed
    assert expected == closed(database, "discarded")
    assert len(expected) == sum(line.get("count", 0) for line in told)
    assert [{"discarded": len(expected), "counted": len(expected)}] * bool(expected) == told[-1:]


@pytest.mark.parametrize("verb", ["list", "discard", "replay"])
@pytest.mark.parametrize(
    ("told", "options"),
    [
        ("there is no tenant 'acne'; there are: acme, other", ["--tenant", "acne"]),
        ("tenant acme has no endpoint 'biling'; there are: billing", ["--tenant", "acme", "--endpoint", "biling"]),
        ("no tenant has an endpoint 'biling'; there are: billing", ["--endpoint", "biling"]),
        ("is not before --until", ["--since", "1h", "--until", "2h"]),
        ("is not before --until", ["--until", "2026-01-01", "--since", "2026-01-02"]),
    ],
)
def test_a_choice_that_nothing_can_be_in_is_an_error_that_names_it(verb, told, options, cli, buried) -> None:
    asked = cli.run("dead", verb, *options)

    assert (2, "") == (asked.exit_code, asked.stdout)
    assert told in asked.stderr
    assert 1 == asked.stderr.count("\n")


@pytest.mark.parametrize(
    ("told", "command"),
    [
        ("there is no tenant 'acne'", ("events", "--tenant", "acne")),
        ("there is no tenant 'acne'", ("deliveries", "acne")),
        ("there is no tenant 'acne'", ("undelivered", "acne")),
        ("there is no tenant 'acne'", ("timeline", "acne", "order-1")),
        ("there is no tenant 'acne'", ("endpoint", "list", "acne")),
        ("has no endpoint 'biling'", ("deliveries", "acme", "--endpoint", "biling")),
        ("has no endpoint 'biling'", ("undelivered", "acme", "--endpoint", "biling")),
        ("is not before --until", ("undelivered", "acme", "--since", "1h", "--until", "1d")),
        ("is not before --until", ("events", "--since", "1h", "--until", "1d")),
        ("is not before --until", ("audit", "--since", "1h", "--until", "1d")),
    ],
)
def test_a_list_of_what_is_not_there_is_an_error_that_names_it(told, command, cli, billing) -> None:
    asked = cli.run(*command)

    assert (2, "") == (asked.exit_code, asked.stdout)
    assert told in asked.stderr


def test_dead_letters_of_a_tenant_that_never_was_can_be_chosen(cli, buried) -> None:
    assert ["nobody"] == [line["tenant"] for line in cli.json("dead", "list", "--tenant", "nobody")]


def test_a_long_list_is_bounded_and_says_how_many_there_are_more(cli, engine) -> None:
    with transaction(engine) as conn:
        dead_letters.bury(conn, [DeadLetter("admit", "missing_id", "an id is needed", "acme", "shop")] * 230, NOW)

    asked, limited = cli.run("dead", "list", "--rows"), cli.run("dead", "list", "--limit", "220")

    assert (201, 221) == (asked.stdout.count("\n"), limited.stdout.count("\n"))
    assert "The first 200, and there are 30 more: --limit N shows N, --json shows all.\n" == asked.stderr
    assert 230 == len(cli.json("dead", "list"))


def test_a_list_counts_by_reason_unless_rows_are_asked_for(cli, buried) -> None:
    asked = cli.run("dead", "list")
    first, *others = cli.json("dead", "list", "--groups")

    assert {"count": 2, "stage": "admit", "reason": "missing_id", "tenants": ["acme"], "endpoints": []}.items() <= first.items()
    assert {("admit", "unknown_tenant", 1), ("append", "poison", 1), ("actor", "poison", 1), ("deliver", "exhausted", 1)} == {
        (each["stage"], each["reason"], each["count"]) for each in others
    }
    assert [["acme/billing"]] == [each["endpoints"] for each in others if each["stage"] == "deliver"]
    assert ["count", "stage", "reason"] == asked.stdout.split("\t")[:3]
    assert 6 == asked.stdout.count("\n")
    assert "waxseal dead list --rows --reason REASON" in asked.stderr
    assert 7 == cli.run("dead", "list", "--rows").stdout.count("\n")
    assert 2 == cli.run("dead", "list", "--id", 4).stdout.count("\n")
    assert 1 == len(cli.json("dead", "list", "--groups", "--limit", 1))
    assert "no dead letters\n" == cli.run("dead", "list", "--until", "30d", "--reason", "gone").stderr


def test_the_count_comes_first_by_stage_reason_tenant_and_endpoint(cli, buried) -> None:
    first, *others, end = cli.json("dead", "discard", "--all", "--yes")

    assert {
        "stage": "admit",
        "reason": "missing_id",
        "tenant": "acme",
        "endpoint": None,
        "count": 2,
        "oldest": (NOW - timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
        "newest": (NOW - timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
    } == first
    assert [("actor", "billing"), ("admit", None), ("append", None), ("deliver", "billing")] == [
        (each["stage"], each["endpoint"]) for each in others
    ]
    assert {"discarded": 6, "counted": 6} == end


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_nothing_is_done_without_a_choice_or_without_yes(verb, cli, buried, database) -> None:
    unchosen, unagreed = cli.run("dead", verb, "--yes"), cli.run("dead", verb, "--reason", "missing_id")

    assert (2, 2) == (unchosen.exit_code, unagreed.exit_code)
    assert f"choose some, or {verb} --all" in unchosen.stderr
    assert f"to {verb} 2 dead letters, add --yes" in unagreed.stderr
    assert "missing_id" in unagreed.stdout
    assert {"open"} == set(states(database).values())
    assert [] == cli.json("audit")


def test_a_dead_letter_says_who_decided_and_when(cli, buried, database) -> None:
    cli.json("dead", "discard", "--id", 1, "--yes", "--by", "ada")
    (letter,) = cli.json("dead", "show", 1)

    assert ("discarded", "ada") == (letter["state"], letter["decided_by"])
    assert datetime.now(UTC) - datetime.fromisoformat(letter["decided_at"]) < timedelta(minutes=1)
    assert [2, 3, 4, 5, 6] == sorted(line["id"] for line in cli.json("dead", "list"))


def test_a_dead_letter_shows_the_act_by_which_it_was_decided(cli, engine, billing, buried, database) -> None:
    die(engine, 1, billing)
    cli.json("dead", "discard", "--id", 2, "--yes", "--by", "ada")
    cli.json("dead", "discard", "--id", 1, "--id", 3, "--yes", "--by", "ada")
    cli.json("dead", "discard", "--id", 4, "--yes", "--by", "eve")
    cli.json("dead", "replay", "--id", 7, "--yes", "--by", "ada")
    found = {letter["id"]: letter for letter in cli.json("dead", "show", *range(1, 8))}
    acts = {act["id"]: act for act in cli.json("audit")}

    assert {1: [1, 3], 2: [2], 3: [1, 3], 4: [4], 7: [7]} == {
        id: letter["act"]["filter"]["ids"] for id, letter in found.items() if letter["act"]
    }
    assert ("dead discard", "eve", 1) == tuple(found[4]["act"][name] for name in ("act", "who", "done"))
    assert ("replayed", "ada", "dead replay") == (found[7]["state"], found[7]["decided_by"], found[7]["act"]["act"])
    assert (None, None, None) == tuple(found[5][name] for name in ("act", "decided_at", "decided_by"))
    for id in (1, 2, 3, 4, 7):
        act = found[id]["act"]
        assert acts[act["id"]] == act
        assert act["at"] <= found[id]["decided_at"] <= act["ended_at"]


def test_the_act_that_was_cut_off_is_shown_and_not_one_that_was_over(cli, buried, database) -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO audit (at, who, act, filter, count, phase, begun) VALUES"
            " ('2026-01-01', 'ada', 'dead replay', '{}', 9, 'begun', NULL),"
            " ('2026-01-02', 'ada', 'dead replay', '{}', 3, 'begun', NULL),"
            " ('2026-01-03', 'ada', 'dead replay', '{}', 3, 'done', 2),"
            " ('2026-01-05', 'ada', 'dead replay', '{}', 7, 'begun', NULL)"
        )
        conn.execute(
            "UPDATE dead_letter SET state = 'replayed', decided_by = 'ada', decided_at = '2026-01-01'::timestamptz"
            " + id * interval '12 h' WHERE id < 6"
        )
        conn.execute("UPDATE dead_letter SET state = 'discarded', decided_by = 'ada', decided_at = now() WHERE id = 6")
    shown = {letter["id"]: letter["act"] and letter["act"]["id"] for letter in cli.json("dead", "show", *range(1, 7))}

    assert {1: 1, 2: 2, 3: 2, 4: 2, 5: 1, 6: None} == shown


def test_who_decided_and_how_is_shown_without_json_too(cli, buried) -> None:
    cli.json("dead", "discard", "--reason", "missing_id", "--yes", "--by", "ada")
    lines = dict(line.split(maxsplit=1) for line in cli.run("dead", "show", 2).stdout.splitlines())
    act = json.loads(lines["act"])

    assert ("discarded", "ada", "2") == (lines["state"], lines["decided_by"], lines["id"])
    assert ("dead discard", {"reason": "missing_id"}, 2) == (act["act"], act["filter"], act["done"])
    assert act["at"] <= lines["decided_at"] <= act["ended_at"]


def test_every_act_is_in_the_audit_with_who_which_and_how_many(cli, buried) -> None:
    cli.json("dead", "discard", "--reason", "missing_id", "--yes", "--by", "ada")
    cli.json("dead", "discard", "--reason", "missing_id", "--yes")
    cli.json("dead", "discard", "--id", 3, "--since", "2020-01-01", "--yes")

    last, first = cli.json("audit")
    assert ("dead discard", "ada", {"reason": "missing_id"}, 2, 2) == tuple(
        first[name] for name in ("act", "who", "filter", "planned", "done")
    )
    assert (login_name(), {"since": "2020-01-01 00:00:00+00:00", "ids": [3]}, 1) == (last["who"], last["filter"], last["done"])
    assert first["at"] < first["ended_at"] < last["at"]
    assert [last] == cli.json("audit", "--limit", 1)
    assert [] == cli.json("audit", "--until", "2020-01-01")
    assert "reason=missing_id" in cli.run("audit").stdout


def test_an_act_that_was_cut_off_shows_as_such(cli, database) -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO audit (at, who, act, filter, count, phase) VALUES (now(), 'ada', 'dead replay', '{}', 9, 'begun'),"
            " (now(), 'eve', 'endpoint enable', '{}', 1, DEFAULT)"
        )
    whole, cut = cli.json("audit")

    assert (9, None, None) == (cut["planned"], cut["done"], cut["ended_at"])
    assert (1, 1, whole["at"]) == (whole["planned"], whole["done"], whole["ended_at"])
    assert "cut off, or still running" in cli.run("audit").stdout


@pytest.mark.parametrize("statement", ["UPDATE audit SET who = 'eve'", "DELETE FROM audit", "DELETE FROM operator_event"])
def test_the_audit_cannot_be_rewritten_by_the_workers_role(statement, cli, engine, buried) -> None:
    cli.json("dead", "discard", "--id", 1, "--yes")

    with pytest.raises(Exception, match="permission denied"), transaction(engine) as conn:
        conn.execute(text(statement))


def test_operator_events_are_listed_newest_first(cli, database, billing) -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO operator_event (at, kind, tenant, endpoint_id, detail) VALUES"
            " ('2026-01-01', 'breaker_opened', 'acme', %s, 'half of 20 failed'),"
            " ('2026-01-02', 'endpoint_disabled', 'other', NULL, 'x')",
            (billing,),
        )

    assert ["endpoint_disabled", "breaker_opened"] == [each["kind"] for each in cli.json("events")]
    assert [("billing", "half of 20 failed")] == [
        (each["endpoint"], each["detail"]) for each in cli.json("events", "--tenant", "acme", "--until", "2026-01-02")
    ]


def test_discarding_ends_the_delivery_too_and_keeps_its_error(cli, engine, billing, database) -> None:
    die(engine, 2, billing)
    cli.json("dead", "discard", "--id", 1, "--yes")

    assert [
        ("discarded", "status: 500 Internal Server Error", 1),
        ("dead", "status: 500 Internal Server Error", 1),
    ] == database.rows("SELECT state, error, attempts FROM delivery ORDER BY id")


def test_a_deliverys_dead_letter_shows_where_its_content_is_and_every_try(cli, engine, billing) -> None:
    delivery = die(engine, 1, billing)[0]
    (letter,) = cli.json("dead", "show", 1)

    assert ("exhausted", "status", "status: 500 Internal Server Error") == (letter["reason"], letter["error"], letter["detail"])
    assert (delivery.chain_id.hex, 0, None) == (letter["chain"], letter["seq"], letter["body"])
    assert [(1, "dead", 500)] == [(each["n"], each["outcome"], each["status"]) for each in letter["tries"]]
    assert datetime.fromisoformat(letter["first_at"]) == delivery.created_at
    assert letter["first_at"] < letter["last_at"]


def test_what_is_buried_after_the_count_is_left_for_the_next_time(cli, engine, buried, database) -> None:
    decision = decision_on(engine, DeadLetterFilter(tenant="acme"), "ada")
    with transaction(engine) as conn:
        dead_letters.bury(conn, [DeadLetter("admit", "missing_id", "again", "acme", "shop")], NOW)
    moved = []
    while (done := in_transaction(engine, partial(discard, decision))) is not None:
        moved.append(done)

    assert [3, 1] == moved
    assert [3, 4, 7] == closed(database, "open")


def in_transaction(engine: Engine, step: Callable[..., int | None], size: int = 3) -> int | None:
    with transaction(engine) as conn:
        return step(conn, size)


def test_two_runs_at_once_share_the_work(cli, engine, buried, database) -> None:
    one, other = (decision_on(engine, DeadLetterFilter(), who) for who in ("ada", "eve"))
    with transaction(engine) as conn:
        assert 4 == discard(one, conn, 4)
        assert 2 == in_transaction(engine, partial(discard, other), 100)

    assert [(4, "ada"), (2, "eve")] == database.rows("SELECT count(*), decided_by FROM dead_letter GROUP BY 2 ORDER BY 2")


def test_a_message_that_was_not_confirmed_or_cannot_be_made_stays_open(cli, engine, buried, database) -> None:
    kept = '{"headers": {}, "properties": {}, "trusted": false}'
    with transaction(engine) as conn:
        broken = ({}, {**json.loads(kept), "headers": 1}, {**json.loads(kept), "properties": {"unheard": "of"}})
        dead_letters.bury(conn, [DeadLetter("admit", "malformed", "x", headers=each) for each in broken], NOW)
        for each in ('{"$bytes": 5}', '{"$float": "x"}'):
            dead_letters.bury(conn, [DeadLetter("admit", "malformed", each)], NOW)
    database.run("UPDATE dead_letter SET headers = CAST(%s AS json) WHERE id < 4", kept)
    database.run("UPDATE dead_letter SET headers = CAST(detail AS json) WHERE detail LIKE '{%%'")
    decision = decision_on(engine, DeadLetterFilter(stage="admit"), "ada")
    seen = []

    def publish(messages) -> list[bool]:
        seen.extend(message.body for message in messages)
        return [message.body != b"2" for message in messages]

    moved = in_transaction(engine, partial(replay, decision, publish), 100)

    assert (2, [b"1", b"2", b"3"]) == (moved, seen)
    assert [1, 3] == closed(database, "replayed")
    assert {UNREADABLE: 5, UNCONFIRMED: 1} == +decision.left


def test_bodies_are_read_a_few_at_a_time(cli, engine, database, monkeypatch) -> None:
    monkeypatch.setattr("ops.admin.replay.MOST_BYTES", 100)
    with transaction(engine) as conn:
        dead_letters.bury(conn, [DeadLetter("admit", "too_large", "x", body=b"x" * size) for size in (60, 40, 1, 500, 99)], NOW)
    decision = decision_on(engine, DeadLetterFilter(), "ada")

    assert [2, 1, 1, 1, None] == [in_transaction(engine, partial(discard, decision), 100) for _ in range(5)]
    assert [] == closed(database, "open")


def unpublishable(_messages) -> list[bool]:
    raise AssertionError("a delivery is not published")


def replayed(engine: Engine, **wanted: object) -> tuple[int | None, Decision]:
    decision = decision_on(engine, DeadLetterFilter(**wanted), "ada")
    return in_transaction(engine, partial(replay, decision, unpublishable), 100), decision


def test_a_replayed_delivery_is_due_at_once_and_its_schedule_begins_anew(cli, engine, billing, database) -> None:
    with transaction(engine) as conn:
        notify.listen(conn)
    first = die(engine, 1, billing)[0]
    moved, _ = replayed(engine)
    (state, due, attempts) = database.rows("SELECT state, next_attempt_at <= now(), attempts FROM delivery")[0]
    lease, claims = claimed(engine)
    with transaction(engine) as conn:
        (again,) = deliveries.load_leased(conn, [(claims[0].id, lease)]).deliveries
        verdict = judge(again, Endpoint(billing, "acme", "b", "", retry=(60.0,)), FAILED, NOW, 0.0)
        settle(conn, [Tried(again, verdict)], NOW)

    assert (1, "pending", True, 1) == (moved, state, due, attempts)
    assert (first.id, first.fingerprint) == (again.id, again.fingerprint)
    assert 1 == again.schedule_from
    assert again.age_from > first.created_at
    assert ("retry", 2, NOW + timedelta(seconds=60)) == (verdict.outcome, verdict.attempt, verdict.next_attempt_at)
    assert [(1,), (2,)] == database.rows("SELECT n FROM attempt ORDER BY n")
    assert ["replayed"] == list(states(database).values())


def test_what_dies_again_is_a_new_dead_letter(cli, engine, billing, database) -> None:
    die(engine, 1, billing)
    replayed(engine)
    lease, claims = claimed(engine)
    with transaction(engine) as conn:
        (again,) = deliveries.load_leased(conn, [(claims[0].id, lease)]).deliveries
        settle(conn, [Tried(again, judge(again, Endpoint(billing, "acme", "b", "", retry=()), FAILED, NOW, 0.0))], NOW)

    assert ["replayed", "open"] == list(states(database).values())
    assert (1, ["replayed", "replayed"]) == (replayed(engine)[0], list(states(database).values()))


def test_a_replay_is_kept_while_its_endpoint_is_disabled_and_refused_when_it_is_removed(
    cli, engine, billing, audit, database
) -> None:
    die(engine, 1, billing)
    die(engine, 1, audit, "order-2")
    with database.connect() as conn:
        conn.execute("UPDATE endpoint SET state = 'disabled', reason = 'x' WHERE id = %s", (billing,))
        conn.execute("UPDATE endpoint SET state = 'removed' WHERE id = %s", (audit,))
    ended = cli.run("dead", "replay", "--all", "--yes")

    assert [("paused", None), ("dead", None)] == database.rows("SELECT state, next_attempt_at FROM delivery ORDER BY id")
    assert ["replayed", "open"] == list(states(database).values())
    assert 2 == ended.exit_code
    assert "1 left open: their endpoint was removed" in ended.stderr
    assert [(2, 1)] == [(act["planned"], act["done"]) for act in cli.json("audit")]


def test_replayed_deliveries_of_one_subject_go_in_turn_where_there_is_an_order(cli, engine, billing, database) -> None:
    die(engine, 3, billing)
    record(engine, [event("later")], [billing], NOW)
    with database.connect() as conn:
        conn.execute("UPDATE delivery SET ordered = true")
    cli.json("dead", "replay", "--id", 2, "--id", 3, "--yes")

    assert [("dead", False), ("pending", False), ("pending", False), ("pending", True)] == turns(database)
    (first, *_) = cli.json("undelivered", "acme")
    assert "waits for its turn: an earlier event of its subject is not settled" == first["reason"]

    with database.connect() as conn:
        conn.execute("UPDATE delivery SET state = 'delivered', next_attempt_at = NULL, settled_at = now() WHERE id = 4")
        conn.execute("UPDATE delivery SET state = 'dead', settled_at = now() WHERE id IN (2, 3)")
        conn.execute("UPDATE dead_letter SET state = 'open', decided_at = NULL, decided_by = NULL")
    cli.json("dead", "replay", "--all", "--yes")

    assert [("pending", True), ("pending", False), ("pending", False), ("delivered", False)] == turns(database)


def turns(database) -> list[tuple]:
    return database.rows("SELECT state, next_attempt_at IS NOT NULL FROM delivery ORDER BY id")


def test_what_an_actor_failed_at_is_due_again(cli, engine, billing, database) -> None:
    record(engine, [event("e-1"), event("e-2")], [billing], NOW + timedelta(hours=3))
    letter = DeadLetter("actor", "poison", "it fell over", "acme", endpoint_id=billing, delivery_id=1)
    with transaction(engine) as conn:
        dead_letters.bury(conn, [letter], NOW)

    assert 1 == replayed(engine)[0]
    assert [(True, 0), (False, 0)] == database.rows("SELECT next_attempt_at <= now(), schedule_from FROM delivery ORDER BY id")


@pytest.fixture
def filled(cli, engine, billing, audit, database) -> Cli:
    """Seven events for billing, in every state; one of them delivered to audit, too."""
    at = NOW - timedelta(days=2)
    record(engine, [event(f"e-{n}", f"order-{n}") for n in range(7)], [billing], at)
    record(engine, [event("late", "order-9")], [audit], NOW - timedelta(minutes=1))
    with database.connect() as conn:
        for n, (state, due, lease, error) in enumerate(
            [
                ("pending", NOW, None, None),
                ("pending", NOW + timedelta(hours=2), None, "timeout: 15 s"),
                ("leased", None, "lease", None),
                ("paused", None, None, "status: 410"),
                ("dead", None, None, "status: 503"),
                ("discarded", None, None, "the content was erased"),
                ("delivered", None, None, None),
            ]
        ):
            conn.execute(
                "UPDATE delivery SET state = %s, next_attempt_at = %s, lease = %s, lease_until = %s, settled_at = %s,"
                " error = %s"
                " FROM chain WHERE chain.chain_id = delivery.chain_id AND subject = %s",
                (
                    state,
                    due,
                    lease and "00000000-0000-0000-0000-000000000001",
                    lease and NOW,
                    NOW if state in ("dead", "discarded", "delivered") else None,
                    error,
                    f"order-{n}",
                ),
            )
        conn.execute("UPDATE endpoint SET state = 'disabled', reason = 'it answered 410' WHERE name = 'billing'")
        conn.execute(
            "INSERT INTO dead_letter (stage, reason, detail, delivery_id, endpoint_id, first_at, last_at)"
            " SELECT 'deliver', 'exhausted', '', id, endpoint_id, now(), now() FROM delivery WHERE state = 'dead'"
        )
    return cli


def test_every_pair_that_is_not_delivered_is_listed_with_state_reason_and_next_try(filled) -> None:
    found = {line["event_id"]: line for line in filled.json("undelivered", "acme")}

    assert {
        "e-0": ("pending", None, True),
        "e-1": ("pending", "timeout: 15 s", True),
        "e-2": ("leased", None, False),
        "e-3": ("paused", "disabled: it answered 410", False),
        "e-4": ("dead", "exhausted: status: 503", False),
        "e-5": ("discarded", "the content was erased", False),
        "late": ("pending", None, True),
    } == {id: (line["state"], line["reason"], line["next_attempt_at"] is not None) for id, line in found.items()}
    assert (1, "order-4", "billing") == tuple(found["e-4"][name] for name in ("dead_letter", "subject", "endpoint"))


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ({"late"}, ["--endpoint", "audit"]),
        ({"late"}, ["--since", "1d"]),
        ({f"e-{n}" for n in range(6)}, ["--until", "1d"]),
        (set(), ["--endpoint", "audit", "--until", "1d"]),
        (set(), ["--since", "3d", "--until", "60h"]),
    ],
)
def test_undelivered_pairs_can_be_chosen_by_endpoint_and_time(expected, options, filled) -> None:
    assert expected == {line["event_id"] for line in filled.json("undelivered", "acme", *options)}


@pytest.mark.parametrize(("page", "ids"), [(1, 100_000), (1, 1), (2, 3)])
def test_undelivered_pairs_are_read_in_pages_without_a_gap(filled, monkeypatch, page, ids) -> None:
    monkeypatch.setattr("ops.admin.undelivered.PAGE", page)
    monkeypatch.setattr("ops.admin.undelivered.IDS", ids)

    assert 7 == len(filled.json("undelivered", "acme"))
    assert "everything was delivered\n" == filled.run("undelivered", "other").stderr


def test_undelivered_pairs_are_found_without_reading_what_was_delivered(filled, engine, billing, database) -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, settled_at)"
            " SELECT %s, 'acme', gen_random_uuid(), 0, 1, 'delivered', now(), now() FROM generate_series(1, 5000)",
            (billing,),
        )
        conn.execute("ANALYZE delivery")
    from pipeline.store.deliveries import undelivered as statements

    common = {"endpoint_id": billing, "since": None, "until": None, "limit": 500}
    with transaction(engine) as conn:
        ended = explained(conn, statements.ENDED, {**common, "after": NOW - timedelta(days=9), "after_id": 0})
        ids = explained(conn, statements.UNSETTLED_IDS, {**common, "after": 0})
        page = explained(conn, statements.UNSETTLED, {"ids": [1, 2, 3]})

    assert "delivery_undelivered" in ended
    assert all(name in ids for name in ("delivery_by_due", "delivery_by_lease", "delivery_paused"))
    assert "delivery_pkey" in page
    assert "Seq Scan on delivery" not in ended + ids + page


@pytest.mark.parametrize(
    "wanted",
    [
        DeadLetterFilter("acme", endpoint="audit"),
        DeadLetterFilter(endpoint="audit"),
        DeadLetterFilter("acme", reason="gone"),
        DeadLetterFilter(reason="gone"),
        DeadLetterFilter("acme", reason="gone", closed=True),
    ],
)
def test_a_filter_that_matches_nothing_does_not_read_what_others_match(wanted, engine, billing, audit, database) -> None:
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO dead_letter (stage, reason, detail, tenant, endpoint_id, delivery_id, first_at, last_at)"
            " SELECT 'deliver', CASE WHEN mod(n, 2) = 0 THEN 'timeout' ELSE 'status' END, '', 'acme', %s, n, now(), now()"
            " FROM generate_series(1, 10000) n",
            (billing,),
        )
        conn.execute("ANALYZE dead_letter")
    reads = make_engine(database.url)
    with reads.connect() as conn:
        before = blocks(conn)
        assert [] == dead_letter_list.dead_letters(conn, wanted, 2**62, 50)
        assert [] == dead_letter_list.count(conn, wanted)
        read = blocks(conn) - before
    reads.dispose()

    assert read < 30


def blocks(conn) -> int:
    """Blocks of the dead letters and their indexes that this session has read in its transaction."""
    return conn.execute(
        text(
            "SELECT pg_stat_get_xact_blocks_fetched('dead_letter'::regclass) + sum(pg_stat_get_xact_blocks_fetched(indexrelid))"
            " FROM pg_index WHERE indrelid = 'dead_letter'::regclass"
        )
    ).scalar_one()


def explained(conn, statement, parameters) -> str:
    return "\n".join(conn.execute(text("EXPLAIN " + statement.text), parameters).scalars())


@pytest.fixture
def planned(cli, engine, billing, audit, database) -> Cli:
    """Three tries of billing and two of audit planned for later, one of billing due; one of another tenant."""
    record(engine, [event(f"e-{n}", f"order-{n}") for n in range(3)], [billing], NOW + timedelta(hours=1))
    record(engine, [event(f"a-{n}", f"order-{n}") for n in range(2)], [audit], NOW + timedelta(hours=9))
    record(engine, [event("due")], [billing], NOW - timedelta(minutes=1))
    foreign = database.add_endpoint("theirs", "http://127.0.0.1:1/", tenant="other")
    record(engine, [event("theirs")], [foreign], NOW + timedelta(hours=1))
    return cli


def later(database) -> list[int]:
    return [row[0] for row in database.rows("SELECT id FROM delivery WHERE next_attempt_at > now() ORDER BY id")]


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ([7], []),
        ([4, 5, 7], ["--endpoint", "billing"]),
        ([1, 3, 5, 7], ["--id", 2, "--id", 4]),
        ([1, 2, 3, 4, 5, 7], ["--id", 7]),
    ],
)
def test_a_planned_try_can_be_moved_up(expected, options, planned, database) -> None:
    planned.json("retry", "acme", *options, "--yes", "--rate", "1000000")

    assert expected == later(database)


def test_moving_up_is_counted_agreed_to_and_noted(planned, database) -> None:
    refused = planned.run("retry", "acme")
    billing, audit, end = planned.json("retry", "acme", "--yes", "--by", "ada")

    assert 2 == refused.exit_code
    assert "to try 5 deliveries now, add --yes" in refused.stderr
    assert [("billing", 3), ("audit", 2)] == [(each["endpoint"], each["count"]) for each in (billing, audit)]
    assert billing["earliest"] == (NOW + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert {"due": 5, "counted": 5} == end
    assert [("retry", "ada", {"tenant": "acme"}, 5)] == [
        (act["act"], act["who"], act["filter"], act["done"]) for act in planned.json("audit")
    ]
    assert (0, "nothing is planned for later\n") == (
        planned.run("retry", "acme", "--yes").exit_code,
        planned.run("retry", "acme").stderr,
    )


def test_what_fails_while_others_are_moved_up_is_not_moved_up_again(planned, engine, database, billing) -> None:
    from ops.admin.undelivered import MoveUp

    with transaction(engine) as conn:
        step = MoveUp(conn, {"billing": billing}, None)
    moved = in_transaction(engine, step, 2)
    with database.connect() as conn:
        conn.execute("UPDATE delivery SET next_attempt_at = now() + '5 s' WHERE id = 1")

    assert (2, 1, None) == (moved, in_transaction(engine, step, 2), in_transaction(engine, step, 2))
    assert [1, 4, 5, 7] == later(database)


#: The same command twice, in one process.
TWICE = """
from ops.cli import main
for _ in range(2):
    try:
        main(["dead", "discard", "--id", "1"])
    except SystemExit as ended:
        print(f"[exit code {ended.code}]", flush=True)
"""


def test_on_a_terminal_the_operator_is_asked(cli, buried, database) -> None:
    terminal, slave = os.openpty()
    command = [sys.executable, "-c", TWICE]
    process = subprocess.Popen(command, env=environment() | cli.environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    for answer, told, code, state in (("n", "Interrupted.", 130, "open"), ("y", "discarded 1 dead letter", 0, "discarded")):
        said = read_until(terminal, "Discard 1 dead letter? [y/N]")
        os.write(terminal, f"{answer}\n".encode())
        assert told in read_until(terminal, f"[exit code {code}]")
        assert "admit" in said
        assert state == states(database)[1]
    assert 0 == process.wait(30)
    os.close(terminal)


def read_until(terminal: int, words: str) -> str:
    said = ""
    while words not in said:
        said += os.read(terminal, 1024).decode()
    return said
