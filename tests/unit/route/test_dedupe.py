"""Fingerprints and chain keys: equal for equal inputs only, and meaningless without the key."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit import admit
from pipeline.dedupe import chain_key, content_of, digest, fingerprint, first_of_each, identity, looked_up, name_origin, sift
from pipeline.errors import Rejected
from schemas.blob import name
from schemas.catalog import Catalog
from schemas.event import Content, Event
from schemas.message import Message
from schemas.source import Source

KEY, OTHER = b"k" * 32, b"o" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CATALOG = Catalog(
    1, {"acme": KEY}, {("acme", name): Source("acme", name, "amqp") for name in ("orders", "shop")}, {}, frozenset({"acme"})
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10)


def event(print_: bytes, body: bytes = b"", former: bytes | None = None, **attributes: str) -> Event:
    return Event("acme", {"source": "shop", "type": "t", "subject": "s", **attributes}, body, print_, b"", None, former)


def content(body: bytes = b"", **attributes: str) -> Content:
    return content_of(event(b"", body, **attributes))


def test_a_fingerprint_never_changes() -> None:
    """The stored fingerprints were made by this function: with another result, every past event would be recorded again."""
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


def test_an_origin_is_part_of_the_identity_and_its_absence_changes_nothing() -> None:
    """Stored fingerprints have both forms; the first is that of every event that was recorded without an origin."""
    assert fingerprint(KEY, "shop", "evt-1", None).hex() == "8ba2aad2f4e7004c2399f44e3b47134b"
    assert fingerprint(KEY, "shop", "evt-1", "/up").hex() == "07c40280773f729c8fb2e87d87352641"
    assert fingerprint(KEY, "shop", "evt-1", "/up") == identity(KEY, {"source": "shop", "id": "evt-1", "origin": "/up"})


@given(texts, texts, texts, st.none() | texts, st.none() | texts)
def test_origins_are_told_apart(source, one, other, origin, other_origin) -> None:
    same = (one, origin or None) == (other, other_origin or None)

    assert same == (fingerprint(KEY, source, one, origin) == fingerprint(KEY, source, other, other_origin))


def test_what_the_sender_calls_itself_is_the_origin_whatever_extension_it_sends_along() -> None:
    ruled = Source("acme", "shop", "amqp", extensions={"origin": "header:X"})
    cases = [
        ({"source": "/up"}, Source("acme", "shop", "amqp")),
        ({"source": "/up", "origin": "/other"}, Source("acme", "shop", "amqp")),
        ({"source": "shop", "origin": "/forwarded"}, Source("acme", "shop", "amqp")),
        ({"source": "/up", "origin": "/by-rule"}, ruled),
        ({"source": "/up"}, ruled),
        ({}, ruled),
    ]
    for attributes, source in cases:
        name_origin(attributes, source)

    assert ["/up", "/up", "/forwarded", "/by-rule", "/up", None] == [found.get("origin") for found, _ in cases]
    assert {"shop"} == {found["source"] for found, _ in cases}


def test_the_first_of_each_stays_in_its_place() -> None:
    batch = [event(b"a", b"1"), event(b"b", b"2"), event(b"a", b"3"), event(b"c", b"4"), event(b"b", b"5")]

    assert [b"1", b"2", b"4"] == [each.body for each in first_of_each(batch).values()]


def sifted(
    batch: Sequence[Event], recorded: Mapping[bytes, Content | None]
) -> tuple[list[bytes], list[tuple[bytes, list[str]]]]:
    """The bodies to record, and the bodies of conflicts with what differs in each."""
    found = sift(batch, first_of_each(batch), recorded)
    return [each.body for each in found.fresh], [(each.event.body, list(each.differs)) for each in found.conflicts]


def test_what_is_known_is_dropped_and_the_order_kept() -> None:
    batch = [event(b"c", b"3"), event(b"a", b"1"), event(b"b", b"2")]

    assert ([b"3", b"2"], []) == sifted(batch, {b"a": content(b"1"), b"z": content()})


def test_a_duplicate_of_other_content_is_told_against_the_ledger_and_within_a_batch() -> None:
    batch = [event(b"a", b"1"), event(b"b", b"1"), event(b"b", b"2"), event(b"a", b"3"), event(b"b", b"1")]

    assert ([b"1"], [(b"2", ["body"]), (b"3", ["body"])]) == sifted(batch, {b"a": content(b"1")})
    assert ([], [(b"2", ["body", "type"])]) == sifted([event(b"a", b"2", type="u")], {b"a": content(b"1")})
    assert ([], [(b"", ["subject"])]) == sifted([event(b"a", subject="u")], {b"a": content()})


def test_a_large_body_is_compared_by_the_digest_that_it_is_kept_under() -> None:
    large = replace(event(b"a", b""), blob=name(b"large").reference)

    assert ([], []) == sifted([large], {b"a": content(b"large")})
    assert ([], [(b"", ["body"])]) == sifted([large], {b"a": content(b"other")})


def test_of_what_was_erased_nothing_is_told() -> None:
    assert ([], []) == sifted([event(b"a", b"1")], {b"a": None})


def test_an_event_that_was_recorded_before_origins_counted_is_known_by_its_former_fingerprint() -> None:
    mine = event(b"n", b"1", former=b"f", origin="/up")

    assert [b"n", b"f"] == looked_up(first_of_each([mine]))
    assert ([], []) == sifted([mine], {b"f": content(b"1", origin="/up")})
    assert ([], [(b"1", ["body"])]) == sifted([mine], {b"f": content(b"2", origin="/up")})
    assert ([], []) == sifted([mine], {b"f": None})
    assert ([b"1"], []) == sifted([mine], {b"f": content(b"1", origin="/down")})
    assert ([b"1"], []) == sifted([mine], {b"f": content(b"1")})


def test_only_where_there_are_older_events_is_an_origin_looked_up_twice() -> None:
    message = Message(
        "acme.orders", b"", headers={"cloudEvents:id": "1", "cloudEvents:source": "/up", "cloudEvents:subject": "s"}
    )

    assert fingerprint(KEY, "orders", "1") == admit(message, CATALOG, NOW)[0].former
    assert admit(message, replace(CATALOG, before_origins=frozenset()), NOW)[0].former is None


def test_a_digest_for_the_log_says_nothing_without_the_key() -> None:
    assert digest(KEY, content(b"1")) == digest(KEY, content(b"1")) != digest(KEY, content(b"2"))
    assert digest(KEY, content(b"1")) != digest(OTHER, content(b"1"))


headers = st.dictionaries(
    st.sampled_from(["id", "source", "type", "subject", "time", "traceparent", "origin", "attempt"]).map(
        "cloudEvents:{}".format
    ),
    printable.filter(bool) | st.just("2026-01-01T00:00:00Z"),
)


@given(
    st.builds(
        Message,
        routing_key=st.sampled_from(["acme.orders", "acme.shop"]),
        body=st.binary(max_size=20),
        headers=st.just({"subject": "s"}) | headers,
        message_id=printable,
        type=st.none() | printable,
        timestamp=st.none() | st.integers(0, 2**32),
    ),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.just(UTC)),
    st.booleans(),
)
def test_the_same_message_again_is_never_a_conflict(message, first, second, in_one_batch) -> None:
    try:
        (one,), (other,) = admit(message, CATALOG, first), admit(message, CATALOG, second)
    except Rejected:
        return

    found = [one, other] if in_one_batch else [other]
    recorded = {} if in_one_batch else {one.fingerprint: content_of(one)}

    assert ([one.body] if in_one_batch else [], []) == sifted(found, recorded)
