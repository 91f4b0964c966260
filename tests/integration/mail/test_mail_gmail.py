import time
import traceback
from datetime import UTC, datetime, timedelta

import pytest

from support.mail.api import Said
from support.mail.gmail import BACKEND_ERROR, BAD_PAGE, FORBIDDEN, RATE_LIMITED, USER_RATE_LIMITED, error
from support.mail.mailboxes import MIB, Asking, at, mail, opened
from workers.mail.api import gmail as api_gmail
from workers.mail.api.exchange import AT_ONCE, Answer
from workers.mail.api.quota import Paces
from workers.mail.mailbox_session import MAX_BYTES, Away, Gone, PullBounds, Refused, SourceError, Throttled
from workers.mail.pull.publish import Untaken


def test_what_arrives_comes_once_and_is_no_backfill(gmail) -> None:
    gmail.put(mail(0), silent=True)
    with opened(gmail) as puller:
        puller.begin()
        now = at(datetime.now(UTC))
        gmail.put(mail(1), at=now)

        assert [mail(0)] == [each.raw for each in puller.drain("backfill") if each.backfill]
        assert [] == puller.drain("new")  # the backfill's list had it already, made after `begin`
        gmail.put(mail(2), at=now + 1, times=2)
        assert [(mail(2), False)] == [(each.raw, each.backfill) for each in puller.drain("new")]
        assert [] == puller.drain("new")

    assert {mail(0), mail(1), mail(2)} == puller.raws
    assert {False, True} == {each.backfill for each in puller.mails.values()}


def test_the_start_of_a_history_is_kept_over_all_its_pages(gmail) -> None:
    gmail.page = 2
    with opened(gmail) as puller:
        puller.begin()
        for n in range(5):
            gmail.put(mail(n))
        gmail.before("/history", lambda: None)
        gmail.before("/history", lambda: gmail.put(mail(5)))  # while the pages are read

        puller.drain("new")
        puller.drain("new")

    starts = [asked.one("startHistoryId") for asked in gmail.asked if asked.path.endswith("/history")]
    assert {mail(n) for n in range(6)} == puller.raws
    assert ["1000"] * 3 == starts[:3]
    assert starts == sorted(starts)


def test_a_page_of_history_need_not_have_history(gmail) -> None:
    gmail.hollow = True
    with opened(gmail) as puller:
        puller.begin()
        gmail.put(mail(1))

        assert [mail(1)] == [each.raw for each in puller.drain("new")]


def test_a_batch_ends_in_the_middle_of_a_page(gmail) -> None:
    for n in range(10):
        gmail.put(mail(n), silent=True)
    with opened(gmail) as puller:
        puller.begin()

        came = puller.drain("backfill", mails=4)

    assert [mail(n) for n in reversed(range(10))] == [each.raw for each in came]
    assert all(len(each.mails) <= 4 + AT_ONCE - 1 for each in puller.pulls)
    assert 10 == len(gmail.paths("/messages/"))  # none was fetched twice


@pytest.mark.parametrize("labels", [("DRAFT",), ("SENT",), ("SPAM",), ("TRASH", "UNREAD")], ids=lambda labels: labels[0])
def test_what_was_not_received_is_left_out(gmail, labels: tuple[str, ...]) -> None:
    gmail.put(mail(0), *labels, silent=True)
    with opened(gmail) as puller:
        puller.begin()
        gmail.put(mail(1), *labels)
        gmail.put(mail(2), "SENT", "INBOX")

        puller.drain("backfill")
        puller.drain("new")

    assert {mail(2)} == puller.raws


def test_what_is_taken_out_of_spam_arrives_then(gmail) -> None:
    with opened(gmail) as puller:
        puller.begin()
        id = gmail.put(mail(1), "SPAM")
        assert [] == puller.drain("new")
        gmail.label(id, add=("INBOX",), remove=("SPAM",))

        assert [mail(1)] == [each.raw for each in puller.drain("new")]


def test_a_mail_whose_labels_the_history_does_not_tell_is_judged_by_its_own(gmail) -> None:
    with opened(gmail) as puller:
        puller.begin()
        gmail.put(mail(1), "DRAFT")
        gmail.put(mail(2))
        for record in gmail.history:
            del record["messagesAdded"][0]["message"]["labelIds"]

        assert [mail(2)] == [each.raw for each in puller.drain("new")]


def test_an_expired_history_begins_anew_without_fetching_anything_twice(gmail) -> None:
    gmail.put(mail(0), silent=True)
    with opened(gmail) as puller:
        puller.begin()
        puller.drain("backfill")
        gmail.put(mail(1))
        gmail.forget_history()

        with pytest.raises(Gone):
            puller.pull("new")
        puller.begin()
        fetched = len(gmail.paths("/messages/"))
        puller.drain("new")
        puller.drain("backfill")

    assert {mail(0), mail(1)} == puller.raws
    assert fetched + 1 == len(gmail.paths("/messages/"))


@pytest.mark.parametrize("lane", ["new", "backfill"])
def test_a_page_whose_token_has_expired_is_begun_anew(gmail, lane) -> None:
    gmail.page = 2
    for n in range(2):
        gmail.put(mail(n), silent=True)
    with opened(gmail) as puller:
        puller.begin()
        for n in range(2, 6):
            gmail.put(mail(n))
        puller.pull(lane, PullBounds(mails=2))
        gmail.instead("/history" if lane == "new" else "/messages", BAD_PAGE)

        puller.drain(lane, mails=2)
        puller.drain("backfill")

    assert {mail(n) for n in range(6)} == puller.raws


def test_what_is_older_than_wanted_is_not_read(gmail) -> None:
    now = datetime.now(UTC)
    gmail.put(mail(0), at=at(now - timedelta(days=3)), silent=True)
    gmail.put(mail(1), at=at(now - timedelta(days=1)), silent=True)
    with opened(gmail, sync_from=now - timedelta(days=2)) as puller:
        puller.begin()
        gmail.put(mail(2), at=at(now - timedelta(days=9)))

        puller.drain("backfill")
        puller.drain("new")

    assert {mail(1)} == puller.raws
    assert (None, 2) == (puller.total, max(each.total or 0 for each in puller.pulls) + 1)


def test_a_mailbox_that_refuses_every_token_needs_somebody(gmail) -> None:
    with (
        opened(gmail, Asking(gmail, answers=["stale", "stale"])) as puller,
        pytest.raises(Refused, match="Invalid Credentials"),
    ):
        puller.begin()


def test_missing_rights_need_somebody(gmail) -> None:
    gmail.instead("/profile", FORBIDDEN)
    with opened(gmail) as puller, pytest.raises(Refused, match="insufficient authentication scopes"):
        puller.begin()


@pytest.mark.parametrize("answer", [RATE_LIMITED, USER_RATE_LIMITED])
def test_too_many_requests_are_waited_for_longer_each_time(gmail, answer: Said) -> None:
    gmail.instead("/profile", answer, answer)
    with opened(gmail) as puller:
        with pytest.raises(Throttled) as first:
            puller.begin()
        asked = len(gmail.asked)
        with pytest.raises(Throttled) as second:
            puller.begin()  # sends no request

    assert 5 <= first.value.seconds <= 6
    assert 0 < second.value.seconds <= first.value.seconds
    assert asked == len(gmail.asked)


def test_the_providers_own_word_on_how_long_to_wait_is_taken(gmail) -> None:
    gmail.instead("/profile", Said(429, RATE_LIMITED.body, {"Retry-After": "77"}))
    with opened(gmail) as puller, pytest.raises(Throttled) as told:
        puller.begin()

    assert 77 == told.value.seconds


def test_a_days_limit_is_waited_for_an_hour_at_a_time(gmail) -> None:
    gmail.instead("/profile", error(403, "dailyLimitExceeded", "Daily Limit Exceeded", domain="usageLimits"))
    with opened(gmail) as puller, pytest.raises(Throttled) as told:
        puller.begin()

    assert 3600 == told.value.seconds


def test_an_answer_without_end_is_not_read_to_its_end(gmail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.mail.api.provider_api.MAX_JSON", 2 * MIB)
    gmail.instead("/profile", "endless")
    with opened(gmail) as puller, pytest.raises(Away):
        puller.begin()


def test_hanging_downloads_do_not_take_the_others_with_them(gmail) -> None:
    ids = [gmail.put(mail(n), silent=True) for n in range(3)]
    gmail.instead(f"/messages/{ids[1]}", "hang")
    with opened(gmail) as puller:
        puller.begin()

        pulled = puller.pull("backfill", PullBounds(until=time.monotonic() + 3))

        assert ({mail(0), mail(2)}, True) == (puller.raws, pulled.more)
        assert [mail(1)] == [each.raw for each in puller.drain("backfill")]


def test_when_hardly_a_mail_can_be_had_the_api_is_away(gmail) -> None:
    for n in range(8):
        gmail.put(mail(n), silent=True)
    gmail.instead("/messages/", *[BACKEND_ERROR] * 4)
    with opened(gmail) as puller:
        puller.begin()
        with pytest.raises(Away):
            puller.pull("backfill")
        assert 8 == len(puller.drain("backfill"))


def test_large_mails_come_one_at_a_time_and_no_text_is_made_of_them(gmail, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, json = [], Answer.json
    monkeypatch.setattr(Answer, "json", lambda answer: parsed.append(len(answer.body)) or json(answer))
    raws = [mail(n, size=9 * MIB) for n in range(2)]
    for raw in raws:
        gmail.put(raw, silent=True)
    with opened(gmail) as puller:
        puller.begin()
        puller.drain("backfill")

    assert max(parsed) < MIB
    assert set(raws) == puller.raws
    assert [1, 1] == [len(each.mails) for each in puller.pulls]


def test_nothing_large_is_read_before_the_process_has_memory_for_it(gmail) -> None:
    gmail.put(mail(0, size=9 * MIB), silent=True)
    gmail.put(mail(1, size=2 * MIB), silent=True)
    held: list[int] = []
    with opened(gmail) as puller:
        puller.begin()
        while puller.pull("backfill", PullBounds(hold=held.append)).more:
            pass

    assert 2 == len(puller.raws)
    assert 2 == held.count(MAX_BYTES)
    [large] = [size for size in held if size != MAX_BYTES]
    assert 9 * MIB < large < 2 * 9 * MIB


def test_small_mails_take_no_budget_and_a_large_one_beyond_it_is_not_taken(gmail) -> None:
    def full(_size: int) -> None:
        raise Untaken("too many large mails at once")

    gmail.put(mail(0), silent=True)
    with opened(gmail) as puller:
        puller.begin()
        puller.pull("backfill", PullBounds(hold=full))
        gmail.put(mail(1, size=9 * MIB))
        with pytest.raises(Untaken):
            puller.pull("new", PullBounds(hold=full))
        puller.pull("new")

    assert {mail(0), mail(1, size=9 * MIB)} == puller.raws


@pytest.mark.parametrize("raw", [{}, {"raw": ""}, {"raw": "A"}, {"raw": "!!"}])
def test_a_mail_without_readable_bytes_is_remembered_and_holds_up_no_other(gmail, raw: dict[str, str]) -> None:
    id = gmail.put(mail(0), silent=True)
    said = {"id": id, "labelIds": ["INBOX"], "internalDate": "1730000000000", "sizeEstimate": 7, **raw}
    gmail.instead(f"/messages/{id}", Said(200, said))
    with opened(gmail) as puller:
        puller.begin()
        puller.drain("backfill")

    assert [("unreadable",)] == [item.flags for item in puller.kept]


def test_no_minutes_units_are_passed(gmail, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    paces = Paces(api_gmail.UNITS_PER_MINUTE / 60 * 5 / 6, api_gmail.UNITS_PER_MINUTE / 6)
    paces.of(1)._clock = lambda: clock[0]
    paces.of(1)._at = 0.0
    monkeypatch.setattr(api_gmail, "PACES", paces)
    for n in range(400):
        gmail.put(mail(n), silent=True)
    with opened(gmail) as puller:
        puller.begin()
        while clock[0] < 60:
            try:
                puller.pull("backfill")
            except Throttled as throttled:
                clock[0] += throttled.seconds

    assert 5000 <= gmail.units() <= 6000


@pytest.mark.parametrize("fault", [BACKEND_ERROR, FORBIDDEN, RATE_LIMITED, "drop"], ids=["500", "403", "429", "drop"])
def test_no_token_stands_in_an_error(gmail, fault, caplog: pytest.LogCaptureFixture) -> None:
    secret = f"given-{time.time_ns()}"
    gmail.instead("/profile", fault, fault)
    with opened(gmail, Asking(gmail, answers=[secret])) as puller, pytest.raises(SourceError) as told:
        puller.begin()

    assert secret == gmail.asked[0].bearer
    assert secret not in "".join(traceback.format_exception(told.value)) + repr(told.value) + caplog.text


def test_a_token_goes_in_the_clear_only_where_the_deployment_allows_it(gmail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAXSEAL_ALLOW_NETWORKS", "none")
    with opened(gmail) as puller, pytest.raises(Away, match="WAXSEAL_ALLOW_NETWORKS"):
        puller.begin()

    assert [] == gmail.asked
