"""Mails that a pull publishes: each in its own trace, linked with the pull."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ops.telemetry.tracing.mail_spans import Pull, current_pull, during
from pipeline.dedupe import identity
from pipeline.formats.trace_context import parsed
from schemas.mailbox import Mailbox, RawMail
from support.blobs import NO_BLOBS
from support.telemetry.recorder import Recorder
from workers.amqp.confirm_window import Outgoing
from workers.mail.pull.publish import MailIntake, described

MAILBOX = Mailbox(1, "acme", "support", "imap", "support@acme.example")
KEY = b"k" * 32


class Broker:
    def __init__(self) -> None:
        self.taken: list[Outgoing] = []

    def publish_all(self, messages: Sequence[Outgoing], _seconds: float) -> list[bool]:
        self.taken += messages
        return [True] * len(messages)


def pulled(share: str) -> tuple[Recorder, list[Outgoing], list[RawMail]]:
    recorder, broker = Recorder(share, "traceidratio"), Broker()
    mails = [RawMail(f"imap/1/{n}", "INBOX", b"Subject: %d\r\n\r\n" % n, datetime.now(UTC)) for n in range(3)]
    pull = Pull(recorder, MAILBOX, KEY)  # type: ignore[arg-type]
    with during(pull):
        MailIntake(broker, NO_BLOBS).accept(MAILBOX, mails)  # type: ignore[arg-type]
    pull.record("done")
    return recorder, broker.taken, mails


def test_each_mail_has_a_trace_of_its_own_which_is_linked_with_the_pull() -> None:
    recorder, messages, mails = pulled("1")

    *published, pull = recorder.spans
    contexts = [each.context for each in published]
    assert ["publish waxseal.received"] * 3 == [each.name for each in published]
    assert [identity(KEY, described(MAILBOX, mail)[1]).hex() for mail in mails] == [each.trace_id for each in contexts]
    assert [(pull.context,)] * 3 == [each.links for each in published]
    assert ("pull imap", tuple(contexts)) == (pull.name, pull.links)
    assert contexts == [parsed((message.properties.headers or {}).get("traceparent")) for message in messages]
    assert current_pull() is None


def test_nothing_is_recorded_of_a_pull_that_is_not_sampled() -> None:
    recorder, messages, _ = pulled("0")

    assert [] == recorder.spans
    assert [None] * 3 == [(message.properties.headers or {}).get("traceparent") for message in messages]


def test_a_pull_that_fails_says_how() -> None:
    recorder = Recorder("1")
    Pull(recorder, MAILBOX, KEY).record("refused")  # type: ignore[arg-type]

    (span,) = recorder.spans
    assert ("pull imap", "", "refused") == (span.name, span.parent_id, span.error)
