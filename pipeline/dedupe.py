"""Step 4, dedupe: the same (tenant, source, origin, id) is recorded once, and duplicates that differ are reported."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256

from schemas.event import Content, Event
from schemas.source import Source

DEFAULT_TYPE = "message.received"  # of an AMQP message without a type

_SHORT = 64  # characters; only keys of subjects up to this length are cached, and few are longer
LENGTH = 4  # bytes before each field, so that no two lists of fields share one preimage


@dataclass(frozen=True, slots=True)
class Conflict:
    """A duplicate whose content differs from what is recorded under its identity. It is not recorded."""

    event: Event
    recorded: Content
    arrived: Content
    differs: Sequence[str]  # some of `body`, `type`, `subject`


@dataclass(frozen=True, slots=True)
class Sifted:
    """A batch without duplicates: the events to record, in their order, and the duplicates that differ from the recorded."""

    fresh: Sequence[Event]
    conflicts: Sequence[Conflict] = ()


def fingerprint(key: bytes, source: str, event_id: str, origin: str | None = None) -> bytes:
    """16 bytes that are equal for equal (tenant, source, origin, id) and reveal nothing of it without the tenant's `key`.

    `origin` is the CloudEvents `source` that the sender gave; without one, they are the fingerprint of (tenant, source, id).
    """
    hashed = begun(key, source, origin or None).copy()
    hashed.update(_field(event_id))
    return hashed.digest()


def identity(key: bytes, attributes: Mapping[str, str]) -> bytes:
    """The fingerprint of an event with these attributes."""
    return fingerprint(key, attributes["source"], attributes["id"], attributes.get("origin"))


def name_origin(attributes: dict[str, str], source: Source) -> None:
    """Sets `source` to the configured source that the event came through, which is proved, and `origin` to the sender's name.

    This replaces an extension `origin` that the sender wrote, or two senders that chose the same one would share their ids.
    An `origin` from the source's own rules is kept.
    """
    claimed = attributes.get("source") or source.name
    if claimed != source.name and ("origin" not in source.extensions or "origin" not in attributes):
        attributes["origin"] = claimed
    attributes["source"] = source.name


def chain_key(key: bytes, subject: str) -> bytes:
    """16 bytes that are equal for equal (tenant, subject) and reveal nothing of the subject without the tenant's `key`."""
    return _chain_key(key, subject) if len(subject) <= _SHORT else _keyed(key, b"chain", subject).digest()


def first_of_each(events: Iterable[Event]) -> dict[bytes, Event]:
    """The events by fingerprint, in their order, without those that repeat an earlier one of the same batch."""
    firsts: dict[bytes, Event] = {}
    for event in events:
        firsts.setdefault(event.fingerprint, event)
    return firsts


def looked_up(firsts: Mapping[bytes, Event]) -> list[bytes]:
    """The fingerprints to look up for a batch: each event's, and its former one if it may be recorded under that."""
    formers = [event.former for event in firsts.values() if event.former is not None]
    return [*firsts, *formers] if formers else list(firsts)


def sift(events: Sequence[Event], firsts: Mapping[bytes, Event], recorded: Mapping[bytes, Content | None]) -> Sifted:
    """Splits `events` into new ones and duplicates, given what is `recorded` under the fingerprints that were looked up.

    A content of None was erased. Then nothing can be compared, and an entry under an event's former fingerprint is taken to
    be that event.
    """
    known = {key: found for key, event in firsts.items() if (found := _found(event, recorded))} if recorded else {}
    fresh = [event for key, event in firsts.items() if key not in known]
    if len(fresh) == len(events):
        return Sifted(fresh)
    conflicts = []
    for event in events:
        first = firsts[event.fingerprint]
        if event.fingerprint in known:
            (content,) = known[event.fingerprint]
        elif event is not first:
            content = content_of(first)
        else:
            continue
        if content is not None and (conflict := _conflict(event, content)):
            conflicts.append(conflict)
    return Sifted(fresh, conflicts)


def content_of(event: Event) -> Content:
    """The content by which an event is compared."""
    attributes = event.attributes
    body = bytes.fromhex(event.blob.partition(":")[2]) if event.blob else sha256(event.body).digest()
    return Content(body, attributes["type"], attributes["subject"], attributes.get("origin"))


def digest(key: bytes, content: Content) -> str:
    """Names a content in a log: equal for equal contents, and reveals nothing of it without the tenant's `key`."""
    return _keyed(key, b"content", content.body.hex(), content.type, content.subject).hexdigest()


def _found(event: Event, recorded: Mapping[bytes, Content | None]) -> tuple[Content | None] | None:
    """The content recorded for `event`, in a tuple, because erased content is None; None if it is not recorded."""
    if event.fingerprint in recorded:
        return (recorded[event.fingerprint],)
    if event.former is not None and event.former in recorded:
        content = recorded[event.former]
        if content is None or content.origin == event.attributes.get("origin"):
            return (content,)
    return None


def _conflict(event: Event, content: Content) -> Conflict | None:
    """How `event` differs from its recorded content; None if it does not.

    Compares what is the same each time a message is sent: the body, and the type and the subject if the sender set both. Our
    defaults for missing ones are not compared; nor are the time, which may be that of arrival or of this try, the trace, which
    belongs to this try, and other extensions, which may count tries.
    """
    arrived = content_of(event)
    source = event.attributes["source"]
    differs = ["body"] if arrived.body != content.body else []
    if _differ(arrived.type, content.type, (DEFAULT_TYPE, f"{source}.received")):
        differs.append("type")
    if _differ(arrived.subject, content.subject, (source,)):
        differs.append("subject")
    return Conflict(event, content, arrived, differs) if differs else None


def _differ(one: str, other: str, defaults: Collection[str]) -> bool:
    return one != other and one not in defaults and other not in defaults


def _keyed(key: bytes, purpose: bytes, *fields: str) -> "blake2b":
    return blake2b(b"".join(map(_field, fields)), digest_size=16, key=key, person=purpose)


def _field(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(LENGTH, "big") + encoded


@lru_cache(4096)
def begun(key: bytes, source: str, origin: str | None) -> "blake2b":
    """The hash of the common beginning of one sender's fingerprints."""
    return _keyed(key, b"fingerprint", source) if origin is None else _keyed(key, b"fingerprint", source, origin)


@lru_cache(16384)
def _chain_key(key: bytes, subject: str) -> bytes:
    return _keyed(key, b"chain", subject).digest()
