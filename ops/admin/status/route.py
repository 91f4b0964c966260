"""The route as stages in their order: what flows through each, what waits there, for how long, and when it will be gone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ops.admin.status.facts import Backlog
from ops.admin.status.members import FLOWS, Said
from ops.admin.views import View

Queues = Mapping[str, tuple[int, int] | None]
"""For each queue, the number of ready messages and of consumers; None for a queue that does not exist."""

Waits = tuple[int | None, float | None]
"""How many wait, and the age of the oldest in seconds; None if that is not known."""

INBOX = ("waxseal.ingest", "waxseal.unrouted")


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment (monotonic); None for whatever did not answer."""

    at: float
    said: Mapping[str, Said] = field(default_factory=dict)  # by address
    queues: Queues | None = None
    backlog: Backlog | None = None


def route(before: Sample | None, now: Sample, dead_letters: Waits | None) -> list[View]:
    """The stages. Rates and times to drain need a sample from before; `dead_letters`: how many are open."""
    flows = rates(before, now)
    backlog = now.backlog
    inbox = waiting_in(now.queues)
    ages = [said.inbox_age for said in now.said.values() if said.inbox_age is not None]
    return [
        _stage("receive", flows.get("receive")),
        _stage("record", flows.get("record"), (inbox, max(ages, default=None)), _drain(before, now, "record")),
        _stage(
            "sequence", flows.get("sequence"), None if backlog is None else (backlog.unsequenced, backlog.unsequenced_seconds)
        ),
        _stage(
            "claim", None, None if backlog is None else (backlog.overdue, backlog.overdue_seconds), _drain(before, now, "claim")
        ),
        _stage("try", flows.get("try"), None if backlog is None else (backlog.leased, backlog.lost_seconds)),
        _stage("deliver", flows.get("deliver")),
        _stage("later", None, None if backlog is None else (backlog.future, None)),
        _stage("bury", flows.get("bury"), dead_letters),
        _stage("mail", None, None if backlog is None else (backlog.mailboxes, backlog.mailbox_seconds)),
    ]


def rates(before: Sample | None, now: Sample) -> dict[str, float]:
    """What flowed through each stage, per second: of the processes that answered both times, and counted on."""
    if before is None or now.at <= before.at:
        return {}
    both = [(before.said[url].flows, said.flows) for url, said in now.said.items() if url in before.said]
    pairs = [(old, new) for old, new in both if old and new]
    if not pairs:
        return {}
    # A counter that fell belongs to a process that was restarted meanwhile.
    return {
        stage: round(sum(max(0.0, new[stage] - old[stage]) for old, new in pairs) / (now.at - before.at), 1) for stage in FLOWS
    }


def waiting_in(queues: Queues | None) -> int | None:
    """The messages that wait to be recorded; None if the broker did not answer."""
    return None if queues is None else sum((queues.get(name) or (0, 0))[0] for name in INBOX)


def unserved(queues: Queues | None) -> Iterator[tuple[str, int]]:
    """The queues in which messages wait while nobody consumes them, with how many; not those whose messages are for later."""
    for name, state in (queues or {}).items():
        if state is not None and state[0] and not state[1] and name not in INBOX[1:] and not name.endswith((".DQ", ".XQ")):
            yield name, state[0]


def _drain(before: Sample | None, now: Sample, stage: str) -> float | None:
    """Seconds until nothing waits, at the pace since the sample before; None while it does not fall, or is not known."""
    left = _waiting(now, stage)
    if left is None:
        return None
    if not left:
        return 0.0
    earlier = None if before is None else _waiting(before, stage)
    if before is None or earlier is None or earlier <= left:
        return None
    return round(left * (now.at - before.at) / (earlier - left), 1)


def _waiting(sample: Sample, stage: str) -> int | None:
    if stage == "record":
        return waiting_in(sample.queues)
    return None if sample.backlog is None else sample.backlog.overdue


def _stage(name: str, rate: float | None, waits: Waits | None = None, drain: float | None = None) -> View:
    waiting, oldest = waits or (None, None)
    return {"stage": name, "per_second": rate, "waiting": waiting, "oldest_seconds": oldest, "drain_seconds": drain}
