import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops.servers.private import PrivateServers
from support.ingress import Inbox, Ingress, parsed, read_all, running
from support.waiting import wait_for
from workers.ingress import clients

READ_SECONDS = 0.6
POST = b"POST /in/acme/open HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def ingress(shared_database: Any, servers: PrivateServers, inbox: Inbox) -> Iterator[Ingress]:
    shared_database.add_tenant("acme")
    shared_database.add_source("open", "none")
    with running(shared_database.worker_url, shared_database.vault, servers.amqp_url) as one:
        wait_for(lambda: one.ready)
        yield one


@pytest.fixture
def hasty(ingress: Ingress, monkeypatch: pytest.MonkeyPatch) -> Ingress:
    """The same, but for the test a request that does not end is soon given up."""
    monkeypatch.setattr(ingress.server.bounds, "read_seconds", READ_SECONDS)
    return ingress


@pytest.fixture(autouse=True)
def _unharmed(ingress: Ingress, inbox: Inbox) -> Iterator[None]:
    """After each test the next message is accepted, and no connection is left."""
    yield
    assert 202 == ingress.post("open", b"still there").status
    assert b"still there" == inbox.drain()[-1][1].body
    wait_for(lambda: not len(ingress.server.clients))


def problem(raw: bytes) -> tuple[int, str]:
    answer = parsed(raw)
    assert "application/problem+json" == answer.headers["content-type"]
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert answer.status == answer.json["status"]
    return answer.status, answer.json["type"].removeprefix("urn:waxseal:problem:")


def bodies(inbox: Inbox) -> list[bytes]:
    """Empties the inbox; returns the bodies."""
    return [message.body for _, message in inbox.drain()]


def statuses(raw: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", raw)]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /in/acme/open HTTP/9.9\r\n\r\n",
        b"POST /in/acme/open\xff\xfe HTTP/1.1\r\n\r\n",
        b"POST in/acme/open HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999999\r\n\r\n",
        POST + b"Content-Length: 0x2\r\n\r\n{}",
        POST + b"Transfer-Encoding: gzip\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Bad Header: 1\r\nContent-Length: 0\r\n\r\n",
        POST + b"Bad\x00: 1\r\nContent-Length: 0\r\n\r\n",
        POST + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
        POST + b": 1\r\nContent-Length: 0\r\n\r\n",
        POST + b" folded: 1\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_malformed(ingress: Ingress, garbage: bytes) -> None:
    assert (400, "malformed") == problem(ingress.raw(garbage))


@pytest.mark.parametrize(
    "late",
    [
        b"POST",
        POST,
        POST + b"X: 1\r\n",
        POST + b"Content-Length: 5\r\n\r\n",
        POST + b"Content-Length: 5\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
    ],
)
def test_a_request_that_never_ends_is_given_up(hasty: Ingress, late: bytes, lateness: Callable[[], float]) -> None:
    began = time.monotonic()
    answer = problem(hasty.raw(late))

    assert (408, "too-slow") == answer
    assert READ_SECONDS <= time.monotonic() - began < READ_SECONDS + 1 + lateness()


def test_a_request_that_comes_byte_by_byte_is_given_up_at_the_same_time(hasty: Ingress, lateness: Callable[[], float]) -> None:
    began = time.monotonic()
    with hasty.connect() as connection:
        connection.settimeout(0.05)
        answer = b""
        for byte in POST + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000:
            try:
                connection.sendall(bytes([byte]))
                answer = connection.recv(65536)
                break
            except TimeoutError:
                continue

    assert (408, "too-slow") == problem(answer)
    assert time.monotonic() - began < READ_SECONDS + 1 + lateness()


def test_the_second_request_of_a_connection_is_given_up_as_well(hasty: Ingress, inbox: Inbox) -> None:
    whole = POST + b"Content-Length: 2\r\n\r\n{}"

    assert [202, 408] == statuses(hasty.raw(whole, POST))
    assert [b"{}"] == bodies(inbox)


def test_a_connection_on_which_nothing_comes_is_not_waited_on_for_ever(
    ingress: Ingress, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, lateness: Callable[[], float]
) -> None:
    monkeypatch.setattr(ingress.server.bounds, "keep_alive_seconds", 0.2)
    began = time.monotonic()

    assert b"" == ingress.raw()
    assert b"" == ingress.raw(b"\r\n")
    assert [202] == statuses(ingress.raw(POST + b"Content-Length: 2\r\n\r\n{}"))
    assert [b"{}"] == bodies(inbox)
    assert time.monotonic() - began < 3 + lateness()


@pytest.mark.parametrize(
    "head",
    [
        POST + b"X: " + b"x" * 40_000 + b"\r\n\r\n",
        POST + b"".join(b"X-%d: %b\r\n" % (n, b"x" * 1000) for n in range(40)) + b"\r\n",
        POST + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n",
        b"POST /in/acme/" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
        POST
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
        + b"".join(b"X-%d: 1\r\n" % n for n in range(200))
        + b"\r\n",
    ],
    ids=["one", "together", "many", "path", "trailers"],
)
def test_headers_are_bounded(ingress: Ingress, head: bytes) -> None:
    assert (431, "head-too-large") == problem(ingress.raw(head))


@pytest.mark.parametrize(
    "start",
    [POST + b"X: ", b"POST /in/acme/", POST + b"X", POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"\r\n", b"POST "],
    ids=["value", "path", "name", "extension", "empty lines", "spaces"],
)
def test_what_never_comes_to_an_end_costs_little_memory(ingress: Ingress, start: bytes) -> None:
    before = psutil.Process().memory_info().rss
    piece = {b"\r\n": b"\r\n" * 30_000, b"POST ": b" " * 60_000}.get(start, b"a" * 60_000)
    with ingress.connect() as connection:
        sent = send_until_refused(connection, start, piece, limit=64 * 2**20)

    assert sent < 64 * 2**20
    assert psutil.Process().memory_info().rss - before < 20 * 2**20


def send_until_refused(connection: socket.socket, start: bytes, piece: bytes, limit: int) -> int:
    sent = 0
    try:
        connection.sendall(start)
        while sent < limit:
            connection.sendall(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


def test_an_endless_body_is_answered_early_and_cut_off(hasty: Ingress) -> None:
    before = psutil.Process().memory_info().rss
    with hasty.connect() as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = send_until_refused(connection, b"", b"10000\r\n" + b"x" * 65536 + b"\r\n", limit=2**40)
        first = connection.recv(4096) if sent < 2**30 else b""

    assert psutil.Process().memory_info().rss - before < 20 * 2**20
    assert [413] == statuses(first) or first == b""  # the answer may be lost if the connection is reset while the client sends


def test_a_large_body_is_refused_before_it_is_sent(ingress: Ingress) -> None:
    head = POST + b"Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n"
    answer = parsed(ingress.raw(head))

    assert (413, "close") == (answer.status, answer.headers["connection"])


def test_a_sender_that_waits_for_100_continue_gets_it(ingress: Ingress, inbox: Inbox) -> None:
    with ingress.connect() as connection:
        connection.sendall(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        interim = connection.recv(4096)
        connection.sendall(b"{}")
        final = read_all(connection)

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == interim
    assert [202] == statuses(final)
    assert [b"{}"] == bodies(inbox)


def test_requests_may_be_sent_ahead_and_are_answered_in_order(ingress: Ingress, inbox: Inbox) -> None:
    requests = [POST + b"Idempotency-Key: %d\r\nContent-Length: 3\r\n\r\n%03d" % (n, n) for n in range(20)]
    requests[-1] = requests[-1].replace(b"Host: x", b"Host: x\r\nConnection: close")
    raw = ingress.raw(b"".join(requests))

    assert [str(n) for n in range(20)] == [json.loads(body)["id"] for body in re.findall(rb"\{[^}]*\}", raw)]
    assert [b"%03d" % n for n in range(20)] == bodies(inbox)


def test_garbage_behind_a_request_is_never_taken_for_its_answer(ingress: Ingress, inbox: Inbox) -> None:
    raw = ingress.raw(POST + b"Content-Length: 2\r\n\r\n{}" + b"\x00garbage\r\n\r\n")

    assert [202, 400] == statuses(raw)
    assert [b"{}"] == bodies(inbox)


def test_a_client_that_reads_no_answers_is_disconnected(hasty: Ingress) -> None:
    before = psutil.Process().memory_info().rss
    request = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
    with hasty.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(2 * READ_SECONDS)
        with suppress(TimeoutError):
            assert send_until_refused(connection, b"", request * 1000, limit=256 * 2**20) < 256 * 2**20
        wait_for(lambda: not len(hasty.server.clients))

    assert psutil.Process().memory_info().rss - before < 20 * 2**20


UPGRADES = [
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: Upgrade\r\nUpgrade: \xff\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: Upgrade\r\n",
]
FRAMINGS = {
    "declared": (b"Content-Length: 10\r\n\r\n", b'{"a": 1.0}'),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n", b'4\r\n{"a"\r\n6;x=y\r\n: 1.0}\r\n0\r\nTrailer: x\r\n\r\n'),
}


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("cut", [None, 1, -1], ids=["at once", "late", "last byte late"])
def test_an_upgrade_is_not_taken_up_but_the_message_and_those_behind_it_are(
    ingress: Ingress, inbox: Inbox, upgrade: bytes, framing: str, cut: int | None
) -> None:
    framed, sent = FRAMINGS[framing]
    message = POST + upgrade + framed + sent
    with ingress.connect() as connection:
        if cut is not None:
            head = len(message) - len(sent) if cut > 0 else len(message) - 1
            connection.sendall(message[:head])
            time.sleep(0.01)
            message = message[head:]
        connection.sendall(message + POST + upgrade + b"Connection: close\r\nContent-Length: 6\r\n\r\nsecond")
        answers = statuses(read_all(connection))

    assert [202, 202] == answers
    assert [b'{"a": 1.0}', b"second"] == bodies(inbox)


def test_an_upgrade_without_a_body_and_one_that_is_malformed_are_told_apart(hasty: Ingress, inbox: Inbox) -> None:
    upgrade = POST + UPGRADES[0]

    assert [202] == statuses(hasty.raw(upgrade + b"Connection: close\r\nContent-Length: 0\r\n\r\n"))
    assert [b""] == bodies(inbox)
    for garbage in (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"):
        assert (400, "malformed") == problem(hasty.raw(upgrade + garbage))
    assert (411, "length-required") == problem(hasty.raw(upgrade + b"Connection: close\r\n\r\n"))
    assert (413, "too-large") == problem(hasty.raw(upgrade + b"Connection: close\r\nContent-Length: 1048577\r\n\r\n"))
    assert (408, "too-slow") == problem(hasty.raw(upgrade + b"Content-Length: 2\r\n\r\n{"))
    assert [] == bodies(inbox)


def test_http_1_0_is_answered_and_the_connection_closed(ingress: Ingress, inbox: Inbox) -> None:
    assert 202 == parsed(ingress.raw(b"POST /in/acme/open HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")).status
    assert [b"{}"] == bodies(inbox)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /in/acme/open HTTP/1.1\r\n",
        POST + b"Host: x\r\n",
        POST + b"Host: other.example\r\n",
        b"POST /in/acme/open HTTP/1.1\r\nHost: a b\r\n",
        b"POST /in/acme/open HTTP/1.1\r\nHost: a/in\r\n",
        b"CONNECT /in/acme/open HTTP/1.1\r\nHost: x\r\n",
        b"CONNECT acme:443 HTTP/1.1\r\nHost: acme:443\r\n",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n",
        POST + b"Transfer-Encoding: chunked, chunked\r\n",
        POST + b"Transfer-Encoding: chunked, gzip\r\n",
    ],
)
def test_what_others_may_take_for_another_request_is_malformed(ingress: Ingress, inbox: Inbox, head: bytes) -> None:
    framed = b"" if b"Transfer" in head else b"Content-Length: 2\r\n"

    assert (400, "malformed") == problem(ingress.raw(head + framed + b"\r\n{}"))
    assert [] == bodies(inbox)


@pytest.mark.parametrize("host", [b"x:8420", b"[::1]:8420", b"a.example", b""])
def test_a_host_is_a_name_and_perhaps_a_port(ingress: Ingress, inbox: Inbox, host: bytes) -> None:
    raw = ingress.raw(POST.replace(b"Host: x", b"Host: " + host) + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")

    assert 202 == parsed(raw).status
    assert [b"{}"] == bodies(inbox)


@pytest.mark.parametrize("codings", [b"gzip, chunked", b"deflate,chunked", b"x\r\nTransfer-Encoding: chunked"])
def test_a_transfer_coding_that_is_not_undone_is_not_implemented(ingress: Ingress, inbox: Inbox, codings: bytes) -> None:
    raw = ingress.raw(POST + b"Transfer-Encoding: %b\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % codings)

    assert (501, "not-implemented") == problem(raw)
    assert [] == bodies(inbox)


@pytest.mark.parametrize(
    "path",
    [
        b"/in/acme/open/",
        b"/in/acme/open//",
        b"//in/acme/open",
        b"/in//acme/open",
        b"/in/acme%2Fopen",
        b"/in%2facme/open",
        b"/in/acme/open%2F",
        b"/in/acme/open%3Fx",
        b"/livez/",
        b"http://evil.example/in/acme/open/",
    ],
)
def test_a_path_that_is_nearly_right_is_not_found_and_leads_nowhere(ingress: Ingress, inbox: Inbox, path: bytes) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}" % path
    raw = ingress.raw(head)

    assert (404, "not-found") == problem(raw)
    assert b"evil" not in raw
    assert [] == bodies(inbox)


@pytest.mark.parametrize(
    "path", [b"/in/acme/%6Fpen", b"/in/acme/open?x=/y", b"http://x/in/acme/open", b"http://x:1/in/acme/open?x"]
)
def test_other_spellings_of_a_path_are_taken(ingress: Ingress, inbox: Inbox, path: bytes) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}" % path

    assert 202 == parsed(ingress.raw(head)).status
    assert [b"{}"] == bodies(inbox)


def test_a_client_that_has_shut_its_sending_side_is_answered(ingress: Ingress, inbox: Inbox) -> None:
    requests = [POST + b"Content-Length: 5\r\n\r\nno. %d" % n for n in range(3)]
    for count in (1, 3):
        with ingress.connect() as connection:
            connection.sendall(b"".join(requests[:count]))
            connection.shutdown(socket.SHUT_WR)
            answers = statuses(read_all(connection))

        assert [202] * count == answers
        assert [b"no. %d" % n for n in range(count)] == bodies(inbox)


def test_what_is_cut_off_behind_a_request_is_not_taken_and_the_request_is(ingress: Ingress, inbox: Inbox) -> None:
    with ingress.connect() as connection:
        connection.sendall(POST + b"Content-Length: 2\r\n\r\n{}" + POST + b"Content-Length: 5\r\n\r\nhal")
        connection.shutdown(socket.SHUT_WR)
        answers = statuses(read_all(connection))

    assert answers[:1] == [202]
    assert 202 not in answers[1:]
    assert [b"{}"] == bodies(inbox)


def test_a_client_that_disconnects_in_the_middle_leaves_nothing(ingress: Ingress, inbox: Inbox) -> None:
    for cut in (POST[:9], POST, POST + b"Content-Length: 9\r\n\r\n{}", POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"):
        with ingress.connect() as connection:
            connection.sendall(cut)

    assert [] == inbox.drain()


def test_a_thousand_connections_that_say_nothing_do_not_keep_others_out(ingress: Ingress, inbox: Inbox) -> None:
    idle = [ingress.connect() for _ in range(1000)]
    answer = ingress.post("open", b"taken")
    for connection in idle:
        connection.close()

    assert 202 == answer.status
    assert [b"taken"] == bodies(inbox)


@pytest.fixture(scope="module")
def small(shared_database: Any, servers: PrivateServers, ingress: Ingress) -> Iterator[Ingress]:
    """An ingress that accepts 40 connections, 30 of them from one address, with long timeouts."""
    with running(shared_database.worker_url, shared_database.vault, servers.amqp_url, most=40, per_address=30) as one:
        wait_for(lambda: one.ready)
        wait_for(lambda: not len(one.server.clients))
        yield one


def crowd(ingress: Ingress, count: int, said: bytes, address: str) -> list[socket.socket]:
    there = ("127.0.0.1", ingress.port)
    connections = [socket.create_connection(there, timeout=30, source_address=(address, 0)) for _ in range(count)]
    for connection in connections:
        connection.sendall(said)
    return connections


def taken(ingress: Ingress, body: bytes) -> bool:
    """Whether one more connection was accepted. A client that is closed while it sends may not receive the reason."""
    try:
        return 202 == ingress.post("open", body).status
    except OSError:
        return False


def gone(connection: socket.socket) -> bool:
    """Whether the ingress has closed the connection, or sent something."""
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize(
    ("said", "last_words"),
    [(b"", b""), (b"\r\n", b""), (POST, b"HTTP/1.1 503"), (POST + b"Content-Length: 9\r\n\r\n{}", b"HTTP/1.1 503")],
    ids=["nothing", "an empty line", "half a head", "half a body"],
)
def test_a_connection_that_keeps_others_waiting_is_closed_for_them(
    small: Ingress, inbox: Inbox, said: bytes, last_words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_SLOW", 1.5)
    waiting = crowd(small, 25, said, "127.0.0.1") + crowd(small, 15, said, "127.0.0.2")
    wait_for(lambda: 40 == len(small.server.clients))
    wait_for(lambda: taken(small, b"taken"))
    oldest = read_all(waiting.pop(0))
    left = [connection for connection in waiting if not gone(connection)]
    for connection in waiting:
        connection.close()
    wait_for(lambda: not len(small.server.clients))

    assert last_words == oldest[: len(last_words) or None]
    assert 20 <= len(left)
    assert [b"taken"] == bodies(inbox)


def test_an_address_with_its_share_of_connections_keeps_nobody_else_out(small: Ingress, inbox: Inbox) -> None:
    greedy = crowd(small, 30, POST + b"Content-Length: 2\r\n\r\n", "127.0.0.2")
    wait_for(lambda: 30 == len(small.server.clients))
    refused = [parsed(read_all(connection)).status for connection in crowd(small, 2, b"", "127.0.0.2")]
    answer = small.post("open", b"somebody else")
    for connection in greedy:
        connection.close()

    assert [503, 503] == refused
    assert 202 == answer.status
    assert [b"somebody else"] == bodies(inbox)


PIECES = st.lists(
    st.sampled_from(
        [
            b"POST /in/acme/open HTTP/1.1\r\n",
            b"GET /livez HTTP/1.1\r\n",
            b"Host: x\r\n",
            b"Content-Length: 2\r\n",
            b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Type: application/cloudevents-batch+json\r\n",
            b"ce-specversion: 1.0\r\n",
            b"X-Request-ID: \xff\xfe\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
            b"Connection: upgrade\r\nUpgrade: h2c\r\n",
            b"\r\n",
            b"{}",
            b"2\r\n{}\r\n",
            b"0\r\n\r\n",
            b"ffffffffffffffff\r\n",
        ]
    )
    | st.binary(max_size=8),
    max_size=12,
)
#: The status codes that bad input may get: never 5xx.
ALLOWED = {100, 200, 202, 400, 401, 404, 405, 408, 411, 413, 415, 431}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES)
def test_whatever_is_sent_the_answer_is_never_a_fault_of_ours(ingress: Ingress, inbox: Inbox, pieces: list[bytes]) -> None:
    with ingress.connect() as connection:
        try:
            connection.sendall(b"".join(pieces))
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the connection is closed already
        raw = read_all(connection)

    assert set(statuses(raw)) <= ALLOWED
    if 202 in statuses(raw):
        recorded = bodies(inbox)
        assert statuses(raw).count(202) <= len(recorded)
        assert b"chunked" in b"".join(pieces) or all(body in b"".join(pieces) for body in recorded)
