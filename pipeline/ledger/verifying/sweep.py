"""The fast half of the verifier: says of a page of entries that all of it is intact, or that something in it is not.

It makes every check of `verify`, on whole columns at once where that is faster, and names nothing: a page that
is not intact is gone through again by `entry_checks`, one by one. What it finds no fault with has none; if it is not sure, it
says no.
"""

import re
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import chain as chained
from itertools import repeat
from operator import floordiv, itemgetter, sub
from struct import Struct, unpack
from typing import Any, Final

import orjson

from pipeline.chain import CONTENT, INNER, OUTER, PADDING, SALT_BYTES, VERSION
from pipeline.dedupe import begun, fingerprint
from pipeline.errors import Rejected, Unreadable
from pipeline.formats.cloudevents import instant
from pipeline.ledger.checks import KINDS, SAFE, check_names
from pipeline.ledger.verifying.chain_state import Chain

Row = tuple[Any, ...]
"""The columns of `StoredEntry`, and whether attributes and body are too large to be read with the rest."""

Runs = Sequence[tuple[Chain, Sequence[Row]]]
"""Consecutive entries of a page, by chain."""

_KNOWN: Final = frozenset(KINDS)
_SIZE: Final = Struct(">Q").pack
_LENGTH: Final = Struct(">I").pack
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_SHAPE: Final = re.compile(rb"0000-00-00T00:00:00(?:\.0{1,6})?(?:Z|[+-]00:00)")  # of a time whose digits are all zeros


def sweep(rows: Sequence[Row], runs: Runs) -> list[tuple[Chain, Row]] | None:
    """None if something on the page deviates. Else its chains have moved on, and what is returned has still to be looked at.

    That is: the entries whose content is not in the row as an event's is, because it was erased, is large, is in the blob
    store, or is not an event's. Of them, only the numbers, links and hashes have been checked.
    """
    columns = list(zip(*rows, strict=True))
    if not _ranges(columns) or not all(map(_links, *zip(*runs, strict=True))):
        return None
    owners = [owner for owner, part in runs for _ in part]
    others: list[tuple[Chain, Row]] = []
    if not _plain(columns, len(rows)):
        others = [(owner, row) for owner, row in zip(owners, rows, strict=True) if not _is_plain(row)]
        kept = [(owner, row) for owner, row in zip(owners, rows, strict=True) if _is_plain(row)]
        owners, columns = [owner for owner, _ in kept], list(zip(*(row for _, row in kept), strict=True))
    if owners and not _contents(owners, columns):
        return None
    for owner, part in runs:
        owner.seq, owner.hash = part[-1][1], part[-1][3]
    for owner in owners:
        if owner.identity is None and owner.row is not None:
            owner.identity = owner.row.tenant, owner.row.subject
    return others


def _ranges(columns: Sequence[Sequence[Any]]) -> bool:
    """Whether numbers, times, kinds and commitments are what an envelope may hold."""
    try:
        return (
            max(columns[1]) < SAFE
            and min(columns[5]) > -SAFE
            and max(columns[5]) < SAFE
            and _KNOWN.issuperset(columns[6])
            and set(map(len, columns[7])) == {32}
        )
    except TypeError:  # a NULL
        return False


def _links(owner: Chain, part: Sequence[Row]) -> bool:
    """Whether these entries are of the chain's tenant, follow one another, and have the hashes of their envelopes."""
    row = owner.row
    if row is None or not owner.keyed:
        return False
    tenant, number, before = row.tenant, owner.seq, owner.hash
    prev = "null" if before is None else f'"{before.hex()}"'
    chain = f'"chain":"{owner.hex}","hash":"sha-256","kind":"'
    tail = f',"tenant":{_quoted(tenant)},"v":"{VERSION}"}}'
    for entry in part:
        number += 1
        stored = entry[3]
        if entry[2] != before or entry[1] != number or entry[4] != tenant:
            return False
        sealed = f'\x00{{"at":{entry[5]},{chain}{entry[6]}","pc":"{entry[7].hex()}","prev":{prev},"seq":{number}{tail}'
        if sha256(sealed.encode()).digest() != stored:
            return False
        before, prev = stored, f'"{stored.hex()}"'
    return True


def _is_plain(row: Row) -> bool:
    return row[6] == "event" and None not in (row[9], row[10], row[12]) and row[11] is None


def _plain(columns: Sequence[Sequence[Any]], count: int) -> bool:
    """Whether all are events whose content is in their rows."""
    attributes, bodies, blobs, salts = columns[9:13]
    all_there = None not in bodies and None not in salts and None not in attributes
    return columns[6].count("event") == count == blobs.count(None) and all_there


def _contents(owners: Sequence[Chain], columns: Sequence[Sequence[Any]]) -> bool:
    """Whether the contents are those that were committed to, their columns agree, and the fingerprints are theirs."""
    pcs, prints, attributes, bodies, _, salts, sources, types, subjects, times = columns[7:17]
    if not _committed(pcs, attributes, bodies, salts):
        return False
    documents = _documents(attributes)
    if documents is None:
        return False
    copies = (("source", sources), ("type", types), ("subject", subjects))
    return (
        all(tuple(map(itemgetter(name), documents)) == column for name, column in copies)
        and tuple(owner.row.subject for owner in owners if owner.row is not None) == subjects
        and _same_times(list(map(itemgetter("time"), documents)), times)
        and _identified(owners, documents, prints)
    )


def _committed(pcs: Sequence[bytes], attributes: Sequence[bytes], bodies: Sequence[bytes], salts: Sequence[bytes]) -> bool:
    """Whether each commitment is that of its content: `pipeline.chain.commitment`, without a call for each."""
    if set(map(len, salts)) != {SALT_BYTES}:
        return False
    for pc, salt, each, body in zip(pcs, salts, attributes, bodies, strict=True):
        key = salt + PADDING
        inside = sha256(b"".join((key.translate(INNER), CONTENT, _SIZE(len(each)), each, body))).digest()
        if sha256(key.translate(OUTER) + inside).digest() != pc:
            return False
    return True


def _documents(attributes: Sequence[bytes]) -> list[dict[str, str]] | None:
    """The attributes of each, parsed all at once; None unless each is an object of strings in RFC 8785 form.

    A string in JSON cannot hold a line feed, and no nesting is allowed. So if objects meet at every line feed, and there are
    as many objects as pieces, each piece is one object.
    """
    count = len(attributes)
    lines = b",\n".join(attributes)
    try:
        documents = orjson.loads(b"[" + lines + b"]")
        if len(documents) != count or lines.count(b"},\n{") != count - 1:
            return None
        if orjson.dumps(documents) != b"[" + b",".join(attributes) + b"]":
            return None
        for names in set(map(tuple, documents)):
            _check_names(names)
        "".join(chained.from_iterable(map(dict.values, documents)))  # a TypeError unless all are strings
    except (ValueError, TypeError, RecursionError, Unreadable):
        return None
    return list(documents)


@lru_cache(1000)
def _check_names(names: tuple[str, ...]) -> None:
    check_names(names)
    if sorted(names) != list(names):
        raise Unreadable("they are not in the order of RFC 8785")


def _same_times(texts: Sequence[str], stored: Sequence[bytes]) -> bool:
    try:
        micros = unpack(f">{len(stored)}q", b"".join(stored))
        shapes = set("\n".join(texts).encode().translate(_ZEROS).split(b"\n"))
        read = datetime.fromisoformat if all(map(_SHAPE.fullmatch, shapes)) else instant
        since = map(sub, map(read, texts), repeat(_EPOCH))
        return tuple(map(floordiv, since, repeat(_MICROSECOND))) == micros
    except (ValueError, TypeError, OverflowError, Rejected, struct.error):
        return False


def _identified(owners: Sequence[Chain], documents: Sequence[dict[str, str]], prints: Sequence[bytes | None]) -> bool:
    """Whether each fingerprint is that of its tenant's key, source, origin and id, or, as once made, without the origin."""
    for owner, document, stored in zip(owners, documents, prints, strict=True):
        key = owner.key
        if key is None:
            continue
        id_ = document["id"].encode()
        hashed = begun(key, document["source"], document.get("origin") or None).copy()
        hashed.update(_LENGTH(len(id_)) + id_)
        if hashed.digest() != stored and fingerprint(key, document["source"], document["id"]) != stored:
            return False
    return True


@lru_cache(1000)
def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()
