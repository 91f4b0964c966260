"""The ledger's rows exactly as stored, for verification and export, which trust none of their values."""

from typing import NamedTuple


class StoredChain(NamedTuple):
    """A chain's row. Ids are 16 bytes."""

    key: bytes
    tenant: str
    subject: str | None  # None once an erasure took the name
    chain_id: bytes
    seq: int
    hash: bytes | None


class StoredEntry(NamedTuple):
    """An entry's row joined with its content's. If the content is gone, `salt` is None."""

    chain_id: bytes
    seq: int
    prev_hash: bytes | None
    hash: bytes
    tenant: str
    at: int
    kind: str
    pc: bytes | None
    fingerprint: bytes | None
    attributes: bytes | None
    body: bytes | None
    blob: str | None
    salt: bytes | None
    source: str | None
    type: str | None
    subject: str | None
    time: bytes | None  # as Postgres sends a timestamptz
