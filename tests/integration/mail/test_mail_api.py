"""What holds for mailboxes behind any API."""

import time

import pytest

from support.mail.api import Fake
from support.mail.mailboxes import MIB, Asking, arrive, mail, opened
from workers.mail.api import gmail as api_gmail
from workers.mail.api import graph as api_graph
from workers.mail.mailbox_session import Away, PullBounds, Throttled


@pytest.fixture(params=["gmail", "graph"])
def fake(request) -> Fake:
    return request.getfixturevalue(request.param)


def test_an_empty_mailbox_is_read(fake) -> None:
    with opened(fake) as puller:
        puller.begin()

        assert ([], [], 0) == (puller.drain("backfill"), puller.drain("new"), puller.total)


def test_what_was_there_comes_newest_first_and_to_the_byte(fake) -> None:
    raws = [mail(n, size=n) for n in range(7)]
    ids = [fake.put(raw) for raw in raws]
    fake.page = 3
    with opened(fake) as puller:
        puller.begin()

        assert [] == puller.drain("new")
        came = puller.drain("backfill")

    assert raws[::-1] == [each.raw for each in came]
    assert [f"{fake.kind}:{id}" for id in reversed(ids)] == [each.source_key for each in came]
    assert [id if fake.kind == "graph" else None for id in reversed(ids)] == [each.event_id for each in came]
    assert [fake.received(id) for id in reversed(ids)] == [each.internal_date for each in came]
    assert [True] * 7 == [each.backfill for each in came]
    assert (7, 7) == (sum(each.seen for each in puller.pulls), puller.total)


def test_a_killed_pull_is_repeated_from_the_same_place(fake) -> None:
    fake.page = 2
    with opened(fake) as puller:
        puller.begin()
        puller.drain("new")
        for n in range(5):
            arrive(fake, n)

        puller.pull("new", PullBounds(mails=2), killed=True)
        held = set(puller.mails)
        assert held
        assert [] == [each.source_key for each in puller.drain("new", mails=2) if each.source_key in held]

    assert {mail(n) for n in range(5)} == puller.raws


def test_a_mail_that_was_deleted_between_list_and_fetch_is_passed_over(fake) -> None:
    ids = [fake.put(mail(n)) for n in range(3)]
    fake.before(ids[1], lambda: fake.delete(ids[1]))
    with opened(fake) as puller:
        puller.begin()

        assert [mail(2), mail(0)] == [each.raw for each in puller.drain("backfill")]
        assert [] == puller.drain("new")


def test_a_refused_token_is_replaced_once(fake) -> None:
    fake.put(mail(0))
    token = Asking(fake, answers=["stale"])
    with opened(fake, token) as puller:
        puller.begin()
        assert 1 == token.fresh
        fake.tokens.access.clear()  # while mails are fetched
        assert [mail(0)] == [each.raw for each in puller.drain("backfill")]
        assert 2 == token.fresh


def test_throttling_in_the_middle_of_a_batch_keeps_what_has_come(fake) -> None:
    ids = [fake.put(mail(n)) for n in range(9)]
    fake.instead(fake.download(ids[2]), fake.throttled)
    with opened(fake) as puller:
        puller.begin()

        pulled = puller.pull("backfill")

        assert ({mail(n) for n in (8, 7, 6, 5, 4, 3, 1)}, True) == (puller.raws, pulled.more)
        with pytest.raises(Throttled):
            puller.pull("backfill")


@pytest.mark.parametrize("fault", ["failure", "unavailable", "drop", "garbage", "elsewhere"])
def test_trouble_at_the_provider_is_no_reason_to_ask_for_consent(fake, fault: str) -> None:
    answer = getattr(fake, fault, fault)
    fake.instead(fake.entrance, answer, answer)  # a dropped connection is retried once
    with opened(fake) as puller, pytest.raises(Throttled if fake.kind == "graph" and fault == "unavailable" else Away):
        puller.begin()


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_provider_that_does_not_come_to_an_end_is_left_in_time(fake, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.mail.api.provider_api.REQUEST_SECONDS", 0.5)
    fake.instead(fake.entrance, fault)
    began = time.monotonic()
    with opened(fake) as puller, pytest.raises(Away, match="no whole answer"):
        puller.begin()

    assert time.monotonic() - began < 30  # a request may take 60


def test_a_mail_that_the_api_does_not_give_holds_up_no_other(fake) -> None:
    ids = [fake.put(mail(n)) for n in range(3)]
    fake.instead(fake.download(ids[1]), fake.failure)
    with opened(fake) as puller:
        puller.begin()

        assert [mail(2), mail(0)] == [each.raw for each in puller.drain("backfill")]
        assert 1 == sum(each.missing for each in puller.pulls)
        puller.begin()
        assert [mail(1)] == [each.raw for each in puller.drain("backfill")]  # fetched when everything is compared again


def test_a_mail_that_is_too_large_is_remembered_and_not_read(fake, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (api_gmail, api_graph):
        monkeypatch.setattr(module, "MAX_MAIL", 2 * MIB)
    id = fake.put(mail(0, size=3 * MIB))
    fake.put(mail(1))
    with opened(fake) as puller:
        puller.begin()
        puller.drain("backfill")

    assert {mail(1)} == puller.raws
    [item] = puller.kept
    assert (f"{fake.kind}:{id}", None, ("too_large",)) == (item.source_key, item.event_id, item.flags)
    assert len(mail(0, size=3 * MIB)) == item.size
