"""Checks of RabbitMQ, on what `workers.commands.inspect_broker` found there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ops.admin.doctor.finding import Finding, note, ok, wrong

OLDEST: Final = (3, 10)  # quorum queues that keep redelivered messages, and `x-overflow` for them
CHANNELS: Final = 16  # that a connection must be able to open
MISSING: Final = "missing"  # what is wrong with a queue or an exchange that does not exist
FRAME: Final = 8192  # bytes; a smaller frame makes many of a message


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What the broker said: its version, its limits, and what is wrong with each queue and exchange, None if nothing is."""

    version: str
    heartbeat: int
    channel_max: int  # 0: no limit
    frame_max: int  # likewise
    queues: Mapping[str, str | None] = field(default_factory=dict)
    exchanges: Mapping[str, str | None] = field(default_factory=dict)
    classic: Sequence[str] = ()  # queues that are on one broker only
    unconfirmed: str | None = None  # why it confirmed no message just now


def check_broker(facts: BrokerFacts, *, alone: bool = False) -> Iterator[Finding]:
    """Every check. `alone`: it is a private broker, which is never one of several."""
    number = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdigit())
    if number < OLDEST:
        yield wrong("broker version", f"RabbitMQ {facts.version}", f"upgrade to {'.'.join(map(str, OLDEST))} or newer")
    else:
        yield ok("broker version", f"RabbitMQ {facts.version}")
    yield from _limits(facts)
    yield from _named("queues", facts.queues, "are as declared: durable, the inbox a quorum queue")
    if not alone:
        yield _types(facts.classic)
    yield from _named("exchanges", facts.exchanges, "are there")
    if facts.unconfirmed is None:
        yield ok("broker confirms", "it confirmed a message just now: it is not in alarm")
    else:
        mend = "free disk or memory of the broker: `rabbitmqctl status` names the alarm"
        yield wrong("broker confirms", facts.unconfirmed, mend)


def _limits(facts: BrokerFacts) -> Iterator[Finding]:
    said = f"heartbeat {facts.heartbeat} s, {facts.channel_max or 'unlimited'} channels, frames of {facts.frame_max} bytes"
    if 0 < facts.channel_max < CHANNELS or 0 < facts.frame_max < FRAME:
        mend = f"raise channel_max to {CHANNELS} and frame_max to {FRAME}, or more, in rabbitmq.conf"
        yield wrong("broker limits", said, mend)
    elif facts.heartbeat == 0:
        yield note(
            "broker limits", said, "set a heartbeat in rabbitmq.conf: without it the broker does not notice dead clients"
        )
    else:
        yield ok("broker limits", said)


def _types(classic: Sequence[str]) -> Finding:
    """AMQP does not tell whether the broker is one of several, so this is never more than a note."""
    if not classic:
        return ok("queue types", "no queue is a classic one")
    what = f"{', '.join(classic)}: classic, and so on one broker; in a cluster they are away while that broker is"
    mend = (
        "in a cluster: rabbitmqctl update_vhost_metadata / --default-queue-type quorum; let the processes stop, delete these "
        "queues, start the processes: what was in them is claimed again"
    )
    return note("queue types", what, mend)


def _named(check: str, found: Mapping[str, str | None], fine: str) -> Iterator[Finding]:
    faults = {name: fault for name, fault in found.items() if fault is not None}
    for name, fault in faults.items():
        if fault == MISSING:
            mend = "start a process: the first to connect declares it"
            yield note(check, f"{name} is not there yet", mend)
        else:
            mend = "let the processes stop, empty it, delete it, and start them: they declare it; or grant the user its rights"
            yield wrong(check, f"{name}: {fault}", mend)
    if not faults:
        yield ok(check, f"{len(found)} {fine}")
