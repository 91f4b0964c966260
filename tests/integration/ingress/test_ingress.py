import hmac
import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any

import pytest

from ops.servers.private import PrivateServers
from ops.telemetry.probes import SECURITY_HEADERS
from pipeline.admit import admit
from schemas.event import Event
from support.ingress import SECRET, Answer, Inbox, Ingress, parsed, read_answer, running, signed
from support.waiting import wait_for

CE = {"ce-specversion": "1.0", "ce-id": "e-1", "ce-type": "order.paid", "ce-source": "/orders"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def ingress(shared_database: Any, servers: PrivateServers, inbox: Inbox) -> Iterator[Ingress]:
    database = shared_database
    database.add_tenant("acme")
    database.add_tenant("other")
    database.add_source("hooks", "standard-webhooks", SECRET)
    database.add_source("code", "github", "s3cret", "older")
    database.add_source("signed", "hmac", "s3cret", options={"encoding": "base64"})
    database.add_source("tokened", "token", "t0ken")
    database.add_source("open", "none")
    database.add_source("ruled", "none", id="/no", type="header:X-Kind", subject="/who", extensions={"region": "/r"})
    database.add_source("tiny", "none", max_body=10)
    database.add_source("big", "none", max_body=2**25, subject="/who")
    database.add_source("chat", "slack", "s3cret", max_body=2**25)
    database.add_source("queue", "amqp")
    database.add_source("later", "not-known-yet", "x")
    with running(database.worker_url, database.vault, servers.amqp_url) as one:
        wait_for(lambda: one.ready)
        yield one


def events(ingress: Ingress, inbox: Inbox) -> list[Event]:
    """The events that the ingest worker makes of the messages in the inbox."""
    now = datetime.now(UTC)
    return [event for _, message in inbox.drain() for event in admit(message, ingress.catalog.current, now)]


def is_problem(answer: Answer, status: int, kind: str) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "request_id"} == set(answer.json)
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert all(answer.json.values())
    return (status, status, f"urn:waxseal:problem:{kind}") == (answer.status, answer.json["status"], answer.json["type"])


# 202


def test_a_signed_webhook_is_in_the_inbox_when_it_is_answered(ingress: Ingress, inbox: Inbox) -> None:
    body = b'{"type": "order.paid", "amount": 1.10}'

    answer = ingress.post("hooks", body, signed(body, name="msg_7") | JSON)
    ((properties, message),) = inbox.drain()

    assert (202, {"id": "msg_7"}, "application/json") == (answer.status, answer.json, answer.headers["content-type"])
    assert ("acme.hooks", body, True) == (message.routing_key, message.body, message.trusted)
    assert (2, "application/json", "msg_7") == (properties.delivery_mode, properties.content_type, properties.message_id)
    assert {"id", "source", "type", "subject", "time", "specversion", "waxseal-published-at"} == {
        name.removeprefix("cloudEvents:") for name in properties.headers if name != "x-delivery-count"
    }
    assert time.time() - 60 < message.published_at <= time.time()


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        ("code", {"x-hub-signature-256": "sha256=" + hmac.digest(b"s3cret", b"{}", "sha256").hex(), "x-github-delivery": "d"}),
        ("code", {"x-hub-signature-256": "sha256=" + hmac.digest(b"older", b"{}", "sha256").hex(), "x-github-delivery": "d"}),
        ("signed", {"x-signature": b64encode(hmac.digest(b"s3cret", b"{}", "sha256")).decode(), "webhook-id": "d"}),
        ("tokened", {"authorization": "Bearer t0ken", "idempotency-key": "d"}),
        ("open", {"idempotency-key": "d"}),
    ],
)
def test_every_kind_is_taken(ingress: Ingress, inbox: Inbox, source: str, headers: dict[str, str]) -> None:
    answer = ingress.post(source, b"{}", headers)
    (event,) = events(ingress, inbox)

    assert (202, {"id": "d"}) == (answer.status, answer.json)
    assert ("d", source, b"{}") == (event.id, event.attributes["source"], event.body)


def test_a_message_without_an_id_gets_a_fresh_one(ingress: Ingress, inbox: Inbox) -> None:
    ids = [ingress.post("open", b"\xff\x00").json["id"] for _ in range(2)]

    assert ids == [event.id for event in events(ingress, inbox)]
    assert ids[0] != ids[1]


def test_a_binary_cloud_event_is_taken(ingress: Ingress, inbox: Inbox) -> None:
    answer = ingress.post("open", b"<x/>", CE | {"ce-subject": "Euro%20%E2%82%AC", "content-type": "text/xml"})
    (event,) = events(ingress, inbox)

    assert {"id": "e-1"} == answer.json
    assert ("Euro \u20ac", "text/xml", "/orders", b"<x/>") == (
        event.subject,
        event.attributes["datacontenttype"],
        event.attributes["origin"],
        event.body,
    )


def test_a_structured_cloud_event_is_taken_with_its_datas_exact_bytes(ingress: Ingress, inbox: Inbox) -> None:
    body = b'{"specversion":"1.0","id":"e-2","source":"s","type":"t","data": {"a":1.10,"a":2} }'

    answer = ingress.post("open", body, {"content-type": "application/cloudevents+json; charset=UTF-8"})
    (event,) = events(ingress, inbox)

    assert {"id": "e-2"} == answer.json
    assert b'{"a":1.10,"a":2}' == event.body


def test_a_batch_is_taken_whole(ingress: Ingress, inbox: Inbox) -> None:
    batch = [{"specversion": "1.0", "id": f"b-{n}", "source": "s", "type": "t", "data": n} for n in range(300)]
    headers = {"content-type": "application/cloudevents-batch+json"}

    answer = ingress.post("open", json.dumps(batch).encode(), headers)
    ids = [f"b-{n}" for n in range(300)]

    assert {"id": "b-0", "ids": ids} == answer.json
    assert ids == [event.id for event in events(ingress, inbox)]
    assert {"id": None, "ids": []} == ingress.post("open", b"[]", headers).json


def test_the_rules_of_a_source_apply(ingress: Ingress, inbox: Inbox) -> None:
    answer = ingress.post("ruled", b'{"no": 7, "who": "w", "r": "eu"}', {"x-kind": "paid"})
    (event,) = events(ingress, inbox)

    assert {"id": "7"} == answer.json
    assert ("paid", "w", "eu") == tuple(event.attributes[name] for name in ("type", "subject", "region"))


def test_an_empty_body_and_one_of_exactly_the_limit_are_taken(ingress: Ingress, inbox: Inbox) -> None:
    assert [202, 202] == [ingress.post("tiny", body).status for body in (b"", b"x" * 10)]
    assert [b"", b"x" * 10] == [event.body for event in events(ingress, inbox)]


def test_a_connection_is_kept_for_the_next_message(ingress: Ingress, inbox: Inbox) -> None:
    connection = HTTPConnection("127.0.0.1", ingress.port, timeout=10)
    answers = []
    for body in (b"{}", b"x" * 70_000, b"", b"[" * 100):
        connection.request("POST", "/in/acme/open", body)
        answers.append(read_answer(connection.getresponse()).status)
        port = connection.sock.getsockname()
    connection.request("POST", "/in/acme/tiny", b"x" * 300_000)
    answers.append(read_answer(connection.getresponse()).status)
    connection.request("POST", "/in/acme/open", b"after")
    answers.append(read_answer(connection.getresponse()).status)

    assert port == connection.sock.getsockname()
    assert [202, 202, 202, 202, 413, 202] == answers
    assert 5 == len(events(ingress, inbox))
    connection.close()


# 400, 401


@pytest.mark.parametrize(
    ("source", "body", "headers", "named"),
    [
        ("ruled", b"{}", {}, "/no"),
        ("ruled", b'{"no": 1, "who": "w"}', {}, "header:X-Kind"),
        ("ruled", b"<xml/>", {}, "not JSON"),
        ("open", b"{", {"content-type": "application/cloudevents+json"}, "not JSON"),
        ("open", b"[" * 100_000, {"content-type": "application/cloudevents-batch+json"}, "deep"),
        ("open", b"\xff", {"content-type": "application/cloudevents+json"}, "UTF-8"),
        ("open", b"", {"ce-specversion": "1.0"}, "no id"),
        ("open", b"", CE | {"ce-time": "yesterday"}, "RFC 3339"),
        ("open", b"", CE | {"ce-id": "%ff"}, "percent"),
        ("open", b"", {"webhook-id": "x" * 3000}, "longer"),
        ("open", b'{"id": "\\u0000"}', {}, "NUL"),
    ],
)
def test_what_cannot_be_read_is_malformed(
    ingress: Ingress, inbox: Inbox, source: str, body: bytes, headers: dict[str, str], named: str
) -> None:
    answer = ingress.post(source, body, headers)

    assert is_problem(answer, 400, "malformed")
    assert named in answer.json["detail"]
    assert [] == inbox.drain()


BOMB = b'{"type":"url_verification","who":[' + b'{"a":0},' * 2_500_000 + b"0]}"


@pytest.mark.parametrize(
    ("source", "content_type"),
    [
        ("big", "application/json"),
        ("big", "application/cloudevents+json"),
        ("big", "application/cloudevents-batch+json"),
        ("chat", "application/json"),
    ],
)
def test_json_that_would_become_too_large_is_malformed(ingress: Ingress, inbox: Inbox, source: str, content_type: str) -> None:
    at = str(int(time.time()))
    mac = hmac.digest(b"s3cret", b"v0:%b:" % at.encode() + BOMB, "sha256").hex()
    headers = {"content-type": content_type, "x-slack-signature": f"v0={mac}", "x-slack-request-timestamp": at}
    answer = ingress.post(source, BOMB, headers)

    assert is_problem(answer, 400, "malformed")
    assert "too many values" in answer.json["detail"]
    assert [] == inbox.drain()


def test_a_large_document_is_read_as_a_small_one_is(ingress: Ingress, inbox: Inbox) -> None:
    body = b'{"rows":[' + b'{"a":"b"},' * 20_000 + b'0],"who":"somebody"}'
    answer = ingress.post("big", body, {"idempotency-key": "large"})
    (event,) = events(ingress, inbox)

    assert (202, {"id": "large"}) == (answer.status, answer.json)
    assert ("somebody", body) == (event.subject, event.body)
    assert is_problem(ingress.post("big", b"x" * 100_000), 400, "malformed")


GITHUB = {"x-hub-signature-256": "sha256=" + "0" * 64}


@pytest.mark.parametrize(
    ("source", "headers", "kind", "challenge"),
    [
        ("hooks", {}, "signature", "Signature"),
        ("hooks", signed(b"other"), "signature", "Signature"),
        ("hooks", signed(b"{}", key=b"wrong" * 5), "signature", "Signature"),
        ("hooks", signed(b"{}") | {"webhook-timestamp": "soon"}, "signature", "Signature"),
        ("hooks", signed(b"{}", sent=int(time.time()) - 3600), "timestamp", "Signature"),
        ("hooks", signed(b"{}", sent=int(time.time()) + 3600), "timestamp", "Signature"),
        ("code", {}, "signature", "Signature"),
        ("code", GITHUB, "signature", "Signature"),
        ("signed", {"x-signature": "!"}, "signature", "Signature"),
        ("tokened", {}, "signature", "Bearer"),
        ("tokened", {"authorization": "Bearer wrong"}, "signature", "Bearer"),
        ("tokened", {"authorization": "Bearer t\u00f6ken"}, "signature", "Bearer"),
    ],
)
def test_what_is_not_signed_as_it_should_be_is_refused(
    ingress: Ingress, inbox: Inbox, source: str, headers: dict[str, str], kind: str, challenge: str
) -> None:
    answer = ingress.post(source, b"{}", headers)

    assert is_problem(answer, 401, kind)
    assert challenge == answer.headers["www-authenticate"]
    assert [] == inbox.drain()


# 404, 405


def test_a_tenant_or_a_source_that_is_not_there_is_told_the_same_way(ingress: Ingress, inbox: Inbox) -> None:
    paths = ["/in/nobody/hooks", "/in/acme/nothing", "/in/other/hooks", "/in/acme/queue", "/in/acme/later", "/in/ACME/hooks"]
    answers = [ingress.ask("POST", path, b"{}", headers) for path in paths for headers in ({}, signed(b"{}"))]

    assert all(is_problem(answer, 404, "not-found") for answer in answers)
    assert 1 == len({answer.json["detail"] for answer in answers})
    assert 1 == len({tuple(sorted({*answer.headers} - {"date"})) for answer in answers})
    assert [] == inbox.drain()


@pytest.mark.parametrize(
    "path", ["/", "/in", "/in/acme", "/in/acme/hooks/x", "/in/acme/", "/x", "/in/%2e%2e/x/y", "/in/acme/%ff%00"]
)
def test_what_is_not_there_is_not_found(ingress: Ingress, path: str) -> None:
    assert is_problem(ingress.ask("POST", path, b"{}"), 404, "not-found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_post_is_taken(ingress: Ingress, inbox: Inbox, method: str) -> None:
    answers = [ingress.ask(method, path, b"{}") for path in ("/in/acme/open", "/in/acme/nothing")]

    assert all(is_problem(answer, 405, "method") for answer in answers)
    assert ["POST", "POST"] == [answer.headers["allow"] for answer in answers]
    assert [] == inbox.drain()


def test_head_is_answered_without_a_body(ingress: Ingress) -> None:
    answer = ingress.ask("HEAD", "/in/acme/open")

    assert (405, b"", "POST") == (answer.status, answer.body, answer.headers["allow"])


# 411, 413, 415


def test_a_length_is_needed(ingress: Ingress) -> None:
    answer = parsed(ingress.raw(b"POST /in/acme/open HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))

    assert is_problem(answer, 411, "length-required")


@pytest.mark.parametrize("encode", [lambda body: body, lambda body: iter([body[:5], body[5:]])], ids=["declared", "chunked"])
def test_what_is_larger_than_the_source_takes_is_refused(ingress: Ingress, inbox: Inbox, encode: Any) -> None:
    connection = HTTPConnection("127.0.0.1", ingress.port, timeout=10)
    connection.request("POST", "/in/acme/tiny", encode(b"x" * 11))
    answer = read_answer(connection.getresponse())
    connection.close()

    assert is_problem(answer, 413, "too-large")
    assert "10 bytes" in answer.json["detail"]
    assert [] == inbox.drain()


def test_a_source_takes_a_mebibyte_by_default(ingress: Ingress, inbox: Inbox) -> None:
    assert [202, 413] == [ingress.post("open", b"x" * size).status for size in (2**20, 2**20 + 1)]
    assert [2**20] == [message.size for _, message in inbox.drain()]


def test_a_body_may_come_in_chunks(ingress: Ingress, inbox: Inbox) -> None:
    connection = HTTPConnection("127.0.0.1", ingress.port, timeout=10)
    connection.request("POST", "/in/acme/open", iter([b"a" * 1000, b"b" * 70_000, b"c"]))
    answer = read_answer(connection.getresponse())
    connection.close()

    assert 202 == answer.status
    assert [b"a" * 1000 + b"b" * 70_000 + b"c"] == [event.body for event in events(ingress, inbox)]


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "gzip"},
        {"content-encoding": "br, identity"},
        {"content-type": "nonsense"},
        {"content-type": ""},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": 'application/cloudevents+json; charset="utf-16"'},
        {"content-type": "text/pl\u00e4in"},
    ],
)
def test_a_form_that_is_not_understood_is_refused(ingress: Ingress, inbox: Inbox, headers: dict[str, str]) -> None:
    assert is_problem(ingress.post("open", b"{}", headers), 415, "content-type")
    assert [] == inbox.drain()


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "identity"},
        {"content-type": 'application/json; charset="UTF-8"'},
        {"content-type": "text/plain; charset=latin-1"},
        {"content-type": "application/vnd.x+json;charset=us-ascii"},
        {"content-type": "application/octet-stream; " + "x" * 300 + "=y"},
    ],
)
def test_other_forms_are_taken_as_they_are(ingress: Ingress, inbox: Inbox, headers: dict[str, str]) -> None:
    assert 202 == ingress.post("open", b"\xe4", headers).status
    assert [headers.get("content-type", "application/octet-stream")] == [
        event.attributes["datacontenttype"] for event in events(ingress, inbox)
    ]


# Every answer.


@pytest.mark.parametrize(
    "path", ["/in/acme/open", "/in/acme/nothing", "/in/acme/hooks", "/nothing", "/livez", "/readyz", "/metrics"]
)
def test_every_answer_has_the_security_headers_and_tells_nothing_of_the_server(ingress: Ingress, path: str) -> None:
    for method in ("POST", "GET"):
        answer = ingress.ask(method, path, b"{}" if method == "POST" else None)

        assert SECURITY_HEADERS == {name: answer.headers.get(name.lower()) for name in SECURITY_HEADERS}
        assert "server" not in answer.headers


@pytest.mark.parametrize("wanted", ["a", "7f3c-1", "x" * 128, "!~%"])
def test_a_request_id_is_taken_over(ingress: Ingress, wanted: str) -> None:
    for source in ("open", "nothing"):
        assert wanted == ingress.post(source, b"{}", {"x-request-id": wanted}).headers["x-request-id"]


@pytest.mark.parametrize("wanted", ["", "x" * 129, "a b", "\u00e4", "a\tb"])
def test_a_request_id_that_is_not_in_order_is_replaced(ingress: Ingress, wanted: str) -> None:
    answers = [ingress.post("open", b"{}", {"x-request-id": wanted}) for _ in range(2)]
    made = [answer.headers["x-request-id"] for answer in answers]

    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in made)
    assert made[0] != made[1]


# Probes.


def test_the_probes_answer(ingress: Ingress) -> None:
    assert (200, True) == ((alive := ingress.ask("GET", "/livez")).status, alive.json["alive"])
    ready = ingress.ask("GET", "/readyz")
    assert (200, {"ready": True, "checks": {"broker": "ok", "catalog": "ok"}}) == (ready.status, ready.json)
    assert "text/plain" in ingress.ask("GET", "/metrics").headers["content-type"]
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}  # as of Prometheus
    assert "openmetrics" in ingress.ask("GET", "/metrics", headers=accept).headers["content-type"]


def test_answers_are_counted(ingress: Ingress) -> None:
    def count(line: str) -> float:
        metrics = ingress.ask("GET", "/metrics").body.decode()
        return float(re.search(rf"^{re.escape(line)} (\S+)$", metrics, re.MULTILINE)[1])  # type: ignore[index]

    lines = (
        'waxseal_ingress_responses_total{status="202"}',
        'waxseal_ingress_responses_total{status="401"}',
        'waxseal_ingress_responses_total{status="404"}',
        'waxseal_ingress_responses_total{status="411"}',
        'waxseal_ingest_rejections_total{reason="signature",source="github"}',
        'waxseal_ingest_rejections_total{reason="unknown_source",source="unknown"}',
        'waxseal_ingest_duration_seconds_count{source="none"}',
    )
    before = [count(line) for line in lines]
    ingress.post("open")
    ingress.post("code", b"{}", GITHUB)
    ingress.post("nothing")
    ingress.raw(b"POST /in/acme/open HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert [1, 1, 1, 1, 1, 1, 2] == [count(line) - was for line, was in zip(lines, before, strict=True)]
