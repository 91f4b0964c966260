import asyncio
from typing import Any

import pytest

from pipeline.kinds import PATH
from workers.incoming import Budget, Gone, Incoming, headers_of
from workers.problems import PROBLEMS, Problem


def incoming(budget: Budget | None = None, **headers: str) -> Incoming:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"method": "POST", "headers": raw, "raw_path": b"/in/acme/shop%20", "query_string": b"a=%ff"}
    return Incoming(scope, budget or Budget())


def read(request: Incoming, *chunks: bytes, limit: int = 100) -> bytes:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": n < len(chunks)} for n, chunk in enumerate(chunks, 1)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return asyncio.run(request.body(receive, limit))


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


def test_who_hangs_up_is_gone() -> None:
    with pytest.raises(Gone):
        read(incoming(content_length="5"))


def test_all_bodies_together_are_bounded_and_given_back() -> None:
    budget = Budget(100)
    first, second = incoming(budget, transfer_encoding="chunked"), incoming(budget, transfer_encoding="chunked")
    read(first, b"x" * 60)
    with pytest.raises(Problem) as problem:
        read(second, b"x" * 60)
    first.done()
    second.done()

    assert 503 == problem.value.status
    assert b"x" * 100 == read(incoming(budget, transfer_encoding="chunked"), b"x" * 100)


def test_a_header_that_comes_twice_holds_both_values() -> None:
    assert {"a": "1, 2", "b": "\xff"} == headers_of([(b"a", b"1"), (b"b", b"\xff"), (b"a", b"2")])


def test_the_path_is_a_header_of_its_own_that_no_sender_can_send() -> None:
    assert "/in/acme/shop%20?a=%ff" == incoming().headers[PATH]


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_goes_over_the_wire_whole(name: str) -> None:
    raw = Problem(name, "det\ud800ail", ("X-More", "1")).wire("r-1")
    head, _, body = raw.partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % PROBLEMS[name][0])
    assert {b"x-more: 1", b"connection: close", b"x-request-id: r-1", b"content-length: %d" % len(body)} <= set(
        head.split(b"\r\n")
    )
