"""What operators and scripts read: timelines, deliveries, dead letters, status, exports."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, make_url

from ops.admin.verification import replacing
from ops.cli.terminal.output import printable
from ops.runtime.db import transaction
from pipeline.append import append
from pipeline.dedupe import chain_key, fingerprint
from pipeline.delivery.filters import compile_filter
from pipeline.fanout import Subscriptions
from pipeline.store.dead_letters import dead_letters
from pipeline.store.ledger.scan import INLINE
from schemas.dead_letter import DeadLetter
from schemas.endpoint import Endpoint
from schemas.event import Event
from support.cli import Cli

KEY = b"k" * 32
NOW = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
TODAY = datetime.now(UTC).replace(microsecond=123456)  # attempts are partitioned by day, and past days have no partition


def event(id_: str, subject: str, body: bytes = b"{}", type_: str = "order.paid", tenant: str = "acme") -> Event:
    names = {"id": id_, "source": "shop", "type": type_, "specversion": "1.0", "datacontenttype": "application/json"}
    attributes = {**names, "subject": subject, "time": "2026-01-01T12:00:00Z", "region": "eu"}
    return Event(tenant, attributes, body, fingerprint(KEY, "shop", id_), chain_key(KEY, subject))


def record(engine: Engine, *events: Event, to: Sequence[Endpoint] = (), now: datetime = NOW) -> None:
    subscribed: Subscriptions = {"acme": tuple((each, compile_filter(each.filter)) for each in to)}
    with transaction(engine) as conn:
        append(conn, events, subscribed, now)


@pytest.fixture(autouse=True)
def _tenant(database) -> None:
    database.add_tenant("acme")


BODIES = [
    b'{"amount": 1.10, "id": 9007199254740993}',
    "naïve \u2028\x85\x9b".encode(),
    b"\xff\x00\xfe",
    b"",
    b"x" * (INLINE + 7),
]


@pytest.fixture
def timeline(cli: Cli, engine: Engine) -> Cli:
    record(engine, *(event(f"e-{n}", "order-1", body) for n, body in enumerate(BODIES)))
    record(engine, event("other", "order-2"))
    return cli


def test_a_timeline_is_the_subjects_entries_oldest_first_with_their_exact_bodies(timeline, database) -> None:
    lines = timeline.json("timeline", "acme", "order-1")

    assert [0, 1, 2, 3, 4] == [line["seq"] for line in lines]
    assert BODIES == [base64.b64decode(line["body_base64"]) for line in lines]
    assert [BODIES[0].decode(), "naïve \u2028\x85\x9b", None, "", "x" * (INLINE + 7)] == [line["body"] for line in lines]
    hashes = [row[0].hex() for row in database.rows("SELECT hash FROM entry ORDER BY chain_id, seq")]
    assert {line["hash"] for line in lines} < set(hashes)
    assert [None, *(line["hash"] for line in lines[:-1])] == [line["prev"] for line in lines]


def test_an_entry_says_everything_about_itself(timeline) -> None:
    first = timeline.json("timeline", "acme", "order-1", "--limit", 1)[0]

    assert {
        "seq": 0,
        "id": "e-0",
        "type": "order.paid",
        "source": "shop",
        "subject": "order-1",
        "time": "2026-01-01T12:00:00Z",
        "at": "2026-01-01T12:30:00.123456Z",
        "datacontenttype": "application/json",
        "prev": None,
    }.items() <= first.items()
    assert "eu" == first["attributes"]["region"]
    assert 32 == len(first["chain"])


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        ([3, 4], ["--after", 2]),
        ([0, 1], ["--limit", 2]),
        ([2], ["--after", 1, "--limit", 1]),
        ([], ["--after", 4]),
        ([0, 1, 2, 3, 4], ["--after", -1]),
    ],
)
def test_a_timeline_can_be_read_in_parts(expected, options, timeline) -> None:
    assert expected == [line["seq"] for line in timeline.json("timeline", "acme", "order-1", *options)]


def test_a_long_timeline_is_read_in_pages_without_a_gap(cli, engine, monkeypatch) -> None:
    monkeypatch.setattr("ops.admin.timeline.PAGE", 7)
    record(engine, *(event(f"e-{n}", "long") for n in range(30)))

    assert list(range(30)) == [line["seq"] for line in cli.json("timeline", "acme", "long")]
    assert list(range(3, 23)) == [line["seq"] for line in cli.json("timeline", "acme", "long", "--after", 2, "--limit", 20)]


def test_a_timeline_is_found_without_keys_too(timeline) -> None:
    assert 5 == len(timeline.but(keys="").json("timeline", "acme", "order-1"))


def test_a_subject_of_which_nothing_is_recorded_is_an_empty_list(timeline) -> None:
    ended = timeline.run("timeline", "acme", "order-9", "--json")

    assert (0, "", "no entries\n") == (ended.exit_code, ended.stdout, ended.stderr)


@pytest.mark.parametrize(
    "command", [["timeline", "nobody", "x"], ["deliveries", "nobody"], ["export", "nobody", "-o", "/dev/null"]]
)
def test_an_unknown_tenant_is_told_the_names_there_are(command, timeline) -> None:
    ended = timeline.run(*command)

    assert (2, "Error: there is no tenant 'nobody'; there are: acme\n") == (ended.exit_code, ended.stderr)


def test_an_entry_whose_content_is_gone_or_damaged_still_shows(timeline, database) -> None:
    with database.connect() as conn:
        conn.execute("DELETE FROM content WHERE seq = 1")
        conn.execute("UPDATE content SET attributes = 'damaged' WHERE seq = 2")

    lines = timeline.json("timeline", "acme", "order-1")

    assert [0, 1, 2, 3, 4] == [line["seq"] for line in lines]
    assert (None, None, None) == (lines[1]["id"], lines[1]["attributes"], lines[1]["body_base64"])
    assert (None, BODIES[2]) == (lines[2]["id"], base64.b64decode(lines[2]["body_base64"]))
    assert "(gone)" in timeline.run("timeline", "acme", "order-1").stdout


def test_where_there_is_no_terminal_a_list_is_lines_of_tabs(timeline) -> None:
    rows = [line.split("\t") for line in timeline.run("timeline", "acme", "order-1").stdout.splitlines()]

    assert ["seq", "recorded", "type", "source", "id", "body", "hash"] == rows[0]
    assert {7} == {len(row) for row in rows}
    assert ["0", "order.paid", "shop", "e-0"] == [rows[1][n] for n in (0, 2, 3, 4)]


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert "\\x1b[31mred\\n\\u202e é €" == printable("\x1b[31mred\n\u202e é €")


@pytest.fixture
def filled(cli: Cli, engine: Engine, database) -> Cli:
    """Six deliveries: three events to two endpoints, two of them tried."""
    ids = {name: database.add_endpoint(name, "http://127.0.0.1:9/", "whsec_x") for name in ("billing", "audit")}
    to = [Endpoint(id_, "acme", name, "http://127.0.0.1:9/") for name, id_ in ids.items()]
    record(engine, *(event(f"e-{n}", f"order-{n}") for n in range(3)), to=to)
    database.run("SELECT make_attempt_partitions(%s, 1)", TODAY.date())
    with database.connect() as conn:
        find = "(SELECT id FROM delivery WHERE endpoint_id = %s AND seq = 0 ORDER BY id LIMIT 1)"
        conn.execute(
            f"UPDATE delivery SET state = 'delivered', attempts = 2, next_attempt_at = NULL, settled_at = %s WHERE id = {find}",
            (NOW, ids["billing"]),
        )
        conn.execute(
            f"UPDATE delivery SET state = 'dead', attempts = 1, next_attempt_at = NULL, settled_at = %s, error = '500'"
            f" WHERE id = {find}",
            (NOW, ids["audit"]),
        )
        for n, outcome, status, error, id_ in (
            (1, "retry", None, "timeout", ids["billing"]),
            (2, "delivered", 204, None, ids["billing"]),
            (1, "dead", 500, None, ids["audit"]),
        ):
            started = TODAY + timedelta(seconds=n)
            conn.execute(
                "INSERT INTO attempt (delivery_id, n, started_at, seconds, outcome, status, error)"
                f" VALUES ({find}, %s, %s, 0.25, %s, %s, %s)",
                (id_, n, started, outcome, status, error),
            )
    return cli


def test_deliveries_are_shown_newest_first_with_their_attempts(filled) -> None:
    lines = filled.json("deliveries", "acme")

    assert sorted((line["id"] for line in lines), reverse=True) == [line["id"] for line in lines]
    assert {"pending": 4, "delivered": 1, "dead": 1} == {
        state: sum(line["state"] == state for line in lines) for state in ("pending", "delivered", "dead")
    }
    (delivered,) = (line for line in lines if line["state"] == "delivered")
    assert {
        "endpoint": "billing",
        "event_id": "e-0",
        "subject": "order-0",
        "seq": 0,
        "attempts": 2,
        "next_attempt_at": None,
        "settled_at": "2026-01-01T12:30:00.123456Z",
        "error": None,
    }.items() <= delivered.items()
    assert [(1, "retry", None, "timeout"), (2, "delivered", 204, None)] == [
        (each["n"], each["outcome"], each["status"], each["error"]) for each in delivered["tries"]
    ]
    started = TODAY + timedelta(seconds=1)
    assert (0.25, started) == (delivered["tries"][0]["seconds"], datetime.fromisoformat(delivered["tries"][0]["started_at"]))


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (4, ["--state", "pending"]),
        (1, ["--state", "dead"]),
        (3, ["--endpoint", "billing"]),
        (2, ["--endpoint", "billing", "--state", "pending"]),
        (0, ["--state", "paused"]),
        (2, ["--limit", 2]),
    ],
)
def test_deliveries_can_be_chosen(expected, options, filled) -> None:
    assert expected == len(filled.json("deliveries", "acme", *options))


def test_all_deliveries_are_shown_however_many(filled, monkeypatch) -> None:
    monkeypatch.setattr("ops.admin.timeline.PAGE", 2)

    assert 6 == len({line["id"] for line in filled.json("deliveries", "acme")})


def test_an_unknown_endpoint_or_state_is_told_what_there_is(filled) -> None:
    endpoint = filled.run("deliveries", "acme", "--endpoint", "nope")
    state = filled.run("deliveries", "acme", "--state", "lost")

    assert (2, 2) == (endpoint.exit_code, state.exit_code)
    assert "there are: audit, billing" in endpoint.stderr
    assert "'discarded'" in state.stderr


@pytest.fixture
def buried(cli: Cli, engine: Engine, database) -> Cli:
    endpoint = database.add_endpoint("billing", "http://127.0.0.1:9/", "whsec_x")
    letters = [
        DeadLetter(
            "admit",
            "missing_id",
            "an event needs an id",
            None,
            "shop",
            routing_key="acme.shop",
            body=b"\xffraw",
            headers={"a": 1},
        ),
        DeadLetter("admit", "unknown_tenant", "no tenant", routing_key="x.y", body=b"text \x1b[31m", content_type="text/plain"),
        DeadLetter("deliver", "exhausted", "503", "acme", "shop", endpoint, 7, "e-1", attempts=10),
    ]
    with transaction(engine) as conn:
        for n, letter in enumerate(letters):
            dead_letters.bury(conn, [letter], NOW + timedelta(hours=n))
    with database.connect() as conn:
        conn.execute(
            "INSERT INTO dead_letter (stage, state, reason, detail, first_at, last_at, decided_at, decided_by)"
            " VALUES ('actor', 'discarded', 'x', '', %s, %s, %s, 'somebody')",
            (NOW, NOW, NOW),
        )
    return cli


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (["exhausted", "unknown_tenant", "missing_id"], []),
        (["x", "exhausted", "unknown_tenant", "missing_id"], ["--all"]),
        (["exhausted"], ["--tenant", "acme"]),
        (["exhausted"], ["--endpoint", "billing"]),
        (["missing_id"], ["--reason", "missing_id"]),
        (["exhausted", "unknown_tenant"], ["--since", "2026-01-01T13:00:00Z"]),
        (["missing_id"], ["--until", "2026-01-01T13:00:00+00:00"]),
        (["unknown_tenant", "missing_id"], ["--id", 1, "--id", 2]),
        (["exhausted"], ["--limit", 1]),
        ([], ["--since", "1h"]),
    ],
)
def test_dead_letters_can_be_chosen(expected, options, buried) -> None:
    assert expected == [line["reason"] for line in buried.json("dead", "list", *options)]


def test_a_dead_letter_is_shown_with_all_that_was_kept(buried) -> None:
    binary, words = buried.json("dead", "show", 1, 2)

    assert {
        "id": 1,
        "stage": "admit",
        "state": "open",
        "headers": {"a": 1},
        "body": None,
        "attempts": 1,
    }.items() <= binary.items()
    assert b"\xffraw" == base64.b64decode(binary["body_base64"])
    assert ("text \x1b[31m", "text/plain") == (words["body"], words["content_type"])
    shown = buried.run("dead", "show", "--id", 2)
    assert "\x1b" not in shown.output
    assert "text \\x1b[31m" in shown.output


def test_what_cannot_be_shown_is_said(buried) -> None:
    absent, none, since = buried.run("dead", "show", 99), buried.run("dead", "show"), buried.run("dead", "list", "--since", "x")

    assert [2, 2, 2] == [each.exit_code for each in (absent, none, since)]
    assert "there is no dead letter 99" in absent.stderr
    assert "which one?" in none.stderr
    assert "how long ago" in since.stderr


def test_the_status_counts_everything(filled, database, engine, cli) -> None:
    with transaction(engine) as conn:
        dead_letters.bury(conn, [DeadLetter("admit", "malformed", "x")], datetime.now(UTC) - timedelta(minutes=1))
    with database.connect() as conn:
        conn.execute("UPDATE endpoint SET state = 'disabled', reason = 'it answered 410' WHERE name = 'audit'")

    (found,) = cli.json("status")
    shown = cli.run("status").output

    assert {"pending": 4, "delivered": 1, "dead": 1} == found["deliveries"]
    assert found["oldest_due_seconds"] > 0
    assert {"admit": 1} == found["dead_letters"]
    assert 60 <= found["oldest_dead_letter_seconds"] < 600
    assert {"acme/audit": "it answered 410"} == found["disabled_endpoints"]
    assert (3, 3) == (found["ledger"]["entries"], found["ledger"]["chains"])
    assert found["ledger"]["bytes"] > 0
    assert {"waxseal.ingest", "waxseal.deliver"} <= set(found["queues"])
    assert found["queues_error"] is None
    assert None is found["processes"]
    assert "1 dead, 1 delivered, 4 pending" in shown
    assert "3 entries in 3 chains" in shown


def test_what_large_tables_hold_is_estimated_and_said_to_be(filled, monkeypatch, database) -> None:
    with database.connect() as conn:
        conn.execute("ANALYZE delivery, entry, chain")
    monkeypatch.setattr("pipeline.store.admin.counts.EXACT_BELOW", 0)
    monkeypatch.setattr("pipeline.store.admin.counts.SUMMED_BELOW", 0)

    (found,) = filled.json("status")
    shown = filled.run("status").stdout

    assert {"pending": 4, "delivered": 1, "dead": 1} == found["deliveries"]
    assert found["deliveries_estimated"]
    assert (3, 3, True) == tuple(found["ledger"][name] for name in ("entries", "chains", "estimated"))
    assert "about 3 entries in 3 chains" in shown


def test_the_status_tells_when_the_broker_is_away(cli) -> None:
    (away,) = cli.but(amqp_url="amqp://nobody:nothing@127.0.0.1:1/").json("status")
    (unset,) = cli.but(amqp_url="").json("status")

    assert (None, None) == (away["queues"], unset["queues"])
    assert "does not answer" in away["queues_error"]
    assert "WAXSEAL_AMQP_URL" in unset["queues_error"]


def test_what_is_exported_verifies_offline(timeline, tmp_path) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"

    assert 0 == timeline.run("export", "acme", "-o", whole).exit_code
    assert 0 == timeline.run("export", "acme", "--subject", "order-1", "-o", part).exit_code

    assert "intact: 6 entries in 2 chains" in timeline.run("verify-bundle", whole).output
    assert "intact: 5 entries in 1 chain " in timeline.run("verify-bundle", part).output
    assert {"v", "tenant", "exported_at"} == set(json.loads(whole.read_text().splitlines()[0]))
    assert BODIES == [base64.b64decode(json.loads(line)["content"]["body"]) for line in part.read_text().splitlines()[1:]]
    assert 0o600 == whole.stat().st_mode & 0o777


def test_an_export_says_what_was_claimed_of_the_ledger_and_what_is_missing_for_more(timeline, database, tmp_path) -> None:
    file = tmp_path / "acme.jsonl"
    unchecked = timeline.run("export", "acme", "-o", file)
    database.run(
        "INSERT INTO claim (tenant, word, checked_at, missing)"
        " VALUES ('acme', 'sealed', '2026-01-02T03:04:05Z', 'for published: a place'), ('other', 'chained', now(), '')"
    )
    checked = timeline.run("export", "acme", "-o", file)
    (whole,) = timeline.json("export", "acme", "-o", file)
    with database.connect() as conn:
        conn.execute("DELETE FROM content WHERE seq = 2")
    broken = timeline.run("export", "acme", "--subject", "order-1", "-o", file, "--json")
    mixed = timeline.run("export", "acme", "-o", "/dev/stdout", "--json")

    assert "claim: none yet; for chained: a verification" in unchecked.stderr
    assert "claim: sealed (checked at 2026-01-02 03:04Z); for published: a place\n" in checked.stderr
    assert {"tenant": "acme", "subject": None, "entries": 6, "lost": [], "claim": "sealed"}.items() <= whole.items()
    assert ("2026-01-02T03:04:05+00:00", "for published: a place") == (whole["checked_at"], whole["missing"])
    found = json.loads(broken.stdout)
    assert (1, "none", 1, "order-1") == (broken.exit_code, found["claim"], len(found["lost"]), found["subject"])
    assert 2 == mixed.exit_code


def test_what_was_altered_is_exported_altered(timeline, database, tmp_path) -> None:
    with database.connect() as conn:
        conn.execute("UPDATE content SET body = 'forged' WHERE seq = 1")
        conn.execute("DELETE FROM content WHERE seq = 2")
    file = tmp_path / "bundle.jsonl"

    assert 1 == timeline.run("export", "acme", "-o", file).exit_code
    ended = timeline.run("verify-bundle", file, "--json")

    assert 1 == ended.exit_code
    assert ["content_altered", "content_missing"] == [json.loads(line)["kind"] for line in ended.stdout.splitlines()[:-1]]


def test_an_export_takes_the_place_of_an_older_one_and_leaves_nothing_beside_it(timeline, tmp_path) -> None:
    file = tmp_path / "bundle.jsonl"
    file.write_text("an older one")

    assert 0 == timeline.run("export", "acme", "-o", file).exit_code
    assert 7 == len(file.read_text().splitlines())
    assert [file] == list(tmp_path.iterdir())


def test_an_export_that_fails_leaves_the_older_one(timeline, tmp_path) -> None:
    file = tmp_path / "bundle.jsonl"
    file.write_text("an older one")

    ended = timeline.run("export", "acme", "--subject", "order-9", "-o", file)

    assert 2 == ended.exit_code
    assert "nothing is recorded of 'order-9'" in ended.stderr
    assert "an older one" == file.read_text()
    assert [file] == list(tmp_path.iterdir())
    assert 2 == timeline.run("export", "acme", "-o", tmp_path / "no" / "such" / "folder").exit_code


def test_a_file_that_is_being_replaced_is_whole_or_untouched(tmp_path) -> None:
    file = tmp_path / "file"
    with pytest.raises(KeyboardInterrupt), replacing(file) as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert [] == list(tmp_path.iterdir())

    with replacing(file) as out:
        out.write(b"whole")
        assert not file.exists()
    assert b"whole" == file.read_bytes()


def test_what_is_no_file_is_written_to_and_not_replaced() -> None:
    with replacing(Path("/dev/null")) as out:
        out.write(b"gone")

    assert Path("/dev/null").is_char_device()


SECRETS = ("source.secrets", "endpoint.secrets", "mailbox.credentials", "mailbox.tokens", "mail_item.message_id")


def test_a_reader_reads_what_is_asked_for_and_no_secrets_and_changes_nothing(timeline, database, tmp_path) -> None:
    database.add_source("shop", "amqp", "whsec_x")
    database.add_endpoint("billing", "http://127.0.0.1:9/", "whsec_y")
    database.run("DROP ROLE IF EXISTS test_reader")
    database.run("CREATE ROLE test_reader LOGIN PASSWORD 'reader' IN ROLE waxseal_reader")
    url = make_url(database.url).set(username="test_reader", password="reader").render_as_string(hide_password=False)
    reader = timeline.but(database_url=url)
    commands = (
        ("verify",),
        ("verify", "--tenant", "acme"),
        ("export", "acme", "-o", tmp_path / "acme.jsonl"),
        ("timeline", "acme", "order-1"),
        ("deliveries", "acme"),
        ("dead", "list"),
        ("undelivered", "acme"),
        ("events",),
        ("audit",),
        ("endpoint", "list", "acme"),
        ("mailbox", "list"),
        ("status",),
    )

    assert {} == {command: said.output for command in commands if (said := reader.run(*command)).exit_code}
    with psycopg.connect(url, autocommit=True) as conn:
        for column in SECRETS:
            table, _, name = column.partition(".")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"SELECT {name} FROM {table}")
        for statement in (
            "UPDATE chain SET seq = 9",
            "DELETE FROM entry",
            "LOCK TABLE entry IN SHARE MODE",
            "INSERT INTO audit (who) VALUES ('x')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(statement)
