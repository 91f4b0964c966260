"""Large content: a body over 256 KiB passes through the blob store to its subscriber, and is verified like any other."""

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from sqlalchemy import Engine

from ops.runtime.blobs import ASIDE, Blobs
from ops.runtime.calls_in_time import CallsInTime
from ops.servers.private import PrivateServers
from pipeline.chain import commitment
from pipeline.delivery.addresses import LOOPBACK, networks
from schemas.blob import CLAIM, LARGEST_INLINE, name
from schemas.message import Message
from support.cli import Cli
from support.deliveries import claimed, event, in_message, record
from support.ingress import Ingress, drain, running
from support.net.freezing import frozen
from support.net.ports import free_port
from support.net.s3 import make_bucket, variables
from support.waiting import wait_for
from workers.amqp.topology import IN, INBOX, RECEIVED
from workers.delivery.bodies import AWAY_SECONDS, LOST_SECONDS
from workers.delivery.store import DeliveryStore
from workers.delivery.worker import DeliveryLoop
from workers.ingest.writer import Writer
from workers.live_catalog import CatalogWatch
from workers.net.terms import Terms

BODY = os.urandom(LARGEST_INLINE + 1)
MAIL = os.urandom(1 << 20) * 25
MEMORY = 250  # MiB
DAY = 86_400


@pytest.fixture
def configured(database: Any, channel: BlockingChannel) -> Any:
    database.add_tenant("acme")
    database.add_source("open", "none", max_body=32 << 20)
    database.add_source("orders", "amqp", max_body=32 << 20)
    return database


@pytest.fixture
def publish(publish: Callable[..., None]) -> Callable[..., None]:
    """Publishes to the inbox an event, perhaps with a claim in place of its body."""

    def publish_event(body: bytes, key: str, exchange: str = IN, claim: str | None = None, **attributes: str) -> None:
        facts = {"id": "m-1", "subject": "order-1", "type": "order.paid", "specversion": "1.0", "source": "s", **attributes}
        headers = {f"cloudEvents:{name}": value for name, value in facts.items()} | ({CLAIM: claim} if claim else {})
        publish(body, key, exchange, headers=headers, message_id=facts["id"], content_type="text/plain")

    return publish_event


def file_of(place: Path, body: bytes = BODY, aside: str = "") -> Path:
    digest = name(body).reference[7:]
    return place / aside / "acme" / digest[:2] / digest[2:4] / digest


def make_old(path: Path, days: float = 10) -> None:
    at = time.time() - days * DAY
    os.utime(path, (at, at))


def contents(database: Any) -> list[tuple[bytes | None, str | None]]:
    return [(body and bytes(body), blob) for body, blob in database.rows("SELECT body, blob FROM content ORDER BY time, seq")]


def dead_letters(database: Any) -> list[tuple]:
    return database.rows("SELECT stage, reason, blob FROM dead_letter ORDER BY id")


def peak(process: subprocess.Popen) -> int:
    """The peak resident memory of the process in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def is_ready(port: int) -> bool:
    try:
        return bool(urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).status == 200)
    except OSError:
        return False


def record_large(engine: Engine, blobs: Blobs, *endpoints: int, body: bytes = BODY, id: str = "e-1") -> None:
    """Records an entry with its body in the blob store, and plans its deliveries."""
    made = event(id, body=body[:0])
    kept = blobs.put("acme", body)
    whole = type(made)(made.tenant, made.attributes, body, made.fingerprint, made.chain_key, kept.reference)
    record(engine, [whole], endpoints)


def sealed(database: Any) -> list[dict[str, Any]]:
    """The commitment of each entry, with salt and attributes."""
    rows = database.rows("SELECT pc, salt, attributes FROM entry JOIN content USING (chain_id, seq)")
    return [{"pc": pc, "content": (bytes(salt), bytes(said))} for pc, salt, said in rows]


# The whole way.


def test_25_mebibytes_pass_from_a_webhook_to_an_endpoint_to_the_byte(
    configured, start, servers, sink, cli, place, tmp_path
) -> None:
    configured.add_endpoint("billing", sink.url("/200/x"), timeout=30)
    port = free_port()
    ingress = start("ingress", ingress_port=port)
    wait_for(lambda: is_ready(port))

    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/in/acme/open", MAIL, {"Content-Type": "message/rfc822", "webhook-id": "mail-1"})
    answer = connection.getresponse()
    assert (202, {"id": "mail-1"}) == (answer.status, json.loads(answer.read()))
    assert MAIL == file_of(place, MAIL).read_bytes()

    others = [start(each) for each in ("ingest", "relay", "deliver")]
    wait_for(lambda: sink.requests, 60)
    (request,) = sink.requests
    assert MAIL == request.body
    assert "message/rfc822" == request.headers["content-type"]
    assert [(None, name(MAIL).reference)] == contents(configured)
    assert [(len(MAIL),)] == configured.rows("SELECT size FROM delivery")
    assert {} == {each.args[-1]: peak(each) for each in (ingress, *others) if peak(each) > MEMORY}

    bundle = tmp_path / "acme.jsonl"
    assert (0, 0) == (cli.run("verify").exit_code, cli.run("export", "acme", "-o", bundle).exit_code)
    assert 0 == cli.run("verify-bundle", bundle).exit_code
    (entry,) = cli.json("timeline", "acme", "open")
    assert MAIL == base64.b64decode(entry["body_base64"])


def test_what_comes_through_the_broker_is_put_before_it_is_recorded(configured, ingest, publish, place, blobs, cli) -> None:
    small = b"x" * LARGEST_INLINE
    publish(BODY, "acme.orders", id="large", time="2026-01-01T00:00:00Z")
    publish(small, "acme.orders", id="small", time="2026-01-02T00:00:00Z")
    ingest()

    wait_for(lambda: len(contents(configured)) == 2)

    assert [(None, name(BODY).reference), (small, None)] == contents(configured)
    assert BODY == blobs.get("acme", name(BODY).reference)
    assert 0 == cli.run("verify").exit_code


def test_the_store_may_be_s3(configured, ingest, publish, s3, cli, monkeypatch) -> None:
    for variable, value in variables(s3).items():
        monkeypatch.setenv(variable, value)
    bucket = make_bucket(s3)
    publish(b"", "acme.open", RECEIVED, Blobs(bucket).put("acme", BODY).claim, id="claimed")
    publish(BODY + b"!", "acme.orders", id="put", time="2026-01-01T00:00:00Z")
    ingest(Blobs(bucket))

    wait_for(lambda: len(contents(configured)) == 2)

    assert [(None, name(BODY + b"!").reference), (None, name(BODY).reference)] == contents(configured)
    assert 0 == cli.but(blobs=bucket).run("verify").exit_code


def test_many_large_messages_at_once_are_taken_in_bounded_memory(configured, start, publish, blobs) -> None:
    bodies = [n.to_bytes(4, "big") * (2 << 20) for n in range(20)]  # 8 MiB each
    for n, body in enumerate(bodies):
        publish(b"", "acme.open", RECEIVED, blobs.put("acme", body).claim, id=f"m-{n}")
    ingest = start("ingest")

    wait_for(lambda: len(contents(configured)) == 20)

    assert {name(body).reference for body in bodies} == {blob for _, blob in contents(configured)}
    assert peak(ingest) < MEMORY


# The claim check on the message.


@pytest.fixture
def ingress(configured: Any, servers: PrivateServers, place: Path) -> Iterator[Ingress]:
    with running(configured.worker_url, configured.vault, servers.amqp_url, blobs=str(place)) as one:
        wait_for(lambda: one.ready)
        yield one


def test_a_large_webhook_is_a_name_on_the_broker_and_a_small_one_itself(ingress, servers, place) -> None:
    small = b"x" * LARGEST_INLINE
    assert [202, 202] == [ingress.post("open", body).status for body in (BODY, small)]

    (properties, large), (_, other) = drain(servers.amqp_url)

    assert (b"", name(BODY), len(BODY)) == (large.body, large.blob, large.size)
    assert f"{name(BODY).reference}/{len(BODY)}" == properties.headers[CLAIM]
    assert (small, None) == (other.body, other.blob)
    assert BODY == file_of(place).read_bytes()


def test_only_the_large_ones_of_a_batch_are_put_away(ingress, servers) -> None:
    common = {"specversion": "1.0", "type": "t", "source": "s", "subject": "s", "datacontenttype": "text/plain"}
    batch = [{**common, "id": "large", "data": "x" * (LARGEST_INLINE + 1)}, {**common, "id": "small", "data": "y"}]
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    assert 202 == ingress.post("open", json.dumps(batch).encode(), headers).status

    assert [(b"", LARGEST_INLINE + 1), (b"y", 1)] == [(each.body, each.size) for _, each in drain(servers.amqp_url)]


def test_when_the_blob_store_is_away_large_webhooks_are_refused_and_small_ones_taken(ingress, servers, place) -> None:
    place.write_bytes(b"")  # a file is where the folder should be
    refused, taken = ingress.post("open", BODY), ingress.post("open", b"small")

    assert (503, "5", "urn:waxseal:problem:unavailable") == (
        refused.status,
        refused.headers["retry-after"],
        refused.json["type"],
    )
    assert str(place) not in refused.body.decode()
    assert 202 == taken.status
    assert [b"small"] == [message.body for _, message in drain(servers.amqp_url)]


def test_a_claim_that_an_upstream_system_forges_reads_nothing(configured, ingest, publish, blobs, cli) -> None:
    secret = blobs.put("acme", BODY)
    publish(b"", "acme.orders", claim=secret.claim, id="forged")
    publish(b"mine", "acme.orders", claim=secret.claim, id="forged with a body")
    publish(b"", "acme.orders", RECEIVED, secret.claim, id="by the wrong exchange")
    publish(b"honest", "acme.orders", id="honest")
    ingest()

    wait_for(lambda: len(contents(configured)) + len(dead_letters(configured)) == 4)

    assert [("admit", "malformed", None)] * 2 + [("admit", "wrong_kind", secret.reference)] == dead_letters(configured)
    assert [(b"honest", None)] == contents(configured)


def test_a_claim_that_cannot_be_read_is_a_dead_letter(configured, ingest, publish) -> None:
    claims = ["/", "sha256:00/1", f"{name(BODY).reference}/{len(BODY)}x", f"sha256:{'0' * 64}"]
    for n, claim in enumerate(claims):
        publish(b"", "acme.open", RECEIVED, claim, id=f"m-{n}")
    ingest()

    wait_for(lambda: len(dead_letters(configured)) == len(claims))

    assert [("admit", "malformed", None)] * len(claims) == dead_letters(configured)
    assert [] == contents(configured)


def test_a_claim_says_the_size_that_the_limit_is_held_against(configured, ingest, publish, blobs) -> None:
    configured.add_source("narrow", "none", max_body=LARGEST_INLINE)
    kept = blobs.put("acme", BODY)
    publish(b"", "acme.narrow", RECEIVED, kept.claim, id="too large")
    publish(b"", "acme.open", RECEIVED, f"{kept.reference}/{LARGEST_INLINE + 2}", id="not that size")
    publish(b"", "acme.open", RECEIVED, f"{kept.reference}/1", id="too small to be one")
    ingest()

    wait_for(lambda: len(dead_letters(configured)) == 3)

    assert ["malformed", "malformed", "too_large"] == sorted(reason for _, reason, _ in dead_letters(configured))
    assert [] == contents(configured)


def test_another_tenants_blob_is_not_read(configured, ingest, publish, blobs) -> None:
    configured.add_tenant("other")
    configured.add_source("open", "none", tenant="other")
    publish(b"", "other.open", RECEIVED, blobs.put("acme", BODY).claim)
    ingest()

    wait_for(lambda: dead_letters(configured))

    assert [("admit", "blob_missing", name(BODY).reference)] == dead_letters(configured)
    assert [] == contents(configured)


def test_a_claim_is_not_recorded_unfetched_when_the_catalog_moves_in_between(configured, engine, blobs) -> None:
    kept = blobs.put("acme", BODY)
    facts = {"cloudEvents:id": "m-1", "cloudEvents:subject": "s", "cloudEvents:specversion": "1.0", CLAIM: kept.claim}
    writer = Writer(engine, configured.vault, blobs, lambda: False)
    writer.load()
    refused = writer.judge(Message("acme.later", b"", headers=facts, trusted=True))
    configured.add_source("later", "none")
    writer.write([refused])
    writer.close()

    assert refused.refusal
    assert [(None, kept.reference)] == contents(configured)
    assert [] == dead_letters(configured)
    assert [True] == [each["pc"] == commitment(*each["content"], BODY) for each in sealed(configured)]


# The store is unreachable, or has lost a blob.


def test_ingest_waits_for_a_blob_store_that_is_away(configured, start, publish, blobs, place) -> None:
    claim = blobs.put("acme", BODY).claim
    place.rename(place.with_name("unmounted"))
    publish(b"", "acme.open", RECEIVED, claim)
    port = free_port()
    start("ingest", metrics_port=port)
    wait_for(lambda: "blob store cannot get" in _readiness(port))

    assert ([], []) == (contents(configured), dead_letters(configured))
    place.with_name("unmounted").rename(place)
    wait_for(lambda: contents(configured))

    assert [(None, name(BODY).reference)] == contents(configured)


def _readiness(port: int) -> str:
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/readyz")
        return connection.getresponse().read().decode()
    except OSError:
        return ""


def test_a_message_whose_blob_is_lost_is_a_dead_letter_that_can_be_replayed(
    configured, ingest, publish, blobs, place, cli
) -> None:
    claim = blobs.put("acme", BODY).claim
    file_of(place).rename(place / "elsewhere")
    publish(b"", "acme.open", RECEIVED, claim)
    ingest()
    wait_for(lambda: dead_letters(configured))

    assert [("admit", "blob_missing", name(BODY).reference)] == dead_letters(configured)
    (letter,) = cli.json("dead", "list")
    (shown,) = cli.json("dead", "show", letter["id"])
    assert (name(BODY).reference, None) == (shown["blob"], shown["body_base64"])
    (place / "elsewhere").rename(file_of(place))
    (shown,) = cli.json("dead", "show", letter["id"])
    assert BODY == base64.b64decode(shown["body_base64"])
    assert 0 == cli.run("dead", "replay", "--all", "--yes").exit_code
    wait_for(lambda: contents(configured))

    assert [(None, name(BODY).reference)] == contents(configured)
    assert 0 == cli.run("verify").exit_code


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda path: path.unlink(), "blob_missing"),
        (lambda path: os.truncate(path, len(BODY) - 1), "blob_altered"),
        (lambda path: path.write_bytes(BODY[:-1] + b"!" if BODY[-1:] != b"!" else BODY[:-1] + b"?"), "blob_altered"),
    ],
    ids=["missing", "truncated", "altered"],
)
def test_verify_names_a_blob_that_is_not_as_it_was(configured, engine, blobs, place, cli, tmp_path, damage, kind) -> None:
    record_large(engine, blobs)
    record_large(engine, blobs, body=BODY + b"untouched", id="e-2")
    assert 0 == cli.run("verify").exit_code
    damage(file_of(place))

    ended = cli.run("verify", "--json")
    *faults, verdict = map(json.loads, ended.stdout.splitlines())
    assert (1, "broken", 2) == (ended.exit_code, verdict["verdict"], verdict["entries"])
    assert [("acme", "order-1", 0, kind)] == [(each["tenant"], each["subject"], each["seq"], each["kind"]) for each in faults]
    exported = cli.run("export", "acme", "-o", tmp_path / "acme.jsonl")
    assert (1, True) == (
        exported.exit_code,
        f"'order-1' entry 0: the blob {name(BODY).reference}" in exported.stderr,
    )
    assert "content_missing" in cli.run("verify-bundle", tmp_path / "acme.jsonl").stdout
    assert [None, True] == [each["body_base64"] and True for each in cli.json("timeline", "acme", "order-1")]


def test_a_reference_to_another_body_is_an_altered_content(configured, engine, blobs, cli) -> None:
    record_large(engine, blobs)
    other = blobs.put("acme", BODY + b"other")
    with configured.connect() as conn:
        conn.execute("UPDATE content SET blob = %s", (other.reference,))

    ended = cli.run("verify", "--json")

    assert ["content_altered"] == [json.loads(line)["kind"] for line in ended.stdout.splitlines()[:-1]]


def test_while_the_blob_store_is_away_nothing_is_called_missing(configured, engine, blobs, place, cli, tmp_path) -> None:
    record_large(engine, blobs)
    place.rename(place.with_name("unmounted"))

    for command in (["verify"], ["export", "acme", "-o", tmp_path / "acme.jsonl"], ["timeline", "acme", "order-1"]):
        ended = cli.run(*command)
        assert (2, False) == (ended.exit_code, "missing" in ended.output)
        assert "check WAXSEAL_BLOBS" in ended.stderr
    assert not (tmp_path / "acme.jsonl").exists()


# Delivery.


@pytest.fixture
def deliver(configured: Any, engine: Engine, blobs: Blobs) -> Iterator[Callable[..., None]]:
    """Claims everything due by then, and waits until it is settled."""
    watch = CatalogWatch(engine, configured.vault)
    watch.start()
    delivery_loop = DeliveryLoop(DeliveryStore(engine, 90.0), watch, Terms("waxseal/test", networks(LOOPBACK)), blobs)
    delivery_loop.open(lambda: None)
    watch.wait(10)

    def deliver(at: datetime | None = None) -> None:
        lease, claims = claimed(engine, now=at)
        delivery_loop.deliver(lease.hex, time.time() + 90, in_message(claims))
        wait_for(lambda: not configured.rows("SELECT FROM delivery WHERE lease = %s", lease) and not delivery_loop.busy)

    yield deliver
    delivery_loop.close(0.2)
    watch.stop()


def standing(database: Any) -> list[tuple]:
    """The state, attempts and time of the next try of each delivery."""
    return database.rows("SELECT state, attempts, next_attempt_at FROM delivery ORDER BY id")


def is_after(due: datetime, seconds: float, began: datetime) -> bool:
    """Whether `due` is as many seconds after a time between `began` and now."""
    return began <= due - timedelta(seconds=seconds) <= datetime.now(UTC)


def test_a_delivery_waits_while_the_blob_store_is_away_and_is_no_failed_try(
    configured, engine, blobs, place, sink, deliver
) -> None:
    record_large(engine, blobs, configured.add_endpoint("billing", sink.url("/200/x")))
    place.rename(place.with_name("unmounted"))
    began = datetime.now(UTC)
    deliver()

    ((state, tries, due),) = standing(configured)
    assert ("pending", 0) == (state, tries)
    assert is_after(due, AWAY_SECONDS, began)
    assert ([], [], []) == (sink.requests, dead_letters(configured), configured.rows("SELECT FROM attempt"))


def test_a_delivery_whose_blob_is_lost_is_shown_and_tried_again_until_it_is_there(
    configured, engine, blobs, place, sink, deliver
) -> None:
    record_large(engine, blobs, configured.add_endpoint("billing", sink.url("/200/x")))
    file_of(place).rename(place / "elsewhere")
    deliver()
    began = datetime.now(UTC)
    deliver(began + timedelta(seconds=LOST_SECONDS + 1))

    ((state, tries, due),) = standing(configured)
    assert ("pending", 0) == (state, tries)
    assert is_after(due, LOST_SECONDS, began)
    assert [("actor", "BlobLost", 2)] == configured.rows("SELECT stage, error, attempts FROM dead_letter")
    (place / "elsewhere").rename(file_of(place))
    deliver(datetime.now(UTC) + timedelta(seconds=LOST_SECONDS + 1))

    assert [("delivered", 1, None)] == standing(configured)
    assert [BODY] == [request.body for request in sink.requests]


def test_small_deliveries_pass_those_that_wait_for_the_blob_store(configured, engine, blobs, place, sink, deliver) -> None:
    billing = configured.add_endpoint("billing", sink.url("/200/x"))
    record_large(engine, blobs, billing)
    record(engine, [event(f"small-{n}", subject=f"small-{n}", body=b"small") for n in range(5)], [billing])
    file_of(place).unlink()
    os.mkfifo(file_of(place))  # opening it blocks
    blobs._calls = CallsInTime(1.0)

    deliver()

    assert [b"small"] * 5 == [request.body for request in sink.requests]
    assert ["pending", *["delivered"] * 5] == [state for state, _, _ in standing(configured)]
    os.close(os.open(file_of(place), os.O_RDWR))


# Orphans.


def prune(cli: Cli, *more: str) -> list[dict]:
    return cli.owner.json("prune", "--blobs-older-than", "7d", *more)


def test_what_was_put_for_a_message_that_was_never_published_is_taken_away_in_two_steps(
    configured, servers, place, cli, channel
) -> None:
    with running(configured.worker_url, configured.vault, servers.amqp_url, blobs=str(place), confirm_timeout=0.5) as ingress:
        wait_for(lambda: ingress.ready)
        with frozen(servers.rabbitmq_pid):
            assert 503 == ingress.post("open", BODY).status
        wait_for(lambda: ingress.post("open", b"after").status == 202)  # the broker has what was sent before
    channel.queue_purge(INBOX)

    assert [{"orphans": 0, "orphans_aside": 0, "bytes": 0}] == prune(cli, "--yes")
    make_old(file_of(place))
    orphan = {"orphans": 1, "orphans_aside": 0, "bytes": len(BODY)}
    assert [orphan] == prune(cli) == prune(cli, "--dry-run")
    assert file_of(place).exists()
    assert [orphan, {"taken_blobs": 1}] == prune(cli, "--yes")
    aside = file_of(place, aside=ASIDE)
    assert (False, BODY) == (file_of(place).exists(), aside.read_bytes())
    assert [{"orphans": 0, "orphans_aside": 0, "bytes": 0}] == prune(cli, "--yes")
    make_old(aside)
    assert [{"orphans": 0, "orphans_aside": 1, "bytes": len(BODY)}, {"taken_blobs": 1}] == prune(cli, "--yes")
    assert not aside.exists()
    assert [("prune blobs", 1), ("prune blobs", 1)] == [(act["act"], act["done"]) for act in cli.json("audit")]


def test_what_an_entry_or_a_dead_letter_refers_to_stays_and_comes_back(
    configured, engine, blobs, ingest, publish, place, cli
) -> None:
    record_large(engine, blobs)
    buried = blobs.put("acme", BODY + b"buried")
    publish(b"", "acme.nobody", RECEIVED, buried.claim)
    ingest()
    wait_for(lambda: dead_letters(configured))
    paths = [file_of(place), file_of(place, BODY + b"buried")]
    for path in paths:
        make_old(path)
    assert [{"orphans": 0, "orphans_aside": 0, "bytes": 0}] == prune(cli, "--yes")

    for kept in list(blobs.stored()):
        blobs.set_aside(kept)
    for kept in blobs.stored(aside=True):
        make_old(place / kept.key)
    assert [{"orphans": 0, "orphans_aside": 0, "bytes": 0}] == prune(cli, "--yes")

    assert (True, []) == (all(path.exists() for path in paths), list(blobs.stored(aside=True)))
    assert 0 == cli.run("verify").exit_code


def test_a_message_that_waited_for_longer_than_its_blob_lay_aside_still_finds_it(
    configured, blobs, ingest, publish, place, cli
) -> None:
    claim = blobs.put("acme", BODY).claim
    make_old(file_of(place))
    prune(cli, "--yes")
    assert not file_of(place).exists()
    publish(b"", "acme.open", RECEIVED, claim)
    ingest()
    wait_for(lambda: contents(configured))

    make_old(file_of(place, aside=ASIDE))
    prune(cli, "--yes")
    assert BODY == file_of(place).read_bytes()
    assert 0 == cli.run("verify").exit_code


def test_nothing_is_taken_away_while_messages_wait(configured, blobs, publish, place, cli, monkeypatch) -> None:
    monkeypatch.setattr("ops.cli.prune._LOOKS", 2)
    claim = blobs.put("acme", BODY).claim
    make_old(file_of(place))
    publish(b"", "acme.open", RECEIVED, claim)

    refused = cli.owner.run("prune", "--blobs-older-than", "7d", "--yes")

    assert (2, True) == (refused.exit_code, f"1 messages wait in {INBOX}" in refused.stderr)
    assert file_of(place).exists()
    assert 2 == cli.owner.run("prune", "--blobs-older-than", "23h").exit_code


def test_what_is_put_again_in_the_middle_of_a_collection_stays(configured, engine, blobs, place) -> None:
    from ops.admin.bulk import Act
    from ops.admin.orphan_blobs import collect, find

    blobs.put("acme", BODY)
    make_old(file_of(place))
    orphans = find(engine, blobs, datetime.now(UTC) - timedelta(days=7))
    assert 1 == len(orphans)
    blobs.put("acme", BODY)

    assert 0 == collect(engine, blobs, Act("ada", "prune blobs", {}), orphans, lambda _done: None)
    assert file_of(place).exists()
