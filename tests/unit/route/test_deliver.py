from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliver import judge
from pipeline.delivery.settle_endpoint import disabling
from pipeline.formats.timestamps import retry_after
from schemas.delivery import REFUSED, UNSENDABLE, Delivery, Receipt, Settlement, summary
from schemas.endpoint import Endpoint

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINT = Endpoint(1, "acme", "billing", "http://127.0.0.1/", retry=(5.0, 60.0))


def judged(attempts: int = 0, **receipt: object) -> Settlement:
    """The verdict on a try after `attempts` earlier ones."""
    delivery = Delivery(7, 1, "acme", attempts, UUID(int=5), 0, b"", None, b"", b"", b"", NOW, UUID(int=1))
    return judge(delivery, ENDPOINT, Receipt(NOW, 0.1, **receipt), NOW, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(status) -> None:
    verdict = judged(status=status)

    assert ("delivered", 1, None, None) == (verdict.outcome, verdict.attempt, verdict.next_attempt_at, verdict.reason)


@pytest.mark.parametrize(
    "receipt",
    [
        {"status": 500, "error": "status"},
        {"status": 302, "error": "redirect"},
        {"status": 404, "error": "status"},
        {"status": 200, "error": "timeout"},
        {"error": "connect"},
        {"error": "internal"},
    ],
)
def test_everything_else_is_tried_again_until_the_schedule_ends(receipt) -> None:
    verdicts = [judged(attempts, **receipt) for attempts in range(3)]

    assert ["retry", "retry", "dead"] == [verdict.outcome for verdict in verdicts]
    assert [NOW + timedelta(seconds=5), NOW + timedelta(seconds=60), None] == [each.next_attempt_at for each in verdicts]
    assert [None, None, "exhausted"] == [verdict.reason for verdict in verdicts]
    assert [1, 2, 3] == [verdict.attempt for verdict in verdicts]


def test_410_is_dead_at_once_because_the_endpoint_is_gone() -> None:
    verdict = judged(status=410, error="status")

    assert ("dead", "gone", None) == (verdict.outcome, verdict.reason, verdict.next_attempt_at)


@pytest.mark.parametrize(("wish", "reason"), [("disable", "disabled"), ("abort", "refused")])
@pytest.mark.parametrize("status", [302, 400, 429, 500, 503])
def test_a_wish_for_no_more_tries_is_granted(wish, reason, status) -> None:
    verdict = judged(status=status, error="status", wish=wish, retry_after=60.0)

    assert ("dead", reason, None) == (verdict.outcome, verdict.reason, verdict.next_attempt_at)


@pytest.mark.parametrize("wish", ["disable", "abort"])
def test_what_was_taken_is_delivered_whatever_else_is_wished(wish) -> None:
    assert ("delivered", None) == (judged(status=200, wish=wish).outcome, judged(status=200, wish=wish).reason)


@pytest.mark.parametrize(
    ("receipt", "why"),
    [
        ({"status": 410, "error": "status"}, "it answered 410 Gone"),
        ({"status": 410, "error": "status", "wish": "disable"}, "it answered 410 Gone"),
        ({"status": 500, "error": "status", "wish": "disable"}, "it answered webhook-delivery: disable"),
        ({"status": 200, "wish": "disable"}, "it answered webhook-delivery: disable"),
        ({"status": 500, "error": "status", "wish": "abort"}, None),
        ({"status": 500, "error": "status"}, None),
        ({"status": 200}, None),
    ],
)
def test_an_endpoint_is_disabled_by_what_it_answers(receipt, why) -> None:
    assert why == disabling(judged(**receipt))


def test_a_server_that_will_never_take_a_mail_is_asked_no_more() -> None:
    assert ("dead", "refused") == (judged(status=550, error=REFUSED).outcome, judged(status=550, error=REFUSED).reason)


@pytest.mark.parametrize("transport", ["smtp", "amqp"])
def test_410_means_gone_in_http_alone(transport) -> None:
    other = replace(ENDPOINT, transport=transport)
    delivery = Delivery(7, 1, "acme", 0, UUID(int=5), 0, b"", None, b"", b"", b"", NOW, UUID(int=1))

    assert "retry" == judge(delivery, other, Receipt(NOW, 0.1, 410, "deferred"), NOW, 0.0).outcome


def test_what_cannot_be_sent_is_dead_at_once() -> None:
    verdict = judged(error=UNSENDABLE)

    assert ("dead", "poison") == (verdict.outcome, verdict.reason)


def test_a_hint_is_honoured_on_any_failure() -> None:
    assert NOW + timedelta(seconds=600) == judged(status=503, error="status", retry_after=600.0).next_attempt_at


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        (format_datetime(NOW + timedelta(hours=1), usegmt=True), 3600.0),
        ("Thursday, 01-Jan-26 00:02:00 GMT", 120.0),
        ("Thu Jan  1 00:02:00 2026", 120.0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Thu, 99 Jan 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(value, expected) -> None:
    assert expected == retry_after(value, NOW)


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d{1,3}:\d{1,3}:\d{1,3} \S{0,6}"))
def test_no_retry_after_raises_or_is_negative(value) -> None:
    assert (retry_after(value, NOW) or 0.0) >= 0.0


def test_a_summary_says_what_went_wrong() -> None:
    assert "status: answered 500" == summary(Receipt(NOW, 0.1, 500, "status", "answered 500"))
    assert "timeout" == summary(Receipt(NOW, 0.1, error="timeout"))
    assert summary(Receipt(NOW, 0.1, 200)) is None
