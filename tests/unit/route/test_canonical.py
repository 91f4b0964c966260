"""orjson writes the hashed bytes; rfc8785 defines them. For everything that an entry can hold, the two are equal."""

import json

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chain import encode, envelope
from pipeline.errors import Unreadable
from pipeline.ledger.checks import read_attributes, read_envelope
from schemas.event import REQUIRED

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
awkward = st.sampled_from(
    ["", "\x00\x1f\x7f\x80", '"\\/\b\f\n\r\t', "\u2028\u2029\ufeff\uffff", "\U0001f600", "é\u0301", "</script>"]
)
names = st.from_regex(r"\A[a-z0-9]{1,20}\Z")
values = texts | awkward
attributes = st.builds(
    lambda required, more: {**more, **dict(zip(REQUIRED, required, strict=True))},
    st.lists(values, min_size=len(REQUIRED), max_size=len(REQUIRED)),
    st.dictionaries(names, values, max_size=8),
)
hashes = st.binary(min_size=32, max_size=32)
chains = st.uuids().map(lambda id_: id_.hex)
slugs = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
numbers = st.integers(0, 2**53 - 1)


@given(attributes)
def test_attributes_are_rfc_8785_bytes(found) -> None:
    assert rfc8785.dumps(found) == encode(found)
    assert found == read_attributes(encode(found))


@given(chains, numbers, st.none() | hashes, slugs, numbers, hashes)
def test_envelopes_are_rfc_8785_bytes(chain, seq, prev, tenant, at, pc) -> None:
    raw = envelope(chain, seq, prev, tenant, at, "event", pc)

    assert rfc8785.dumps(json.loads(raw)) == raw
    assert json.loads(raw) == read_envelope(raw)


VALID = envelope("0" * 31 + "1", 1, bytes(32), "acme", 1, "event", bytes(32))


def with_members(**changed: object) -> bytes:
    members = {**json.loads(VALID), **changed}
    return orjson.dumps({name: value for name, value in members.items() if value != "left out"}, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[1]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        VALID + b"\n",
        b" " + VALID,
        VALID.replace(b'"acme"', b'"\\u0061cme"'),
        VALID.replace(b'"acme"', b'"\\ud800"'),
        VALID.replace(b'{"at":1', b'{"at":1,"at":1'),
        VALID.replace(b'"seq":1', b'"seq":1.0'),
        json.dumps(json.loads(VALID)).encode(),
        orjson.dumps(dict(reversed(list(json.loads(VALID).items())))),
        with_members(v="waxseal/event/v2"),
        with_members(hash="sha-512"),
        with_members(kind="gift"),
        with_members(more=1),
        with_members(pc="left out"),
        with_members(seq=True),
        with_members(seq=-1),
        with_members(seq=2**53),
        with_members(seq="1"),
        with_members(at=None),
        with_members(at=2**60),
        with_members(prev="0" * 63),
        with_members(prev="0" * 63 + "A"),
        with_members(prev=0),
        with_members(chain="0" * 31),
        with_members(tenant=""),
        with_members(tenant=None),
        with_members(pc=None),
        with_members(v=[]),
        with_members(kind={}),
    ],
)
def test_an_envelope_in_any_other_form_is_unreadable(raw) -> None:
    with pytest.raises(Unreadable):
        read_envelope(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b'{"id":"a"}', b'{"a b":"c"}', b'{"id":1}', b"[" * 100_000], ids=lambda raw: repr(raw[:12])
)
def test_attributes_in_any_other_form_are_unreadable(raw) -> None:
    with pytest.raises(Unreadable):
        read_attributes(raw)


def test_attributes_with_a_number_or_an_odd_name_are_unreadable() -> None:
    good = dict.fromkeys(REQUIRED, "x")

    assert good == read_attributes(encode(good))
    for bad in ({**good, "extra": 1}, {**good, "Extra": "x"}, {**good, "a-b": "x"}, {**good, "": "x"}):
        with pytest.raises(Unreadable):
            read_attributes(orjson.dumps(bad, option=orjson.OPT_SORT_KEYS))
