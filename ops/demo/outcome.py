"""What became of the demo's messages, read back from the ledger, and compared with what must have become of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from ops.admin.timeline import dead_letters, deliveries, timeline
from ops.demo.receivers import FAILURES
from ops.demo.traffic import ENDPOINTS, Sent
from ops.settings import Settings
from schemas.dead_letter import DeadLetterFilter

#: What each endpoint must have come to, and after how many tries.
MUST = {"works": ("delivered", 1), "recovers": ("delivered", FAILURES + 1), "broken": ("dead", 3)}

View = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Entries by event id, deliveries by event id and endpoint, dead letters by the id of the message."""

    entries: Mapping[str, Sequence[View]]
    deliveries: Mapping[tuple[str, str], View]
    dead_letters: Mapping[str, View]
    unexpected: Sequence[View]  # dead letters of messages that should not have become any

    def settled(self, sent: Sequence[Sent]) -> bool:
        """Whether there is nothing more to wait for."""
        planned = [self.deliveries.get((each.id, endpoint)) for each in sent for endpoint in each.planned_for]
        recorded = all(self.entries.get(each.id) for each in sent if each.subject is not None)
        buried = all(self._dead_letter(each) for each in sent if each.buried)
        return recorded and buried and all(each is not None and each["state"] in ("delivered", "dead") for each in planned)

    def problems(self, sent: Sequence[Sent], answers: Sequence[str]) -> Iterator[str]:
        """Everything that did not come out as it must."""
        for each, answer in zip(sent, answers, strict=True):
            if answer != each.answer:
                yield f"{each.what}: answered {answer} instead of {each.answer}"
            recorded = len(self.entries.get(each.id, ()))
            if recorded != (each.subject is not None):
                yield f"{each.what}: recorded {recorded} times"
            if each.buried and (dead_letter := self._dead_letter(each) or {}).get("reason") != each.buried:
                yield f"{each.what}: became {dead_letter.get('reason') or 'no dead letter'} instead of {each.buried}"
            yield from self._undelivered(each)
        for dead_letter in self.unexpected:
            yield f"a dead letter that should not be: {dead_letter['stage']} {dead_letter['reason']} {dead_letter['detail']}"

    def _undelivered(self, sent: Sent) -> Iterator[str]:
        if sent.repeats:
            return
        for endpoint in ENDPOINTS:
            delivery = self.deliveries.get((sent.id, endpoint))
            came_to = None if delivery is None else (delivery["state"], delivery["attempts"])
            must = MUST[endpoint] if endpoint in sent.planned_for else None
            if came_to != must:
                yield f"{sent.what}: {endpoint} came to {came_to} instead of {must}"

    def _dead_letter(self, sent: Sent) -> View | None:
        return self.dead_letters.get(sent.id)

    def place(self, sent: Sent) -> str:
        """Where the message is now, in words."""
        dead_letter, entries = self._dead_letter(sent), self.entries.get(sent.id)
        if dead_letter is not None:
            return f"dead letter {dead_letter['id']}: {dead_letter['reason']}"
        if not entries:
            return "nothing"
        seq = f"{entries[0]['subject']} #{entries[0]['seq']}"
        return f"still once: {seq}" if sent.repeats else seq

    def delivery(self, sent: Sent, endpoint: str) -> str:
        """What an endpoint came to, in words."""
        delivery = self.deliveries.get((sent.id, endpoint))
        if delivery is None or sent.repeats:
            return "-"
        tries = f"{delivery['attempts']} tries" if delivery["attempts"] != 1 else "1 try"
        return f"{delivery['state']}, {tries}"


def look(engine: Engine, settings: Settings, sent: Sequence[Sent], since: DeadLetterFilter) -> Outcome:
    """Read back what has become of the messages so far."""
    subjects = dict.fromkeys(each.subject for each in sent if each.subject is not None)
    entries: dict[str, list[View]] = {}
    for subject in subjects:
        for entry in timeline(engine, settings, "acme", subject):
            entries.setdefault(entry["id"], []).append(entry)
    ids = {each.id for each in sent}
    planned = {
        (each["event_id"], each["endpoint"]): each for each in deliveries(engine, "acme", limit=100) if each["event_id"] in ids
    }
    fresh = [each for each in dead_letters(engine, since) if each["stage"] != "deliver"]
    buried = [each.id for each in sent if each.buried]
    return Outcome(entries, planned, dict(zip(buried, fresh, strict=False)), fresh[len(buried) :])
