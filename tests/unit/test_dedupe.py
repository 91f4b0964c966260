"""Fingerprints and chain keys: the same for the same, different for everything else, and mute without the key."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedupe import chain_key, fingerprint, first_of_each, unknown
from schemas.event import Event

KEY, OTHER = b"k" * 32, b"o" * 32
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def event(print_: bytes, body: bytes = b"") -> Event:
    return Event("acme", {}, body, print_, b"")


def test_a_fingerprint_never_changes() -> None:
    """What is stored was made by this function: another result would accept every event of the past once more."""
    assert fingerprint(KEY, "shop", "evt-1").hex() == "8ba2aad2f4e7004c2399f44e3b47134b"
    assert chain_key(KEY, "order-1").hex() == "7a5751f2ff4e98bc3c19cc22e610d45f"


@given(texts, texts, texts, texts)
def test_fields_are_told_apart(source, id_, other_source, other_id) -> None:
    same = (source, id_) == (other_source, other_id)

    assert same == (fingerprint(KEY, source, id_) == fingerprint(KEY, other_source, other_id))


def test_it_depends_on_the_tenants_key_and_the_purpose() -> None:
    assert fingerprint(KEY, "shop", "evt-1") != fingerprint(OTHER, "shop", "evt-1")
    assert chain_key(KEY, "order-1") != chain_key(OTHER, "order-1")
    assert chain_key(KEY, "x") != fingerprint(KEY, "x", "")
    assert 16 == len(fingerprint(KEY, "shop", "evt-1")) == len(chain_key(KEY, "order-1"))


def test_the_first_of_each_stays_in_its_place() -> None:
    batch = [event(b"a", b"1"), event(b"b", b"2"), event(b"a", b"3"), event(b"c", b"4"), event(b"b", b"5")]

    assert [b"1", b"2", b"4"] == [each.body for each in first_of_each(batch)]


def test_what_is_known_is_dropped_and_the_order_kept() -> None:
    batch = [event(b"c"), event(b"a"), event(b"b")]

    assert [b"c", b"b"] == [each.fingerprint for each in unknown(batch, {b"a", b"z"})]
