"""Names what was altered, by trying which single value makes the stored bytes hash to what was hashed. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pipeline.chain import commitment, encode, entry_hash, stored_envelope
from pipeline.ledger.checks import KINDS
from pipeline.ledger.verifying.chain_state import Chain
from schemas.ledger.ledger_rows import StoredEntry

_COPIES: Final = ("source", "type", "subject")
_SHOWN: Final = 80
_NEAR: Final = 10  # numbers around its place that an entry may have had


def hash_of(entry: StoredEntry) -> bytes | None:
    """The hash of the envelope that the columns make; None if one that it needs is NULL."""
    try:
        return entry_hash(stored_envelope(entry))
    except (AttributeError, TypeError, ValueError):
        return None


def mend(
    entry: StoredEntry, chain: Chain, tenants: Iterable[str], origins: Iterable[tuple[bytes, str]]
) -> tuple[StoredEntry, Sequence[str]] | None:
    """The entry as it was hashed, and the names of its altered columns; None if that is not found.

    `origins`: chains, and their tenants, that the entry may have been taken from. `at` is not found: nothing else tells it.
    """
    for changes in _candidates(entry, chain, tenants, origins):
        mended = entry._replace(**changes)
        if hash_of(mended) == entry.hash:
            return mended, tuple(changes)
    return None


def _candidates(
    entry: StoredEntry, chain: Chain, tenants: Iterable[str], origins: Iterable[tuple[bytes, str]]
) -> Iterator[dict[str, Any]]:
    yield {"prev_hash": chain.hash}
    for seq in (chain.seq + 1, *chain.gaps, *range(max(0, chain.seq - _NEAR), chain.seq + _NEAR)):
        yield {"seq": seq}
    for tenant in dict.fromkeys((chain.tenant, *tenants)):
        if tenant is not None:
            yield {"tenant": tenant}
    for kind in KINDS:
        yield {"kind": kind}
    if entry.salt is not None and entry.attributes is not None and entry.body is not None:
        yield {"pc": commitment(entry.salt, entry.attributes, entry.body)}
    for other, tenant in origins:
        yield {"chain_id": other}
        yield {"chain_id": other, "tenant": tenant}


def mended_attributes(entry: StoredEntry, attributes: dict[str, Any], body: bytes) -> str | None:
    """The one attribute whose column still has the value that was committed to; None if there is no such one."""
    assert entry.salt is not None
    for name in _COPIES:
        stored = getattr(entry, name)
        if stored is None or stored == attributes.get(name):
            continue
        if commitment(entry.salt, encode({**attributes, name: stored}), body) == entry.pc:
            return name
    return None


def shown(value: object) -> str:
    """A value as a finding shows it."""
    return value.hex()[:_SHOWN] if isinstance(value, bytes) else str(value)[:_SHOWN]
