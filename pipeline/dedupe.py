"""Room 4, dedupe: the same (tenant, source, id) is recorded once."""

from collections.abc import Iterable, Set
from hashlib import blake2b

from schemas.event import Event

LENGTH = 4  # bytes before each field, so that no two lists of fields share one preimage


def fingerprint(key: bytes, source: str, event_id: str) -> bytes:
    """16 bytes that are the same for the same (tenant, source, id) and tell nothing of the id without the tenant's `key`."""
    return _keyed(key, b"fingerprint", source, event_id)


def chain_key(key: bytes, subject: str) -> bytes:
    """16 bytes that are the same for the same (tenant, subject) and tell nothing of the subject without the `key`."""
    return _keyed(key, b"chain", subject)


def first_of_each(events: Iterable[Event]) -> list[Event]:
    """The events without those that repeat an earlier one of the same batch, in their order."""
    firsts: dict[bytes, Event] = {}
    for event in events:
        firsts.setdefault(event.fingerprint, event)
    return list(firsts.values())


def unknown(events: Iterable[Event], known: Set[bytes]) -> list[Event]:
    """The events whose fingerprint is not in `known`, in their order."""
    return [event for event in events if event.fingerprint not in known]


def _keyed(key: bytes, purpose: bytes, *fields: str) -> bytes:
    encoded = [field.encode() for field in fields]
    message = b"".join(len(field).to_bytes(LENGTH, "big") + field for field in encoded)
    return blake2b(message, digest_size=16, key=key, person=purpose).digest()
