import pytest

from pipeline.sources import PATH
from workers.ingress.problems import PROBLEMS, Answer, Problem
from workers.ingress.request import Budget, Incoming
from workers.ingress.request_parser import MAX_HEAD, MAX_HEADERS, RequestHead, Requests


class Found:
    """Records what the parser reports."""

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []
        self.bodies: list[bytes] = []
        self.whole = 0

    def on_begin(self) -> None:
        self.bodies.append(b"")

    def on_head(self, head: RequestHead) -> None:
        self.heads.append(head)

    def on_piece(self, piece: bytes) -> None:
        self.bodies[-1] += piece

    def on_whole(self) -> None:
        self.whole += 1


def found(raw: bytes, size: int | None = None) -> Found:
    """Parses `raw` in pieces of that size; returns what the parser reported."""
    side = Found()
    requests = Requests(side)
    for at in range(0, len(raw), size or len(raw)):
        requests.feed(memoryview(raw)[at : at + (size or len(raw))])
    return side


def incoming(budget: Budget | None = None, **headers: str) -> Incoming:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Incoming(
        RequestHead("POST", b"/", named, keep_alive=True, expects_continue=False),
        budget or Budget(),
        lambda _request, _answer: None,
    )


def read(request: Incoming, *chunks: bytes, limit: int = 100) -> bytes:
    request.allow(limit)
    for chunk in chunks:
        request.add(chunk)
    return request.body()


def test_a_body_is_put_together_from_its_pieces() -> None:
    request = incoming(transfer_encoding="chunked")

    assert b"abc" == read(request, b"a", b"", b"bc")
    assert 3 == request.size


def test_reading_stops_with_the_piece_that_is_too_much() -> None:
    request = incoming(transfer_encoding="chunked")
    with pytest.raises(Problem) as problem:
        read(request, b"x" * 60, b"x" * 60, b"x" * 60)

    assert (413, 120) == (problem.value.status, request.size)


def test_what_is_declared_too_large_is_not_read_at_all() -> None:
    request = incoming(content_length="101")
    with pytest.raises(Problem):
        read(request)

    assert 0 == request.size


@pytest.mark.parametrize("length", ["x", "-1", "1" * 25, "", "1, 1", "\xb2"])
def test_a_length_that_is_no_number_is_malformed(length: str) -> None:
    with pytest.raises(Problem) as problem:
        read(incoming(content_length=length), b"")

    assert 400 == problem.value.status


def test_all_bodies_together_are_bounded_and_given_back_once() -> None:
    budget = Budget(100)
    first, second = incoming(budget, transfer_encoding="chunked"), incoming(budget, transfer_encoding="chunked")
    read(first, b"x" * 60)
    with pytest.raises(Problem) as problem:
        read(second, b"x" * 60)
    first.answer(Answer(202, b"text/plain", b""))
    first.drop()
    second.drop()

    assert 503 == problem.value.status
    assert b"x" * 100 == read(incoming(budget, transfer_encoding="chunked"), b"x" * 100)
    with pytest.raises(Problem):
        read(incoming(budget, transfer_encoding="chunked"), b"x")


def test_what_comes_after_the_answer_is_not_kept() -> None:
    request = incoming(transfer_encoding="chunked")
    read(request, b"x")
    request.answer(Answer(202, b"text/plain", b""))
    request.add(b"more")

    assert (1, b"") == (request.size, request.body())


@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_header_that_comes_twice_holds_both_values(size: int | None) -> None:
    raw = b"GET / HTTP/1.1\r\nA: 1\r\nHost: x\r\nB: \xff\r\na: 2\r\n\r\n"
    (head,) = found(raw, size).heads

    assert {"a": "1, 2", "b": "\xff", "host": "x", PATH: "/"} == head.headers


def test_a_head_may_hold_no_header_at_all() -> None:
    (head,) = found(b"GET / HTTP/1.0\r\n\r\n").heads

    assert {PATH: "/"} == head.headers


@pytest.mark.parametrize("size", [None, 1, 7, 1000])
@pytest.mark.parametrize("before", [b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"])
def test_headers_and_trailers_are_counted_together_however_they_come(size: int | None, before: bytes) -> None:
    def request(headers: int, trailers: int, more: bytes = b"") -> bytes:
        lines = before.count(b"\r\n") - 1 + 2
        head = before + b"Host: x\r\nTransfer-Encoding: chunked\r\n" + b"A: 1\r\n" * (headers - lines)
        return head + b"\r\n2\r\nab\r\n0\r\n" + b"T: 1\r\n" * trailers + more + b"\r\n"

    taken = found(request(MAX_HEADERS - 1, 1) * 2, size)

    assert (2, [b"ab", b"ab"]) == (taken.whole, taken.bodies)
    for refused in (
        request(MAX_HEADERS + 1, 0),
        request(MAX_HEADERS, 1) * 2,
        request(10, 1, b"U: %b\r\n" % (b"u" * MAX_HEAD)),
        request(10, 0).replace(b"A: 1", b"A: %b" % (b"a" * MAX_HEAD), 1),
    ):
        with pytest.raises(Problem) as problem:
            found(refused, size)
        assert 431 == problem.value.status


def test_a_header_in_several_lines_is_malformed() -> None:
    with pytest.raises(Problem) as problem:
        found(b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\n 2\r\n\r\n")

    assert 400 == problem.value.status


def test_the_path_is_a_header_of_its_own_that_no_sender_can_send() -> None:
    (head,) = found(b"GET /in/acme/shop%20?a=%ff HTTP/1.1\r\nHost: x\r\n\r\n").heads

    assert ("/in/acme/shop%20?a=%ff", b"/in/acme/shop%20") == (head.headers[PATH], head.path)
    with pytest.raises(Problem):
        found(b"GET / HTTP/1.1\r\nHost: x\r\n:path: /x\r\n\r\n")


@pytest.mark.parametrize("size", [None, 1, 7, 50])
def test_many_upgrades_one_after_the_other_lose_nothing(size: int | None) -> None:
    one = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\n%03d"
    side = found(b"".join(one % n for n in range(500)), size)

    assert 500 == side.whole == len(side.heads)
    assert [b"%03d" % n for n in range(500)] == side.bodies


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b" HTTP/1.1\r\n", True),
        (b" HTTP/1.0\r\nConnection: keep-alive\r\n", False),
        (b" HTTP/1.1\r\nConnection: close\r\n", False),
    ],
)
def test_a_connection_is_kept_unless_the_sender_says_otherwise(head: bytes, keep_alive: bool) -> None:
    (found_head,) = found(b"GET /" + head + b"Host: x\r\n\r\n").heads

    assert keep_alive == found_head.keep_alive


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_goes_over_the_wire_whole(name: str) -> None:
    answer = Problem(name, "det\ud800ail", ("X-More", "1"), ("Connection", "close")).answer("r-1")
    head, _, body = answer.wire("r-1", b"now", close=True).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")

    assert lines[0].startswith(b"HTTP/1.1 %d " % PROBLEMS[name][0])
    assert {b"x-more: 1", b"date: now", b"x-request-id: r-1", b"content-length: %d" % len(body)} <= set(lines)
    assert 1 == lines.count(b"connection: close")
    assert answer.closes
