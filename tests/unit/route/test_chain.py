"""The ledger's bytes, compared with its published vectors."""

import base64
import hmac
import json
from pathlib import Path
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chain import VERSION, commitment, encode, entry_hash, envelope, extend, extend_all
from schemas.blob import LARGEST_INLINE
from schemas.entry import Head
from schemas.event import Event

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ledger.json").read_text())


def sealed(vector: dict) -> dict:
    return json.loads(vector["envelope"])


def head_before(vector: dict) -> Head:
    members = sealed(vector)
    prev = members["prev"]
    return Head(UUID(members["chain"]), members["seq"] - 1, bytes.fromhex(prev) if prev else None)


def event_of(vector: dict, key: bytes = b"c" * 16) -> Event:
    attributes = json.loads(vector["attributes"])
    return Event("acme", attributes, base64.b64decode(vector["body_base64"]), attributes["id"].encode()[:16], key)


def test_the_vectors_are_one_chain_of_three() -> None:
    assert [0, 1, 2] == [sealed(vector)["seq"] for vector in VECTORS]
    assert [None, VECTORS[0]["hash"], VECTORS[1]["hash"]] == [sealed(vector)["prev"] for vector in VECTORS]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"entry {sealed(vector)['seq']}")
def test_an_entry_is_the_vector_to_the_byte(vector) -> None:
    at = sealed(vector)["at"]
    salt = bytes.fromhex(vector["salt"])
    attributes = encode(json.loads(vector["attributes"]))
    pc = commitment(salt, attributes, base64.b64decode(vector["body_base64"]))
    head = head_before(vector)
    raw = envelope(head.chain_id.hex, head.seq + 1, head.hash, "acme", at, "event", pc)
    entry = extend(head, event_of(vector), at, salt)

    assert vector["attributes"].encode() == attributes == entry.attributes
    assert vector["pc"] == pc.hex() == entry.pc.hex()
    assert (at, "event") == (entry.at, entry.kind)
    assert vector["envelope"].encode() == raw
    assert vector["hash"] == entry_hash(raw).hex() == entry.hash.hex()


@pytest.mark.parametrize("size", [LARGEST_INLINE, LARGEST_INLINE + 1])
def test_the_commitment_is_the_hmac_of_the_whole_content_however_large(size: int) -> None:
    salt, body = b"s" * 32, b"x" * size
    expected = hmac.digest(salt, b"waxseal/content/v1\0" + (2).to_bytes(8, "big") + b"{}" + body, "sha256")

    assert expected == commitment(salt, b"{}", body)


def test_a_batch_extends_its_chain_in_the_events_order() -> None:
    events = [event_of(vector) for vector in VECTORS]
    salts = b"".join(bytes.fromhex(vector["salt"]) for vector in VECTORS)

    entries, moved = extend_all({b"c" * 16: head_before(VECTORS[0])}, events, 1767225600123456, salts)

    assert VECTORS[0]["hash"] == entries[0].hash.hex()
    assert [None, entries[0].hash, entries[1].hash] == [entry.prev_hash for entry in entries]
    assert {b"c" * 16: Head(entries[0].chain_id, 2, entries[2].hash)} == moved


def test_chains_of_one_batch_do_not_mix() -> None:
    one, other = b"1" * 16, b"2" * 16
    heads = {key: Head(UUID(bytes=key), -1, None) for key in (one, other)}
    events = [event_of(VECTORS[n % 3], one if n % 2 else other) for n in range(6)]

    entries, moved = extend_all(heads, events, 1, bytes(32 * 6))

    assert [(UUID(bytes=other), n // 2) if n % 2 == 0 else (UUID(bytes=one), n // 2) for n in range(6)] == [
        (entry.chain_id, entry.seq) for entry in entries
    ]
    assert {one: 2, other: 2} == {key: head.seq for key, head in moved.items()}


def test_the_commitment_tells_attributes_from_body() -> None:
    salt = bytes(32)

    assert commitment(salt, b"ab", b"c") != commitment(salt, b"a", b"bc")


@given(st.binary(min_size=32, max_size=32), st.binary(), st.binary(max_size=5000))
def test_a_commitment_is_the_hmac_that_the_library_computes(salt: bytes, attributes: bytes, body: bytes) -> None:
    message = b"waxseal/content/v1\x00" + len(attributes).to_bytes(8, "big") + attributes + body

    assert hmac.digest(salt, message, "sha256") == commitment(salt, attributes, body)


def generic(chain: str, seq: int, prev: bytes | None, tenant: str, at: int, kind: str, pc: bytes | None) -> bytes:
    """The envelope as a general encoder of canonical JSON writes it."""
    members = {"v": VERSION, "hash": "sha-256", "tenant": tenant, "chain": chain, "seq": seq}
    members |= {"prev": prev and prev.hex(), "at": at, "kind": kind, "pc": pc and pc.hex()}
    return rfc8785.dumps(members)


@given(
    st.uuids().map(lambda id_: id_.hex),
    st.integers(0, 2**53 - 2),
    st.none() | st.binary(min_size=32, max_size=32),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.sampled_from(["event", "erasure", "heads"]) | st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.binary(min_size=32, max_size=32),
)
def test_an_envelope_is_canonical_to_the_byte(chain, seq, prev, tenant, at, kind, pc) -> None:
    assert generic(chain, seq, prev, tenant, at, kind, pc) == envelope(chain, seq, prev, tenant, at, kind, pc)
