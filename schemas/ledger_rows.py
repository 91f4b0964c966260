"""What is stored, as it is stored: rows for those who verify and export, who believe none of it."""

from typing import NamedTuple


class StoredChain(NamedTuple):
    """A chain's row. Ids are 16 bytes."""

    key: bytes
    tenant: str
    subject: str
    chain_id: bytes
    seq: int
    hash: bytes | None


class StoredEntry(NamedTuple):
    """An entry's row with its content's, which may be gone: then `salt` is None."""

    chain_id: bytes
    seq: int
    prev_seq: int | None
    prev_hash: bytes | None
    hash: bytes
    envelope: bytes
    tenant: str
    fingerprint: bytes | None
    attributes: bytes | None
    body: bytes | None
    blob: str | None
    salt: bytes | None
    source: str | None
    type: str | None
    subject: str | None
    time: bytes | None  # as Postgres sends a timestamptz
