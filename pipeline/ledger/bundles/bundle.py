"""Writes a bundle: a tenant's entries as JSON Lines, with proofs that they are in its log (LEDGER §5)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from pipeline.chain import stored_envelope
from pipeline.ledger.encodings import to_base64
from pipeline.ledger.heads import MemberProof
from schemas.ledger.ledger_rows import StoredEntry

VERSION: Final = "waxseal/bundle/v2"


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That an entry is at `index` in the tree of `size` leaves."""

    chain: bytes
    seq: int
    index: int
    size: int
    proof: tuple[bytes, ...]


def header_line(tenant: str, exported_at: datetime) -> bytes:
    """The first line of a bundle."""
    at = exported_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return _line({"v": VERSION, "tenant": tenant, "exported_at": at})


def entry_line(entry: StoredEntry) -> bytes:
    """The line of one entry exactly as stored, even if it was altered. Missing content is null."""
    return _line(_entry(entry))


def checkpoint_line(note: str) -> bytes:
    """The line of the signed checkpoint for which the proofs of inclusion are made."""
    return _line({"checkpoint": note})


def inclusion_line(inclusion: Inclusion) -> bytes:
    """The line of a proof that an entry is in the log."""
    return _line({"inclusion": _inclusion(inclusion)})


def heads_line(entry: StoredEntry, inclusion: Inclusion, members: Iterable[MemberProof]) -> bytes:
    """The line that shows where chains ended: the heads entry, that it is in the log, and what it says of each chain."""
    said = [
        {
            "chain": each.member.chain_id.hex,
            "seq": each.member.seq,
            "hash": each.member.hash.hex(),
            "index": each.index,
            "count": each.count,
            "proof": list(map(to_base64, each.proof)),
        }
        for each in members
    ]
    return _line({"heads": {"entry": _entry(entry), "inclusion": _inclusion(inclusion), "members": said}})


def _entry(entry: StoredEntry) -> Mapping[str, Any]:
    content = None
    if entry.attributes is not None and entry.salt is not None and entry.body is not None:
        content = {"attributes": to_base64(entry.attributes), "salt": entry.salt.hex(), "body": to_base64(entry.body)}
    return {"envelope": to_base64(stored_envelope(entry)), "hash": entry.hash.hex(), "content": content}


def _inclusion(inclusion: Inclusion) -> Mapping[str, Any]:
    return {
        "chain": inclusion.chain.hex(),
        "seq": inclusion.seq,
        "index": inclusion.index,
        "size": inclusion.size,
        "proof": list(map(to_base64, inclusion.proof)),
    }


def _line(members: Mapping[str, Any]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)
