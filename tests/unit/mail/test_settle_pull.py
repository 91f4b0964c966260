from datetime import UTC, datetime, timedelta
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.backoff import JITTER
from pipeline.mail.settle_pull import (
    AGAIN,
    BACKOFF,
    DOUBTS,
    LONGEST_WAIT,
    SLOW,
    TELL,
    Done,
    Failed,
    Failure,
    HandedBack,
    OperatorEvent,
    SetAside,
    Succeeded,
    after_batch,
    after_failure,
    news_of,
    unreadable,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLL = 300.0

FAILURES = st.integers(0, 10_000)
RANDOMS = st.floats(0.0, 1.0, exclude_max=True)
SECONDS = st.floats()  # whatever a server asks for: negative, endless or NaN


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def bounded(asked: float) -> float:
    return 1.0 if isnan(asked) else sorted((1.0, asked, LONGEST_WAIT))[1]


def wait_of(failed: object) -> float:
    assert isinstance(failed, Failed)
    return (failed.next_pull - NOW).total_seconds()


def test_a_mailbox_with_nothing_more_is_pulled_again_after_its_poll() -> None:
    assert Succeeded("done", NOW, later(POLL), enqueued=False, slow=False) == after_batch(
        0, Done(3, False), POLL, NOW, NOW, 0.0
    )


def test_a_mailbox_with_more_is_pulled_again_by_the_same_process() -> None:
    assert Succeeded("more", NOW, NOW, enqueued=True, slow=False) == after_batch(0, Done(3, True), POLL, NOW, NOW, 0.5)


def test_a_slow_mailbox_with_more_is_due_at_once_beside_the_others() -> None:
    began = later(-SLOW - 1)

    assert Succeeded("done", began, NOW, enqueued=False, slow=True) == after_batch(0, Done(3, True), POLL, began, NOW, 0.5)


def test_a_server_that_asks_for_less_after_some_mails_is_left_alone_for_so_long() -> None:
    verdict = after_batch(0, Done(3, False, wait=1200.0), POLL, NOW, NOW, 0.0)

    assert Succeeded("done", NOW, later(1200.0), enqueued=False, slow=False) == verdict


@given(SECONDS, RANDOMS)
def test_a_server_that_asks_for_less_after_some_mails_is_left_alone_within_bounds(seconds: float, random: float) -> None:
    verdict = after_batch(0, Done(3, False, wait=seconds), POLL, NOW, NOW, random)

    assert isinstance(verdict, Succeeded)
    wait = (verdict.next_pull - NOW).total_seconds()
    assert bounded(seconds) - 1e-3 <= wait <= bounded(seconds) * (1 + JITTER) + 1e-3


@pytest.mark.parametrize(("failures", "told"), [(0, False), (TELL - 1, False), (TELL, True), (TELL + 5, True)])
def test_operators_hear_that_it_can_be_read_again_if_they_heard_that_it_could_not(failures: int, told: bool) -> None:
    verdict = after_batch(failures, Done(0, False), POLL, NOW, NOW, 0.0)

    assert isinstance(verdict, Succeeded)
    assert (OperatorEvent("mailbox_active", "it can be read again") if told else None) == verdict.event


@pytest.mark.parametrize("poll", [POLL, 86_400.0])
def test_a_mailbox_of_which_no_folder_can_be_read_fails_and_waits_for_its_poll(poll: float) -> None:
    verdict = after_batch(0, Done(0, False, trouble="INBOX: no such folder"), poll, NOW, NOW, 0.0)

    assert Failed("away", "INBOX: no such folder", later(poll)) == verdict


def test_trouble_with_folders_is_no_failure_while_there_is_more() -> None:
    assert "more" == after_batch(0, Done(2, True, trouble="INBOX: no such folder"), POLL, NOW, NOW, 0.0).outcome


def test_the_first_failure_waits_shortest_and_each_next_one_twice_as_long() -> None:
    waits = [wait_of(after_failure(count, Failure("away", "refused"), NOW, 0.0)) for count in range(7)]

    assert [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0] == waits


@given(FAILURES, st.sampled_from(["away", "throttled", "internal"]), st.none() | SECONDS, RANDOMS)
def test_a_failure_comes_back_as_asked_within_bounds_or_a_tenth_later(
    failures: int, fault: str, seconds: float | None, random: float
) -> None:
    verdict = after_failure(failures, Failure(fault, "why", seconds), NOW, random)  # type: ignore[arg-type]

    low = high = bounded(seconds) if seconds is not None else min(BACKOFF[0] * 2.0 ** min(failures, 20), BACKOFF[1])
    assert low - 1e-3 <= wait_of(verdict) <= high * (1 + JITTER) + 1e-3
    assert fault == verdict.outcome


@given(FAILURES, RANDOMS)
def test_more_failures_never_make_the_wait_shorter(failures: int, random: float) -> None:
    fewer, more = (wait_of(after_failure(count, Failure("away", "why"), NOW, random)) for count in (failures, failures + 1))

    assert fewer <= more


@given(FAILURES, RANDOMS)
def test_a_refusal_that_gives_its_reason_is_believed_at_once(failures: int, random: float) -> None:
    assert SetAside("invalid_grant") == after_failure(failures, Failure("refused", "invalid_grant"), NOW, random)


@given(FAILURES, RANDOMS)
def test_a_refusal_without_a_reason_is_doubted_a_few_times(failures: int, random: float) -> None:
    verdict = after_failure(failures, Failure("refused", "NO", certain=False), NOW, random)

    if failures + 1 < DOUBTS:
        assert verdict == after_failure(failures, Failure("away", "NO"), NOW, random)
    else:
        assert SetAside("NO") == verdict


@given(FAILURES, RANDOMS)
def test_a_fault_of_ours_is_not_held_against_the_mailbox(failures: int, random: float) -> None:
    verdict = after_failure(failures, Failure("ours", "the broker is away"), NOW, random)

    assert isinstance(verdict, HandedBack)
    assert later(AGAIN) <= verdict.next_pull <= later(AGAIN * (1 + JITTER))


def test_what_cannot_be_opened_waits_longest() -> None:
    assert Failed("internal", "sealed for another", later(BACKOFF[1])) == unreadable("sealed for another", NOW)


@given(FAILURES)
def test_operators_hear_of_a_row_of_failures_once(failures: int) -> None:
    told = OperatorEvent("mailbox_failing", "nothing but failures since 2026-01-01 00:00:00Z: away")

    assert (told if failures == TELL else None) == news_of(failures, NOW, "away")
