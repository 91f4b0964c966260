"""Step 5, chain: an event becomes an entry. Pure; LEDGER §1 defines the bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

import orjson

from schemas.blob import LARGEST_INLINE
from schemas.entry import Entry, Head, end_of, ends
from schemas.event import Event
from schemas.ledger.ledger_rows import StoredEntry

VERSION = "waxseal/event/v1"
LEAF = b"\x00"  # RFC 6962: an entry's hash is also its leaf hash
CONTENT = b"waxseal/content/v1\x00"
SALT_BYTES = 32

# HMAC (RFC 2104) made from two hashes: the library's releases the GIL in every call and waits to get it back, which took a
# fifth of the time for which the ingest worker holds its row locks.
PADDING = bytes(64 - SALT_BYTES)
INNER = bytes(byte ^ 0x36 for byte in range(256))
OUTER = bytes(byte ^ 0x5C for byte in range(256))


def encode(attributes: Mapping[str, str]) -> bytes:
    """The attributes in RFC 8785 form. Exact for string values under lower-case ASCII keys, and admit allows no others."""
    return orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS)


def commitment(salt: bytes, attributes: bytes, body: bytes) -> bytes:
    """`pc`: commits to the content and, once the 32-byte salt is deleted, reveals nothing of it."""
    key = salt.ljust(64, b"\x00")
    before = key.translate(INNER) + CONTENT + len(attributes).to_bytes(8, "big") + attributes
    if len(body) > LARGEST_INLINE:  # avoids a copy of a large body
        hashed = sha256(before)
        hashed.update(body)
    else:
        hashed = sha256(before + body)
    return sha256(key.translate(OUTER) + hashed.digest()).digest()


def envelope(chain: str, seq: int, prev: bytes | None, tenant: str, at: int, kind: str, pc: bytes | None) -> bytes:
    """The bytes that an entry's hash covers, in RFC 8785 form; the SQL function `entry_envelope` makes the same ones.

    `chain` is the chain's id in 32 hex digits; `at` is in microseconds UTC.
    """
    before = "null" if prev is None else f'"{prev.hex()}"'
    commits = "null" if pc is None else f'"{pc.hex()}"'
    return (
        f'{{"at":{at},"chain":"{chain}","hash":"sha-256","kind":{_quoted(kind)},"pc":{commits},"prev":{before},'
        f'"seq":{seq},"tenant":{_quoted(tenant)},"v":"{VERSION}"}}'
    ).encode()


def stored_envelope(entry: StoredEntry) -> bytes:
    """The envelope that a stored row stands for."""
    return envelope(entry.chain_id.hex(), entry.seq, entry.prev_hash, entry.tenant, entry.at, entry.kind, entry.pc)


@lru_cache(1000)
def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def entry_hash(sealed: bytes) -> bytes:
    """The hash of an envelope, which is both the chain link and the Merkle leaf."""
    return sha256(LEAF + sealed).digest()


def extend(head: Head, event: Event, at: int, salt: bytes, kind: str = "event") -> Entry:
    """The entry that records `event` after `head`."""
    attributes = encode(event.attributes)
    pc = commitment(salt, attributes, event.body)
    seq = head.seq + 1
    sealed = envelope(head.chain_id.hex, seq, head.hash, event.tenant, at, kind, pc)
    return Entry(event, head.chain_id, seq, head.hash, entry_hash(sealed), at, kind, pc, attributes, salt)


def extend_each(heads: Mapping[bytes, Head], events: Iterable[Event], at: int, salts: bytes) -> Iterator[Entry]:
    """Extends each event's chain, in the events' order; each entry is made when the caller takes it.

    `heads` must hold every chain key of `events`; `salts` 32 fresh random bytes for each event.
    """
    moved = dict(heads)
    for index, event in enumerate(events):
        entry = extend(moved[event.chain_key], event, at, salts[index * SALT_BYTES : (index + 1) * SALT_BYTES])
        moved[event.chain_key] = end_of(entry)
        yield entry


def extend_all(
    heads: Mapping[bytes, Head], events: Sequence[Event], at: int, salts: bytes
) -> tuple[list[Entry], dict[bytes, Head]]:
    """As `extend_each`, but returns all entries and the new heads, by chain key."""
    assert len(salts) == SALT_BYTES * len(events)
    entries = list(extend_each(heads, events, at, salts))
    return entries, ends(entries)
