"""`waxseal doctor`: what is wrong with the set-up, and that what it says to mend mends it."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
from cryptography.fernet import Fernet
from dramatiq.common import dq_name, xq_name
from sqlalchemy import Engine

from ops.admin.doctor import broker_checks, machine_checks
from ops.admin.doctor.broker_checks import BrokerFacts, check_broker
from ops.admin.doctor.cluster_checks import ClusterFacts, Queue, check_cluster
from ops.admin.doctor.ledger_protections import check_grants
from ops.admin.verifying.role_rights import KNOWN
from ops.runtime.db import make_engine
from support.cli import Cli
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY, QUEUE
from workers.amqp.topology import UNROUTED, declare
from workers.commands.inspect_broker import QUORUM, inspect_broker

pytestmark = pytest.mark.usefixtures("durable")

NOWHERE = "127.0.0.1:1"
MACHINE = ("disk",)  # says what the machine of the tests has

DAMAGES = """
ALTER TABLE entry DISABLE TRIGGER append_only;
ALTER TABLE entry ENABLE TRIGGER append_only_whole;
ALTER TABLE entry DROP CONSTRAINT entry_first;
GRANT DELETE ON content TO PUBLIC;
GRANT UPDATE ON entry TO waxseal_writer;
ALTER TABLE entry DISABLE TRIGGER entry_link;
ALTER TABLE content ENABLE REPLICA TRIGGER content_entry;
ALTER TABLE chain DISABLE TRIGGER forward_only;
GRANT UPDATE (key) ON chain TO waxseal_writer;
REVOKE UPDATE (error) ON delivery FROM waxseal_writer;
GRANT SELECT (secrets) ON endpoint TO waxseal_reader;
REVOKE INSERT ON delivery FROM waxseal_writer;
ALTER TABLE leaf DISABLE TRIGGER append_only_whole;
ALTER TABLE log_key DISABLE TRIGGER only_retires;
GRANT UPDATE ON log_key TO waxseal_sealer;
REVOKE INSERT (receipt) ON anchor FROM waxseal_sealer;
GRANT DELETE ON content TO waxseal_eraser;
REVOKE UPDATE ON verified_point FROM waxseal_verifier;
GRANT SELECT (hash) ON access_token TO waxseal_reader;
GRANT SELECT ON console_session TO waxseal_writer;
REVOKE UPDATE (ended_at) ON console_session FROM waxseal_console;
GRANT UPDATE (hash) ON verified_point TO waxseal_writer;
DROP TABLE attempt_{tomorrow};
ALTER DATABASE {database} SET synchronous_commit = off
"""
SAID = {
    ("append-only", "the trigger append_only of entry is not always enabled"),
    ("append-only", "the trigger append_only_whole of entry is not always enabled"),
    ("append-only", "the constraint entry_first of entry is missing, not valid, or its index is not in use"),
    ("append-only", "the trigger entry_link of entry is not always enabled"),
    ("append-only", "the trigger content_entry of content is not always enabled"),
    ("append-only", "the trigger forward_only of chain is not always enabled"),
    ("grants", "PUBLIC has DELETE on content"),
    ("grants", "waxseal_writer has UPDATE on entry"),
    ("grants", "waxseal_writer has UPDATE(key) on chain"),
    ("grants", "waxseal_writer lacks UPDATE(error) on delivery"),
    ("grants", "waxseal_reader has SELECT(secrets) on endpoint"),
    ("grants", "waxseal_writer lacks INSERT on delivery"),
    ("append-only", "the trigger append_only_whole of leaf is not always enabled"),
    ("append-only", "the trigger only_retires of log_key is not always enabled"),
    ("grants", "waxseal_sealer has UPDATE on log_key"),
    ("grants", "waxseal_sealer lacks INSERT(receipt) on anchor"),
    ("grants", "waxseal_eraser has DELETE on content"),
    ("grants", "waxseal_verifier lacks UPDATE on verified_point"),
    ("grants", "waxseal_reader has SELECT(hash) on access_token"),
    ("grants", "waxseal_writer has SELECT on console_session"),
    ("grants", "waxseal_console lacks UPDATE(ended_at) on console_session"),
    ("grants", "waxseal_writer has UPDATE(hash) on verified_point"),
    ("attempts", "there is no partition for {day}: attempts of that day cannot be stored"),
    ("durable commits", "synchronous_commit is off: a crash loses what was acknowledged"),
}


@pytest.fixture
def doctor(cli: Cli, channel: Any, database: Any, tmp_path: Path) -> Cli:
    """Commands on a system that has its queues, a store for blobs, and a port for the ingress."""
    (tmp_path / "blobs").mkdir()
    database.run("SELECT make_attempt_partitions((now() AT TIME ZONE 'UTC')::date, 3)")
    return cli.but(ingress_port=0)


@pytest.fixture(scope="module")
def owner(shared_database: Any) -> Iterator[Engine]:
    """A pool on a migrated database with the rights of a superuser."""
    engine = make_engine(shared_database.url, pool_size=1)
    yield engine
    engine.dispose()


def wrong(cli: Cli) -> dict[tuple[str, str], str]:
    """What is wrong, by check and finding, with what mends it; but for what the machine of the tests lacks."""
    ended = cli.run("doctor", "--json", "--data", "/nonexistent")
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert any(each["state"] == "wrong" for each in found) == ended.exit_code, ended.output
    assert all(each["mend"] for each in found if each["state"] != "ok")
    return {
        (each["check"], each["found"]): each["mend"]
        for each in found
        if each["state"] == "wrong" and each["check"] not in MACHINE
    }


def test_nothing_is_wrong_with_a_sound_set_up(doctor) -> None:
    ended = doctor.run("doctor", "--data", "/nonexistent")

    assert {} == wrong(doctor)
    rows = {line[7:29].strip() for line in ended.stdout.splitlines()}
    assert {"postgres version", "clocks", "durable commits", "synchronous standbys", "schema", "login", "append-only"} <= rows
    assert {"grants", "attempts", "broker version", "broker limits", "queues", "queue types", "exchanges"} <= rows
    assert "broker confirms" in rows
    assert {"processes", "ports", "disk", "blob store", "DNS"} <= rows
    assert "test_worker is a member of waxseal_writer, and no owner" in ended.stdout


def test_damaged_protections_rights_and_durability_are_named_and_mended_as_it_says(doctor, database) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    (name,) = database.rows("SELECT current_database()")[0]
    for statement in DAMAGES.format(tomorrow=f"{tomorrow:%Y%m%d}", database=name).strip().split(";\n"):
        database.run(statement)
    found = wrong(doctor)
    try:
        assert {(check, said.format(day=tomorrow)) for check, said in SAID} == found.keys()
        for mend in found.values():
            statement = mend.removeprefix("as the database's owner: ").partition(";")[0]
            if statement.startswith(("ALTER", "GRANT", "REVOKE")):
                database.run(statement)
        assert {"attempts", "durable commits", "append-only"} == {check for check, _ in wrong(doctor)}
        assert 3 == len(wrong(doctor))
    finally:
        database.run(f"ALTER DATABASE {name} RESET synchronous_commit")
        database.run("ALTER TABLE entry ADD CONSTRAINT entry_first CHECK ((seq = 0) = (prev_hash IS NULL))")
        database.run("SELECT make_attempt_partitions((now() AT TIME ZONE 'UTC')::date, 3)")


CHANGES = [
    ("GRANT EXECUTE ON FUNCTION erase_content TO PUBLIC", "PUBLIC has EXECUTE on function erase_content"),
    ("GRANT EXECUTE ON FUNCTION lock_for_erasure TO waxseal_writer", "waxseal_writer has EXECUTE on function lock_for_erasure"),
    ("GRANT EXECUTE ON FUNCTION letters_of TO waxseal_reader", "waxseal_reader has EXECUTE on function letters_of"),
    ("GRANT EXECUTE ON FUNCTION note_pending TO PUBLIC", "PUBLIC has EXECUTE on function note_pending"),
    ("REVOKE EXECUTE ON FUNCTION entry_envelope FROM PUBLIC", "PUBLIC lacks EXECUTE on function entry_envelope"),
    ("REVOKE ALL ON FUNCTION erase_content FROM waxseal_eraser", "waxseal_eraser lacks EXECUTE on function erase_content"),
    (
        "GRANT UPDATE ON SEQUENCE log_pending_id_seq TO waxseal_sealer",
        "waxseal_sealer has UPDATE on sequence log_pending_id_seq",
    ),
    ("REVOKE USAGE ON SEQUENCE delivery_id_seq FROM waxseal_writer", "waxseal_writer lacks USAGE on sequence delivery_id_seq"),
    ("GRANT SELECT ON SEQUENCE audit_id_seq TO PUBLIC", "PUBLIC has SELECT on sequence audit_id_seq"),
    ("ALTER ROLE waxseal_writer SUPERUSER", "waxseal_writer has SUPERUSER"),
    ("ALTER ROLE waxseal_reader BYPASSRLS", "waxseal_reader has BYPASSRLS"),
    ("ALTER ROLE waxseal_sealer CREATEROLE", "waxseal_sealer has CREATEROLE"),
    ("ALTER ROLE waxseal_eraser REPLICATION", "waxseal_eraser has REPLICATION"),
    ("ALTER ROLE waxseal_verifier LOGIN", "waxseal_verifier has LOGIN"),
    ("ALTER ROLE waxseal_verifier NOINHERIT", "waxseal_verifier lacks INHERIT"),
    ("ALTER ROLE test_worker SUPERUSER", "test_worker, a member of waxseal_writer, has SUPERUSER"),
    ("GRANT waxseal_eraser TO waxseal_writer", "waxseal_writer is a member of waxseal_eraser"),
    ("GRANT pg_write_all_data TO waxseal_reader", "waxseal_reader is a member of pg_write_all_data"),
    ("REVOKE waxseal_reader FROM waxseal_verifier", "waxseal_verifier is no member of waxseal_reader"),
    ("GRANT waxseal_eraser TO test_worker", "test_worker is a member of waxseal_eraser and waxseal_writer: "),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=[change for change, _ in CHANGES])
def test_a_right_that_a_role_has_too_much_or_lacks_is_named_and_mended_as_it_says(owner, change, told) -> None:
    with owner.connect() as conn:  # rolled back: the roles are those of every database
        before = [each for each in check_grants(conn) if each.state != "ok"]
        conn.exec_driver_sql(change)
        found = [each for each in check_grants(conn) if each.state != "ok"]
        for each in found:
            if each.state == "wrong":
                conn.exec_driver_sql(each.mend.partition(": ")[2])
        after = [each for each in check_grants(conn) if each.state == "wrong"]

    assert [] == before
    assert any(each.found.startswith(told) for each in found), found
    assert [] == after


def test_the_rights_on_every_function_and_sequence_are_compared(owner) -> None:
    functions = "SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    sequences = "SELECT 'sequence ' || relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
    with owner.connect() as conn:
        found = {name for (name,) in conn.exec_driver_sql(f"{functions} UNION ALL {sequences}")}

    assert found == {name for name in KNOWN if " " in name}


def test_a_server_that_is_away_ends_only_its_own_checks(doctor) -> None:
    without = wrong(doctor.but(database_url=f"postgresql://u:secret@{NOWHERE}/x", amqp_url=f"amqp://u:secret@{NOWHERE}/"))

    assert {"postgres", "broker"} == {check for check, _ in without}
    assert "secret" not in str(without)
    unset = wrong(doctor.but(database_url="", amqp_url="", keys=""))
    assert {"postgres", "broker", "keys"} == {check for check, _ in unset}


def test_settings_that_cannot_be_used_are_named(doctor, servers) -> None:
    ((check, said),) = wrong(doctor.but(batch_size="many", log="loud"))
    (prefetch,) = wrong(doctor.but(prefetch=3000))

    assert "settings" == check
    assert "WAXSEAL_BATCH_SIZE" in said
    assert "WAXSEAL_LOG" in said
    assert ("prefetch", "3000, less than twice the batch size of 2000") == prefetch


def test_keys_that_do_not_open_a_tenants_secrets_are_named(doctor, database) -> None:
    database.add_tenant("acme")

    assert {} == wrong(doctor)
    other = wrong(doctor.but(keys=Fernet.generate_key().decode()))
    assert {("keys", "they do not decrypt the secrets of acme")} == other.keys()


def test_names_without_an_address_a_store_that_refuses_and_a_port_in_use(doctor, database, tmp_path, monkeypatch) -> None:
    database.add_tenant("acme")
    database.add_endpoint("lost", "https://hooks.nowhere.example/x")
    database.add_endpoint("here", "http://127.0.0.1:9/x")

    resolve = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **others: Any) -> Any:
        if host.endswith(".example"):
            raise socket.gaierror(-2, "not known")
        return resolve(host, *rest, **others)

    monkeypatch.setattr(machine_checks.socket, "getaddrinfo", look_up)
    (tmp_path / "blobs" / ".probe").write_text("in the way")
    found = dict(wrong(doctor).keys())

    assert {"DNS", "blob store"} == found.keys()
    assert "hooks.nowhere.example has no address" in found["DNS"]
    assert "used by endpoint acme/lost" in found["DNS"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}, the ingress', is in use" in doctor.but(ingress_port=port).run("doctor").stdout


@contextmanager
def another_queue(channel: Any, servers: Any) -> Iterator[None]:
    """The queue of unrouted messages as somebody else might have declared it."""
    channel.queue_delete(UNROUTED)
    channel.queue_declare(UNROUTED, durable=True)
    try:
        yield
    finally:
        channel.queue_delete(UNROUTED)
        with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
            declare(connection.channel())


def test_a_queue_of_another_type_is_named(doctor, channel, servers) -> None:
    with another_queue(channel, servers):
        ((check, said),) = wrong(doctor)

    assert "queues" == check
    assert "waxseal.unrouted: " in said
    assert "inequivalent arg" in said
    assert {None} == set(inspect_broker(servers.amqp_url).queues.values())


def test_the_queues_that_are_on_one_broker_only_are_named(channel, servers) -> None:
    delayed = DELIVER_TOPOLOGY[-2][1]
    facts = inspect_broker(servers.amqp_url)
    channel.queue_delete(delayed["queue"])
    channel.queue_declare(**delayed | {"arguments": delayed["arguments"] | QUORUM})
    after = inspect_broker(servers.amqp_url)
    channel.queue_delete(delayed["queue"])
    channel.queue_declare(**delayed)

    assert [QUEUE, dq_name(QUEUE), xq_name(QUEUE)] == facts.classic
    assert [QUEUE, xq_name(QUEUE)] == after.classic
    (told,) = (each for each in check_broker(facts) if each.check == "queue types")
    assert ("note", True) == (told.state, told.found.startswith(f"{QUEUE}, "))
    assert "update_vhost_metadata" in told.mend


def test_a_private_server_is_not_asked_for_others_beside_it(doctor, servers) -> None:
    told = {True: set(), False: set()}
    for alone, data in ((True, servers.data), (False, Path("/nonexistent"))):
        ended = doctor.run("doctor", "--json", "--data", str(data))
        told[alone] = {json.loads(line)["check"] for line in ended.stdout.splitlines()}

    assert {"queue types", "synchronous standbys"} == told[False] - told[True] - {"processes"}


@pytest.mark.parametrize(
    ("check", "facts"),
    [
        ("broker version", {"version": "3.9.27"}),
        ("broker limits", {"channel_max": 4}),
        ("broker limits", {"frame_max": 4096}),
        ("exchanges", {"exchanges": {"waxseal.in": "ACCESS_REFUSED"}}),
        ("broker confirms", {"unconfirmed": "the broker is in alarm: low on disk"}),
    ],
)
def test_a_broker_that_cannot_do_its_work_is_told(check: str, facts: dict[str, Any]) -> None:
    sound = {"version": "4.2.8", "heartbeat": 60, "channel_max": 2047, "frame_max": 131072}

    assert [] == [each for each in check_broker(BrokerFacts(**sound)) if each.state != "ok"]
    assert [check] == [each.check for each in check_broker(BrokerFacts(**{**sound, **facts})) if each.state == "wrong"]
    missing = check_broker(BrokerFacts(**sound, queues={"waxseal.ingest": broker_checks.MISSING}))
    assert ["queues"] == [each.check for each in missing if each.state == "note"]


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        ("r3 of 3 nodes: not running", {"running": ["r1", "r2"]}),
        ("r1 was cut off from r2, r3", {"partitions": {"r1": ["r2", "r3"]}}),
        ("waxseal.ingest is on 1 of 3 nodes", {"queues": {"waxseal.ingest": Queue(1, 1)}}),
        ("waxseal.ingest: 2 of 3 members are there", {"queues": {"waxseal.ingest": Queue(3, 2)}}),
    ],
)
def test_a_cluster_that_lacks_nodes_or_members_of_queues_is_told(said: str, facts: dict[str, Any]) -> None:
    sound = {"nodes": ["r1", "r2", "r3"], "running": ["r1", "r2", "r3"], "queues": {"waxseal.ingest": Queue(3, 3)}}

    assert ["ok", "ok"] == [each.state for each in check_cluster(ClusterFacts(**sound))]
    (fault,) = [each for each in check_cluster(ClusterFacts(**{**sound, **facts})) if each.state == "wrong"]
    assert fault.found.startswith(said)
    assert fault.mend


@pytest.mark.parametrize(("version", "told"), [("3.10.8", True), ("3.12.4", True), ("3.12.5", False), ("4.0.0-rc.1", False)])
def test_a_cluster_whose_channels_do_not_look_for_another_leader_is_told(version: str, told: bool) -> None:
    facts = {"nodes": ["r1", "r2"], "running": ["r1", "r2"], "versions": {"r1": "4.2.8", "r2": version}}

    notes = [each for each in check_cluster(ClusterFacts(**facts)) if each.state == "note"]
    assert told == (f"RabbitMQ {version} refuses" in "".join(each.found for each in notes))


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"tick": 6, "withheld": 1}, []),
        ({"tick": 60}, ["net_ticktime = 6"]),
        ({"tick": 6, "withheld": 60000}, ["consumer_disconnected_timeout = 1"]),
    ],
)
def test_parameters_of_a_cluster_by_which_later_events_overtake_earlier_ones_are_told(
    parameters: dict[str, int], told: list[str]
) -> None:
    facts = ClusterFacts(nodes=["r1", "r2", "r3"], running=["r1", "r2", "r3"], **parameters)

    mends = [each.mend for each in check_cluster(facts) if each.check == "event order"]
    assert [f"rabbitmq.conf of each node: {one}; then restart them one by one" for one in told] == mends


def test_the_cluster_is_not_looked_at_by_a_command_that_fails(doctor) -> None:
    ended = doctor.run("doctor", "--json", "--rabbitmqctl", "false")
    (told,) = [each for each in map(json.loads, ended.stdout.splitlines()) if each["check"] == "broker cluster"]
    assert ("wrong", "false: exited with 1:") == (told["state"], told["found"].strip())
