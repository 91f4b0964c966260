"""Every kind of source through an ingress process, signed by `waxseal send` and by the providers' own libraries."""

import json
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import digest
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from slack_sdk.signature import SignatureVerifier
from stripe import WebhookSignature
from twilio.request_validator import RequestValidator

from ops.runtime.db import make_engine, transaction
from ops.servers.ports import LOOPBACK
from ops.servers.private import PrivateServers
from pipeline.admit import admit
from pipeline.store.config import catalog
from schemas.event import Event
from support.cli import Cli
from support.ingress import Answer, drain, empty_inbox, read_answer
from support.net.ports import free_port
from support.waiting import wait_for

SECRET = "the-secret"
PUBLIC = "https://hooks.acme.example"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WHPK = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
WHSK = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
FORM = {"content-type": "application/x-www-form-urlencoded"}

CONFIG = f"""\
tenants: [{{name: acme}}]
sources:
  - {{tenant: acme, name: pay, kind: stripe, secrets: ["{SECRET}", "older"]}}
  - {{tenant: acme, name: chat, kind: slack, secrets: ["{SECRET}", "older"]}}
  - {{tenant: acme, name: quiet, kind: slack, secrets: ["{SECRET}"], options: {{answer: empty}}}}
  - {{tenant: acme, name: shop, kind: shopify, secrets: ["{SECRET}", "older"]}}
  - {{tenant: acme, name: once, kind: shopify, secrets: ["{SECRET}"], id: "digest:body"}}
  - {{tenant: acme, name: sms, kind: twilio, secrets: ["{SECRET}", "older"], options: {{public_base: "{PUBLIC}"}}}}
  - tenant: acme
    name: mapped
    kind: twilio
    secrets: ["{SECRET}"]
    subject: form:From
    options: {{public_url: "{PUBLIC}/twilio", answer: twiml}}
  - {{tenant: acme, name: code, kind: github, secrets: ["{SECRET}"]}}
  - {{tenant: acme, name: hooks, kind: standard-webhooks, secrets: ["{WHSEC}"]}}
  - {{tenant: acme, name: public, kind: standard-webhooks, secrets: ["{WHPK}"]}}
  - {{tenant: acme, name: signed, kind: hmac, secrets: ["{SECRET}"], options: {{timestamp_header: X-At}}}}
  - {{tenant: acme, name: tokened, kind: token, secrets: ["{SECRET}"], id: /no, subject: /order}}
  - {{tenant: acme, name: open, kind: none}}
  - {{tenant: acme, name: limited, kind: token, secrets: ["{SECRET}"], rate_limit: 4/h}}
  - {{tenant: acme, name: queue, kind: amqp}}
"""


@dataclass
class Stage:
    """A database, an ingress process, and the command line for both."""

    database: Any
    servers: PrivateServers
    port: int
    cli: Cli

    def post(self, source: str, body: bytes, headers: dict[str, str], query: str = "") -> Answer:
        connection = HTTPConnection(LOOPBACK, self.port, timeout=30)
        connection.request("POST", f"/in/acme/{source}{query}", body, headers)
        answer = read_answer(connection.getresponse())
        connection.close()
        return answer

    def send(self, source: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The exit code and the answer of `waxseal send`."""
        ended = self.cli.run("send", "acme", source, "--json", *arguments)
        return ended.exit_code, json.loads(ended.stdout) if ended.stdout else {"error": ended.stderr}

    def metric(self, sample: str) -> float:
        connection = HTTPConnection(LOOPBACK, self.port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(sample))

    def events(self) -> list[Event]:
        """The events that the ingest worker makes of the messages in the inbox."""
        engine = make_engine(self.database.url, pool_size=1)
        with transaction(engine) as conn:
            known = catalog.load(conn, self.database.vault.decrypt)
        engine.dispose()
        return [event for _, each in drain(self.servers.amqp_url) for event in admit(each, known, datetime.now(UTC))]


@pytest.fixture(scope="module")
def stage(shared_database: Any, servers: PrivateServers, shared_start: Any, tmp_path_factory: Any) -> Iterator[Stage]:
    empty_inbox(servers.amqp_url)
    port = free_port()
    cli = Cli(shared_database, servers.amqp_url, ingress_host=LOOPBACK, ingress_port=port).owner
    file = tmp_path_factory.mktemp("config") / "waxseal.yaml"
    file.write_text(CONFIG)
    applied = cli.run("apply", file)
    assert 0 == applied.exit_code, applied.output
    process = shared_start("ingress", ingress_host=LOOPBACK, ingress_port=port, ingress_processes=2)
    wait_for(lambda: ready(port))
    yield Stage(shared_database, servers, port, cli)
    process.terminate()
    assert 0 == process.wait(30)


def ready(port: int) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("source", "more", "subject"),
    [
        ("pay", (), "pi_sample"),
        ("pay", ("--secret", "older"), "pi_sample"),
        ("chat", (), "C0SAMPLE"),
        ("shop", (), "orders/820982911946154508"),
        ("sms", ("--url", "http://{at}/in/acme/sms?a=b"), "SMseven"),
        ("code", (), "acme/shop"),
        ("hooks", (), "order-7"),
        ("public", ("--secret", WHSK), "order-7"),
        ("signed", (), "order-7"),
        ("tokened", (), "sample.subject"),
        ("open", (), "order-7"),
    ],
)
def test_a_sample_is_sent_verified_and_taken(stage: Stage, source: str, more: tuple[str, ...], subject: str) -> None:
    more = tuple(each.format(at=f"{LOOPBACK}:{stage.port}") for each in more)
    code, answer = stage.send(source, "--id", "seven", *more)
    (event,) = stage.events()

    assert (0, 202) == (code, answer["status"]), answer
    assert "seven" in event.id
    assert {"id": event.id} == json.loads(answer["body"])
    assert (source, subject) == (event.attributes["source"], event.subject)


@pytest.mark.parametrize("source", ["pay", "chat", "shop", "sms", "code", "hooks", "signed", "tokened"])
def test_a_sample_under_another_secret_is_refused(stage: Stage, source: str) -> None:
    code, answer = stage.send(source, "--secret", "d3Jvbmc=")

    assert (1, 401) == (code, answer["status"]), answer
    assert [] == stage.events()


def test_a_body_of_ones_own_is_sent_to_the_byte(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(b'{"id": "evt_mine", "type": "t", "amount": 1.10}')
    code, _ = stage.send("pay", "--body", str(tmp_path / "mine.json"))
    (event,) = stage.events()

    assert (0, "evt_mine", b'{"id": "evt_mine", "type": "t", "amount": 1.10}') == (code, event.id, event.body)


@pytest.mark.parametrize(
    ("kind", "source", "options"),
    [
        ("stripe", "pay", ()),
        ("twilio", "sms", ("--option", f"public_base={PUBLIC}")),
        ("twilio", "mapped", ("--option", f"public_url={PUBLIC}/twilio")),
        ("hmac", "signed", ("--option", "timestamp_header=X-At")),
        ("none", "open", ()),
    ],
)
def test_a_sample_is_sent_by_hand(stage: Stage, kind: str, source: str, options: tuple[str, ...]) -> None:
    url = f"http://{LOOPBACK}:{stage.port}/in/acme/{source}"
    secret = () if kind == "none" else ("--secret", "env:SECRET_BY_HAND")
    stage.cli.environment["SECRET_BY_HAND"] = SECRET
    ended = stage.cli.run("send", "--url", url, "--kind", kind, *secret, *options)
    (event,) = stage.events()

    assert (0, source) == (ended.exit_code, event.attributes["source"]), ended.output


def test_a_sample_for_twilio_by_hand_is_signed_for_the_url_it_is_sent_to(stage: Stage) -> None:
    arguments = ("--kind", "twilio", "--secret", SECRET, "--id", "1", "--dry-run")
    shown = stage.cli.run("send", "--url", f"{PUBLIC}/in/acme/sms?v=1", *arguments).stdout
    head, _, body = shown.rstrip("\n").partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if not line.startswith("host"))

    assert 202 == stage.post("sms", body.encode(), headers, "?v=1").status
    assert ["SM1"] == [event.id for event in stage.events()]


def test_where_nothing_can_be_sent_to_is_said(stage: Stage) -> None:
    assert "there is no source acme nope; there are: acme chat" in stage.cli.run("send", "acme", "nope").stderr
    assert "publish to the exchange waxseal.in with the routing key acme.queue" in stage.cli.run("send", "acme", "queue").stderr
    assert "the private one" in stage.cli.run("send", "acme", "public").stderr


def test_the_answer_is_shown_to_a_person(stage: Stage) -> None:
    ended = stage.cli.run("send", "acme", "open", "--id", "eight")
    stage.events()

    assert ended.stdout.startswith("202 Accepted\ncontent-type: application/json\nx-request-id: ")
    assert ended.stdout.endswith('\n\n{"id":"eight"}\n')


# Signed by the providers' own libraries.


def test_what_stripes_library_signs_is_taken_under_each_secret(stage: Stage) -> None:
    body = json.dumps({"id": "evt_9", "type": "charge.paid", "created": 1700000000, "data": {"object": {"id": "ch_9"}}})
    signatures = [WebhookSignature.generate_signature_header(body, secret) for secret in (SECRET, "older", "wrong")]
    answers = [stage.post("pay", body.encode(), {"stripe-signature": each}) for each in signatures]
    events = stage.events()

    assert [202, 202, 401] == [answer.status for answer in answers]
    assert ["evt_9", "evt_9"] == [event.id for event in events]
    assert events[0].fingerprint == events[1].fingerprint
    assert {"2023-11-14T22:13:20Z"} == {event.attributes["time"] for event in events}


def test_an_old_webhook_of_stripe_is_refused_as_too_old(stage: Stage) -> None:
    header = WebhookSignature.generate_signature_header("{}", SECRET, int(time.time()) - 400)
    answer = stage.post("pay", b"{}", {"stripe-signature": header})

    assert (401, "urn:waxseal:problem:timestamp") == (answer.status, answer.json["type"])


def slack_headers(body: bytes, secret: str = SECRET) -> dict[str, str]:
    sent = str(int(time.time()))
    signature = SignatureVerifier(secret).generate_signature(timestamp=sent, body=body)
    assert signature is not None
    return {"x-slack-request-timestamp": sent, "x-slack-signature": signature}


def test_slack_gets_its_challenge_back_and_nothing_is_recorded(stage: Stage) -> None:
    body = json.dumps({"token": "x", "challenge": "3eZbrw1aBm2rZgRNFdxV", "type": "url_verification"}).encode()
    answer, forged = stage.post("chat", body, slack_headers(body)), stage.post("chat", body, slack_headers(body, "wrong"))

    assert (200, b"3eZbrw1aBm2rZgRNFdxV", "text/plain") == (answer.status, answer.body, answer.headers["content-type"])
    assert {"x-request-id", "x-content-type-options"} <= set(answer.headers)
    assert 401 == forged.status
    assert b"3eZbrw1aBm2rZgRNFdxV" not in forged.body
    assert [] == stage.events()


def test_an_event_of_slack_that_is_sent_again_is_the_same_event(stage: Stage) -> None:
    event = {"type": "event_callback", "event_id": "Ev9", "event_time": 1700000000, "event": {"type": "m", "channel": "C9"}}
    body = json.dumps(event).encode()
    again = slack_headers(body) | {"x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout"}
    answers = [stage.post("chat", body, headers) for headers in (slack_headers(body), again)]
    first, second = stage.events()

    assert [{"id": "Ev9"}] * 2 == [answer.json for answer in answers]
    assert first.fingerprint == second.fingerprint
    assert ("m", "C9") == (first.attributes["type"], first.subject)


def test_a_slash_command_may_be_answered_with_nothing(stage: Stage) -> None:
    body = urlencode({"command": "/deploy", "trigger_id": "1.2", "channel_id": "C1"}).encode()
    answer = stage.post("quiet", body, slack_headers(body) | FORM)
    (event,) = stage.events()

    assert (200, b"") == (answer.status, answer.body)
    assert ("1.2", "slash_command", "C1", body) == (event.id, event.attributes["type"], event.subject, event.body)


def shopify_headers(body: bytes, **more: str) -> dict[str, str]:
    signature = b64encode(digest(SECRET.encode(), body, "sha256")).decode()
    named = {f"x-shopify-{name.replace('_', '-')}": value for name, value in more.items()}
    return {"x-shopify-hmac-sha256": signature, "x-shopify-topic": "orders/paid", **named}


def test_a_webhook_of_shopify_is_one_event_however_often_it_is_sent(stage: Stage) -> None:
    body = b'{"id": 7}'
    for number in ("1", "2"):
        stage.post("shop", body, shopify_headers(body, event_id="e-1", webhook_id=number))
    first, second = stage.events()

    assert first.fingerprint == second.fingerprint
    assert ("orders/paid", "orders/7") == (first.attributes["type"], first.subject)


def test_a_replay_under_other_headers_is_known_by_a_digest(stage: Stage) -> None:
    body = b'{"id": 7}'
    for number in ("1", "2"):
        stage.post("once", body, shopify_headers(body, event_id=number))
    first, second = stage.events()

    assert first.fingerprint == second.fingerprint


def test_what_twilios_library_signs_for_the_public_url_is_taken(stage: Stage) -> None:
    received = {"MessageSid": "SM9", "From": "+1555", "Body": "hi \u20ac", "SmsStatus": "received"}
    statuses = [{"MessageSid": "SM9", "MessageStatus": status} for status in ("sent", "delivered", "delivered")]
    for form in (received, *statuses):
        signature = RequestValidator(SECRET).compute_signature(f"{PUBLIC}/in/acme/sms?v=1", form)
        hostile = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "http"}
        headers = FORM | hostile | {"x-twilio-signature": signature}
        assert 202 == stage.post("sms", urlencode(form).encode(), headers, "?v=1").status
    events = stage.events()

    assert ["SM9", "SM9-sent", "SM9-delivered", "SM9-delivered"] == [event.id for event in events]
    assert ["message.received", "message.status.sent"] == [event.attributes["type"] for event in events[:2]]
    assert {"SM9"} == {event.subject for event in events}


def test_what_twilio_signs_for_another_host_is_refused_whatever_the_headers_say(stage: Stage) -> None:
    form = {"MessageSid": "SM9"}
    signature = RequestValidator(SECRET).compute_signature("https://other.example/in/acme/sms", form)
    claims = {"host": "other.example", "x-forwarded-host": "other.example", "x-forwarded-proto": "https"}
    answer = stage.post("sms", urlencode(form).encode(), FORM | claims | {"x-twilio-signature": signature})

    assert 401 == answer.status


def test_json_of_twilio_is_taken_with_its_hash_and_refused_without(stage: Stage) -> None:
    body = b'{"id": "EZ1", "type": "sent"}'
    query = f"?bodySHA256={RequestValidator(SECRET).compute_hash(body.decode())}"
    signature = RequestValidator(SECRET).compute_signature(f"{PUBLIC}/in/acme/sms{query}", {})
    headers = {"content-type": "application/json", "x-twilio-signature": signature}
    taken, altered = stage.post("sms", body, headers, query), stage.post("sms", body + b" ", headers, query)

    assert (202, 401) == (taken.status, altered.status)
    assert ["EZ1"] == [event.id for event in stage.events()]


def test_a_public_url_of_another_path_a_rule_for_a_field_and_an_answer_for_twilio(stage: Stage) -> None:
    form = {"MessageSid": "SM1", "From": "+1555"}
    signature = RequestValidator(SECRET).compute_signature(f"{PUBLIC}/twilio", form)
    answer = stage.post("mapped", urlencode(form).encode(), FORM | {"x-twilio-signature": signature})
    (event,) = stage.events()

    assert (200, "text/xml", b"<Response/>") == (answer.status, answer.headers["content-type"], answer.body)
    assert "+1555" == event.subject


def test_no_header_can_stand_for_the_path(stage: Stage) -> None:
    form = urlencode({"MessageSid": "SM1"}).encode()
    signature = RequestValidator(SECRET).compute_signature(f"{PUBLIC}/in/acme/other", {"MessageSid": "SM1"})
    head = f"POST /in/acme/sms HTTP/1.1\r\nHost: x\r\n:path: /in/acme/other\r\nX-Twilio-Signature: {signature}\r\n"
    head += f"Content-Type: {FORM['content-type']}\r\nContent-Length: {len(form)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((LOOPBACK, stage.port), timeout=30) as connection:
        connection.sendall(head.encode() + form)
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 400 ")


# The rate limit.


def test_a_source_beyond_its_rate_is_answered_429_and_others_are_not(stage: Stage) -> None:
    counted = 'waxseal_ingest_rejections_total{reason="rate_limited",source="token"}'
    before = stage.metric(counted)
    forged = [stage.post("limited", b"{}", {"authorization": "Bearer wrong"}).status for _ in range(3)]
    first, second = (stage.post("limited", b"{}", {"authorization": f"Bearer {SECRET}"}) for _ in range(2))
    waiting = stage.post("limited", b"{}", {"authorization": "Bearer wrong", "expect": "100-continue"})
    other = stage.post("tokened", b'{"no": 1, "order": 2}', {"authorization": f"Bearer {SECRET}"})

    assert ([401] * 3, 202, 429, 429, 202) == (forged, first.status, second.status, waiting.status, other.status)
    assert "urn:waxseal:problem:rate-limited" == second.json["type"]
    assert "application/problem+json" == second.headers["content-type"]
    assert 1700 < int(second.headers["retry-after"]) <= 1800  # half of 4/h, because the process is one of two
    assert "close" == waiting.headers["connection"]
    assert before + 2 == stage.metric(counted)
    assert 2 == stage.metric('waxseal_ingress_responses_total{status="429"}')
    assert ["limited", "tokened"] == [event.attributes["source"] for event in stage.events()]


def test_a_limit_that_is_changed_holds_while_the_ingress_runs(stage: Stage, tmp_path: Path) -> None:
    stage.post("limited", b"{}", {"authorization": f"Bearer {SECRET}"})
    (tmp_path / "waxseal.yaml").write_text(CONFIG.replace(", rate_limit: 4/h", ""))
    applied = stage.cli.run("apply", tmp_path / "waxseal.yaml")

    assert "rate_limit: 0.00111111 -> none" in applied.stdout
    wait_for(lambda: stage.post("limited", b"{}", {"authorization": f"Bearer {SECRET}"}).status == 202)
    stage.events()
