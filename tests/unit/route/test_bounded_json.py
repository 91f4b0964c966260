"""Documents that are small to send and large to read."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from pipeline.admit import admit
from pipeline.formats.bounded_json import TooManyValues, loads, members
from pipeline.formats.cloudevents import BATCH, STRUCTURED
from pipeline.receive import receive
from schemas.catalog import Catalog
from schemas.message import Message
from schemas.source import Source

MIB = 1024 * 1024
NOW = datetime(2026, 1, 1, tzinfo=UTC)

#: The beginning of a document, the part that is repeated to its size, and its end.
BOMBS = {
    "arrays": (b"[", b"[],", b"0]"),
    "objects": (b'{"id":[', b"{},", b"0]}"),
    "small objects": (b'{"id":[', b'{"a":0},', b"0]}"),
    "numbers": (b'{"id":[', b"1,", b"0]}"),
    "empty strings": (b'{"id":[', b'"",', b"0]}"),
    "members": (b"{", b'"a":{},', b'"id":0}'),
    "deep arrays": (b"", b"[", b""),
    "deep objects": (b"", b'{"a":', b""),
}
WIDE = {"wide": (b'{"id":"', b"x", '\U0001f600"}'.encode()), "escaped": (b'{"id":"', b"x", b'\\uD83D\\uDE00"}')}


def filled(name: str, size: int) -> bytes:
    before, repeated, after = (BOMBS | WIDE)[name]
    return before + repeated * ((size - len(before) - len(after)) // len(repeated)) + after


def received(body: bytes, content_type: str | None, **options: Any) -> None:
    """Receives a body as the ingress does."""
    source = Source("acme", "shop", options.pop("kind", "none"), **options)
    headers = {"x-github-event": "push"} | ({"content-type": content_type} if content_type else {})
    receive(source, headers, body, NOW, lambda: "fresh")


def admitted(body: bytes, content_type: str | None, **options: Any) -> None:
    """Admits a body from an upstream system as the ingest worker does."""
    source = Source("acme", "shop", "amqp", max_body=len(body), **options)
    catalog = Catalog(1, {"acme": b"k" * 32}, {("acme", "shop"): source}, {})
    admit(Message("acme.shop", body, content_type, message_id="m", headers={"subject": "s"}), catalog, NOW)


CHILD = """
import resource, sys
sys.path.insert(0, "tests/unit/route")
from test_bounded_json import *
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))  # so that a failure harms this process alone
def measured(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) * 1024
for argument in sys.argv[1:]:
    name, kind = argument.split(":")
    body = filled(name, 64 * MIB)
    open("/proc/self/clear_refs", "w").write("5")  # the peak is measured anew
    before = measured("VmRSS") - len(body)
    for take in (received, admitted):
        try:
            take(body, kind or None, subject="/id")
            print("taken", flush=True)
        except (TooManyValues, MemoryError) as error:
            print(type(error).__name__)
    print((measured("VmHWM") - before) / len(body))
"""


def test_a_large_document_takes_four_times_its_size_at_most() -> None:
    cases = [f"arrays:{BATCH}", f"small objects:{STRUCTURED}", "small objects:", "deep objects:", "wide:", "escaped:"]
    told = subprocess.run([sys.executable, "-c", CHILD, *cases], capture_output=True, text=True, check=True, timeout=300)
    lines = told.stdout.split()

    assert ["TooManyValues"] * 2 * len(cases) == [line for n, line in enumerate(lines) if n % 3 != 2]
    assert max(map(float, lines[2::3])) <= 4


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize(
    ("content_type", "options"),
    [(STRUCTURED, {}), (BATCH, {}), (None, {"id": "/id"}), (None, {"extensions": {"a": "/a"}})],
    ids=["structured", "batch", "pointer", "extension"],
)
def test_what_would_take_too_much_is_rejected_before_it_is_parsed(
    name: str, content_type: str | None, options: dict[str, Any]
) -> None:
    for take in (received, admitted):
        with pytest.raises(TooManyValues, match="too many values"):
            take(filled(name, 5 * MIB), content_type, **options)


@pytest.mark.parametrize("kind", ["none", "github", "stripe", "slack", "shopify", "twilio"])
def test_what_a_kind_looks_for_is_not_looked_for_in_too_many_values(kind: str) -> None:
    with pytest.raises(TooManyValues):
        received(filled("small objects", 5 * MIB), "application/json", kind=kind)


@pytest.mark.parametrize(
    "body", [filled("arrays", 8 * MIB), b"1,2;" * MIB, b"\x00" + b"{" * MIB], ids=["array", "table", "binary"]
)
def test_a_large_body_that_nothing_is_looked_for_in_is_not_parsed(body: bytes) -> None:
    received(body, "application/octet-stream")
    admitted(body, "application/octet-stream")


def test_a_file_that_begins_as_json_does_is_not_taken_for_json() -> None:
    assert {} == members(b"{" + bytes(range(256)) * 100_000)


def test_a_form_of_github_is_decoded_in_little_memory() -> None:
    body = b"payload=" + b"%5B%5D%2C" * 200_000

    assert members(body) == {}
    received(body, "application/x-www-form-urlencoded", kind="github")


def test_documents_of_many_values_are_read() -> None:
    numbers = list(range(200_000))
    rows = [{"id": n, "name": f"name of {n}", "url": f"https://api.example/{n}"} for n in range(100_000)]

    assert numbers == loads(orjson.dumps(numbers))
    assert rows == loads(orjson.dumps(rows))
