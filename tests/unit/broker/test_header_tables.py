"""AMQP header tables on the wire."""

import struct
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import data
from pika.spec import BasicProperties

from schemas.message import Opaque
from workers.amqp import header_tables

header_tables.install()

names = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
seconds = st.integers(0, 253402300799).map(lambda at: datetime.fromtimestamp(at, UTC))
decimals = st.builds(lambda raw, places: Decimal(raw).scaleb(-places), st.integers(-(2**31), 2**31 - 1), st.integers(0, 255))
# A long string in UTF-8 is read as text; a value of the type byte array stays bytes.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
    | seconds
    | decimals
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=15
)


def written(table: dict) -> bytes:
    pieces: list[bytes] = []
    data.encode_table(pieces, table)
    return b"".join(pieces)


def field(value: bytes) -> bytes:
    """A table with one field; `value` holds its type and value."""
    inner = b"\x01h" + value
    return struct.pack(">I", len(inner)) + inner


def nested(depth: int) -> bytes:
    table = b"I" + struct.pack(">i", 7)
    for _ in range(depth):
        table = b"F" + field(table)
    return table


@given(st.dictionaries(names, values, max_size=5))
def test_every_table_is_read_as_it_was_written(table) -> None:
    encoded = written(table)

    assert (table, len(encoded)) == data.decode_table(encoded, 0)


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b"d" + struct.pack(">d", 1.5), 1.5),
        (b"f" + struct.pack(">f", -0.25), -0.25),
        (b"T" + struct.pack(">Q", 2**60), Opaque(b"T" + struct.pack(">Q", 2**60))),
        (b"T" + struct.pack(">Q", 0), datetime(1970, 1, 1, tzinfo=UTC)),
        (b"S" + struct.pack(">I", 2) + b"\xff\xfe", b"\xff\xfe"),
        (b"S" + struct.pack(">I", 2) + "é".encode(), "é"),
        (b"x" + struct.pack(">I", 1) + b"a", b"a"),
        (b"l" + struct.pack(">q", -1), -1),
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"u" + struct.pack(">H", 65535), 65535),
        (b"t\x01", True),
        (b"V", None),
        (b"A" + struct.pack(">I", 3) + b"t\x00V", [False, None]),
    ],
)
def test_each_type_of_field_has_its_value(wire, value) -> None:
    table, end = data.decode_table(field(wire), 0)

    assert ({"h": value}, len(field(wire))) == (table, end)
    assert repr(value) == repr(table["h"])
    assert table == data.decode_table(written(table), 0)[0]


def test_a_name_that_is_not_utf8_is_text_and_comes_out_as_it_went_in() -> None:
    encoded = struct.pack(">I", 4) + b"\x02\xff\xfeV"

    assert {"\udcff\udcfe": None} == data.decode_table(encoded, 0)[0]
    assert encoded == written({"\udcff\udcfe": None})


@pytest.mark.parametrize("depth", [header_tables.DEEPEST + 1, 5000])
def test_a_table_nested_too_deep_is_kept_as_it_came(depth) -> None:
    encoded = field(nested(depth))
    table, end = data.decode_table(encoded, 0)
    inner = table
    for _ in range(header_tables.DEEPEST):
        inner = inner["h"]

    assert len(encoded) == end
    assert Opaque(nested(depth - header_tables.DEEPEST)) == inner["h"]
    assert encoded == written(table)


def test_arrays_within_arrays_end_too() -> None:
    array = b"V"
    for _ in range(5000):
        array = b"A" + struct.pack(">I", len(array)) + array
    encoded = field(array)

    assert encoded == written(data.decode_table(encoded, 0)[0])


def test_a_messages_properties_go_the_same_way() -> None:
    properties = BasicProperties(message_id="\udcff", type="é", headers={"ratio": 0.5}, timestamp=2**63)
    read = BasicProperties().decode(b"".join(properties.encode()))

    assert ("\udcff", "é", {"ratio": 0.5}, 2**63) == (read.message_id, read.type, read.headers, read.timestamp)
