"""The headers that a subscriber gets: Standard Webhooks 1.0 signatures, CloudEvents 1.0 attributes, W3C trace context."""

import base64
import re
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import orjson

from pipeline.formats import trace_context
from schemas.blob import LARGEST_INLINE
from schemas.delivery import Delivery
from schemas.trace import TraceContext

PREFIX = "whsec_"
RANDOM_BYTES = 24  # of a trace id and a span id

# Standard Webhooks forbids a "." in ids that others control; the rest must be safe in headers and in subscribers' logs.
_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_PLAIN = re.compile(r"[!#$&-~]*")
_UNESCAPED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_MEDIA_TYPE = re.compile(r"[!-~][!-.0-~]*/[ -~]+")  # in linear time: only the first slash behind a character can match
_BLOCK = 64  # bytes of SHA-256 (RFC 2104 §2)
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_KEPT = 4096  # cached keys and attribute names, each


@lru_cache(_KEPT)
def key_of(secret: str) -> bytes:
    """The key in a `whsec_` secret, base64-decoded. Raises ValueError, whose text does not hold the secret.

    Prefix and padding are optional, as in every Standard Webhooks library.
    """
    encoded = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError(f"an endpoint's secret is {PREFIX} followed by base64")
    return key


def sign(keys: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one `v1,` signature per key. `timestamp` in Unix seconds."""
    before = b"%b.%d." % (webhook_id.encode(), timestamp)
    pieces = (before, body) if len(body) > LARGEST_INLINE else (before + body,)  # without a copy of a large body
    return " ".join(["v1," + b2a_base64(_mac(key, pieces), newline=False).decode() for key in keys])


def _mac(key: bytes, pieces: Sequence[bytes]) -> bytes:
    """HMAC-SHA256 (RFC 2104 §4): from precomputed states of the key, and without releasing the GIL for a small body.

    `hmac.digest` releases it each time, and then waits until another thread gives it back.
    """
    began, ends = _keyed(key)
    inner, outer = began.copy(), ends.copy()
    for piece in pieces:
        inner.update(piece)
    outer.update(inner.digest())
    mac: bytes = outer.digest()
    return mac


@lru_cache(_KEPT)
def _keyed(key: bytes) -> tuple[Any, Any]:
    block = (sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return sha256(block.translate(_INNER)), sha256(block.translate(_OUTER))


def webhook_id(event_id: str, fingerprint: bytes) -> str:
    """The id by which subscribers dedupe: the event's own if a header can carry it, else one made of its fingerprint."""
    return event_id if _ID.fullmatch(event_id) else f"evt_{fingerprint.hex()}"


def described(delivery: Delivery) -> dict[str, str]:
    """The description of an event: its attributes, and its place in the ledger, which they cannot override."""
    facts: dict[str, str] = orjson.loads(delivery.attributes)
    facts["tenant"] = delivery.tenant
    facts["chain"] = delivery.chain_id.hex
    facts["chainseq"] = str(delivery.seq)
    facts["chainhash"] = delivery.hash.hex()
    facts.pop("prevhash", None)
    if delivery.prev_hash is not None:
        facts["prevhash"] = delivery.prev_hash.hex()
    return facts


def media_type(value: str) -> str:
    """A datacontenttype that is valid in a header; `application/octet-stream` for any other."""
    return value if _MEDIA_TYPE.fullmatch(value) else "application/octet-stream"


def headers(delivery: Delivery, keys: Sequence[bytes], user_agent: str, now: datetime, random: bytes) -> dict[str, str]:
    """All headers of one try at `now`, in printable ASCII only (CONTRACT §6).

    `random` holds 24 fresh bytes. An event's attributes cannot override the ledger's values.
    """
    facts = described(delivery)
    content_type = facts.pop("datacontenttype")
    identity, timestamp = webhook_id(facts["id"], delivery.fingerprint), int(now.timestamp())
    found = {
        "content-type": media_type(content_type),
        "user-agent": user_agent,
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        **trace_headers(delivery, facts, random),
    }
    if keys:
        found["webhook-signature"] = sign(keys, identity, timestamp, delivery.body)
    plain = _PLAIN.fullmatch("".join(facts.values()))
    for name, value in facts.items():
        header = _header(name)
        if header is not None:
            found[header] = value if plain else _escaped(value)
    return found


@lru_cache(_KEPT)
def _header(name: str) -> str | None:
    return f"ce-{name}" if name.isascii() and name.isalnum() else None


def trace_headers(delivery: Delivery, facts: Mapping[str, str], random: bytes) -> dict[str, str]:
    """`traceparent` and, if the sender gave one, `tracestate`: the span that the attempt is recorded as.

    While traces are not recorded: a new span in the trace that the event's sender named, else in a new trace.
    """
    span = delivery.trace
    if span is None:
        parent = trace_context.given(facts)
        if parent is None:
            return {"traceparent": f"00-{random[:16].hex()}-{random[16:24].hex()}-01"}
        span = TraceContext(parent.trace_id, random[16:24].hex(), parent.sampled, parent.state, parent.random)
    found = {"traceparent": trace_context.traceparent(span)}
    if span.state:
        found["tracestate"] = span.state
    return found


def _escaped(value: str) -> str:
    """A value encoded as in the CloudEvents HTTP binding §3.1.3.2: percent-encoded except for printable ASCII without space."""
    return value if _PLAIN.fullmatch(value) else quote(value, safe=_UNESCAPED)
