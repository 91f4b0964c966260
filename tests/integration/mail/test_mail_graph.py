from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.mailbox import OAuth
from support.mail.api import serving
from support.mail.graph import (
    BAD_REQUEST,
    BELOW,
    DENIED,
    GONE,
    GONE_AS_400,
    NOT_FOUND,
    THROTTLED,
    THROTTLED_OLD,
    UNAVAILABLE,
    Graph,
)
from support.mail.mailboxes import Asking, mail, mailbox_of, opened
from workers.mail.api import exchange
from workers.mail.api import graph as api_graph
from workers.mail.api.graph import KIND
from workers.mail.mailbox_session import Away, Gone, NoFolder, PullBounds, Refused, Throttled

LINKS = ("@odata.nextLink", "@odata.deltaLink")


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def test_what_arrives_comes_once_and_is_no_backfill(graph) -> None:
    graph.put(mail(0))
    with opened(graph) as puller:
        puller.begin()
        graph.put(mail(1), at=now())
        assert [(mail(1), False)] == [(each.raw, each.backfill) for each in puller.drain("new")]
        graph.put(mail(2), at=now())
        assert [mail(2)] == [each.raw for each in puller.drain("new")]

        assert [mail(0)] == [each.raw for each in puller.drain("backfill")]
        assert [] == puller.drain("new")


def test_what_was_read_marked_or_deleted_brings_nothing(graph) -> None:
    ids = [graph.put(mail(n)) for n in range(3)]
    with opened(graph) as puller:
        puller.begin()
        puller.drain("new")
        puller.drain("backfill")
        graph.mark_read(ids[0])
        graph.delete(ids[1])
        graph.move(ids[2], "shop")

        assert [] == puller.drain("new")


def test_what_is_moved_here_arrives_whatever_its_date(graph) -> None:
    id = graph.put(mail(0), "junkemail")
    with opened(graph) as puller:
        puller.begin()
        puller.drain("new")
        puller.drain("backfill")
        graph.move(id, "inbox")

        assert [mail(0)] == [each.raw for each in puller.drain("new")]


def test_what_is_moved_here_while_the_first_round_is_walked_is_not_lost(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_graph, "WALK", 2)
    for n in range(6):
        graph.put(mail(n))
    old = graph.put(mail(9), "junkemail", at=datetime(2025, 1, 1, tzinfo=UTC))
    with opened(graph) as puller:
        puller.begin()
        puller.drain("backfill")
        graph.move(old, "inbox")

        assert [mail(9)] == [each.raw for each in puller.drain("new")]


def test_a_change_need_not_say_more_than_what_has_changed(graph) -> None:
    with opened(graph) as puller:
        puller.begin()
        puller.drain("new")
        graph.brief = True
        graph.put(mail(0), at=now())
        graph.put(b"draft", at=now(), draft=True)

        assert [mail(0)] == [each.raw for each in puller.drain("new")]


def test_drafts_are_left_out(graph) -> None:
    graph.put(b"draft", draft=True)
    with opened(graph) as puller:
        puller.begin()
        graph.put(b"another", at=now(), draft=True)

        assert [] == puller.drain("new") + puller.drain("backfill")


def test_a_page_may_be_empty_and_lead_on(graph) -> None:
    graph.hollow = True
    with opened(graph) as puller:
        puller.begin()
        graph.put(mail(0), at=now())
        puller.drain("new")
        graph.put(mail(1), at=now())
        puller.drain("new")

    assert {mail(0), mail(1)} == puller.raws


def test_every_mail_of_one_second_is_read_however_many_there_are(graph) -> None:
    graph.page = 3
    second = datetime(2026, 2, 2, tzinfo=UTC)
    for n in range(8):
        graph.put(mail(n), at=second)
    graph.put(mail(8), at=second - timedelta(seconds=1))
    graph.put(mail(9), at=second + timedelta(seconds=1))
    with opened(graph) as puller:
        puller.begin()
        puller.drain("backfill", mails=2)

    assert {mail(n) for n in range(10)} == puller.raws


def test_deletions_while_the_list_is_read_hide_no_mail(graph) -> None:
    graph.page = 2
    ids = [graph.put(mail(n)) for n in range(8)]
    with opened(graph) as puller:
        puller.begin()
        puller.pull("backfill", PullBounds(mails=2))
        for id in ids[-2:]:
            graph.delete(id)
        puller.drain("backfill", mails=2)

    assert {mail(n) for n in range(8)} == puller.raws


def test_what_is_older_than_wanted_is_not_read(graph) -> None:
    ids = [graph.put(mail(n), at=now() - timedelta(days=n)) for n in (1, 3)]
    with opened(graph, sync_from=now() - timedelta(days=2)) as puller:
        puller.begin()
        puller.drain("backfill")
        puller.drain("new")
        graph.mark_read(ids[1])
        graph.put(mail(5), at=now() - timedelta(days=5))
        puller.drain("new")

    assert ({mail(1)}, None) == (puller.raws, puller.total)


@pytest.mark.parametrize("told", [None, GONE, GONE_AS_400])
def test_an_expired_delta_begins_anew_without_fetching_anything_twice(graph, told) -> None:
    graph.put(mail(0))
    with opened(graph) as puller:
        puller.begin()
        puller.drain("new")
        puller.drain("backfill")
        graph.put(mail(1), at=now())
        if told is None:
            graph.expire()
        else:
            graph.instead("/delta", told)

        with pytest.raises(Gone):
            puller.pull("new")
        puller.begin()
        puller.drain("new")
        puller.drain("backfill")

    assert {mail(0), mail(1)} == puller.raws
    assert 2 == len(graph.paths("$value"))


def test_another_bad_request_is_not_taken_for_an_expired_delta(graph) -> None:
    with opened(graph) as puller:
        puller.begin()
        graph.instead("/delta", BAD_REQUEST)
        with pytest.raises(Away, match="Invalid filter clause"):
            puller.pull("new")


def test_no_token_is_sent_where_a_link_leads_if_that_is_elsewhere(graph) -> None:
    with serving(Graph()) as elsewhere, opened(graph) as puller:
        graph.page = 1
        graph.foreign = elsewhere.url
        for n in range(3):
            graph.put(mail(n))
        puller.begin()
        puller.drain_until_away("new")
        puller.drain_until_away("backfill")

    assert [] == elsewhere.asked


def test_ids_are_immutable_in_every_request(graph) -> None:
    graph.put(mail(0))
    with opened(graph) as puller:
        puller.begin()
        puller.drain("new")
        puller.drain("backfill")

    asked = [asked for asked in graph.asked if asked.path != "/token"]
    assert all('IdType="ImmutableId"' in each.headers["Prefer"] for each in asked)
    assert 4 <= len(asked)


def test_no_more_requests_are_made_at_once_than_are_allowed(graph) -> None:
    graph.takes = 0.1
    for n in range(12):
        graph.put(mail(n))
    with opened(graph) as puller:
        puller.begin()
        puller.drain("backfill")

    assert graph.most_at_once == exchange.AT_ONCE == 4
    assert 12 == len(puller.raws)


@pytest.mark.parametrize(("answer", "seconds"), [(THROTTLED, 17), (THROTTLED_OLD, 10), (UNAVAILABLE, 5)])
def test_a_throttled_mailbox_waits_as_long_as_it_is_told(graph, answer, seconds: float) -> None:
    graph.instead("/mailFolders", answer)
    with opened(graph) as puller, pytest.raises(Throttled) as told:
        puller.begin()

    assert seconds == told.value.seconds


def test_denied_access_needs_somebody(graph) -> None:
    graph.instead("/mailFolders", DENIED)
    with opened(graph) as puller, pytest.raises(Refused, match="Access is denied"):
        puller.begin()


def test_a_folder_goes_by_its_path(graph) -> None:
    graph.put(mail(0), "shop")
    graph.put(mail(1), "shop-orders")
    graph.put(mail(2))
    with opened(graph, folders=("Shop/Orders",)) as puller:
        puller.begin()
        assert [mail(1)] == [each.raw for each in puller.drain("backfill")]


def test_every_folder_is_listed_but_those_that_hold_what_nobody_received(graph) -> None:
    graph.page = 2
    with opened(graph) as puller:
        assert ["Inbox", "Shop", "Shop/Orders"] == sorted(puller.session.folders())


def test_more_than_a_thousand_folders_are_listed(graph, monkeypatch) -> None:
    many = {f"AQMk-{n}": f"Customer {n}" for n in range(1200)}
    monkeypatch.setitem(BELOW, "AQMk-shop", many)
    monkeypatch.setitem(BELOW, "AQMk-7", {"AQMk-deep": "A/B"})
    graph.folders |= many | {"AQMk-deep": "A/B"}
    graph.put(mail(0), "deep")

    with opened(graph, folders=("shop/customer 7/a/b",)) as puller:
        assert {"Shop/Customer 1199", "Shop/Customer 7/A/B"} <= set(puller.session.folders())
        asked = len(graph.asked)
        puller.begin()
        assert [mail(0)] == [each.raw for each in puller.drain("backfill")]
        lists = [each for each in graph.asked[asked:] if "childFolders" in each.path or each.path.endswith("/mailFolders")]
        assert len(lists) == 14  # twelve of them in "Shop"; no folder off the path is listed


@pytest.mark.parametrize(("name", "most"), [("MAX_FOLDERS", 5), ("MAX_LISTS", 1)])
def test_folders_beyond_the_bound_are_not_left_out_in_silence(graph, name, most, monkeypatch) -> None:
    monkeypatch.setattr(api_graph, name, most)
    with opened(graph, folders=("*",)) as puller:
        assert ["Inbox", "Shop", "*"] == puller.session.folders()
        with pytest.raises(NoFolder, match=f"more .*{most}.*not read: name those to be read in `folders`"):
            puller.begin()
    with opened(graph, folders=("Zebra",)) as puller, pytest.raises(NoFolder, match=f"'Zebra' was not found: .*{most}"):
        monkeypatch.setattr(api_graph, name, 1)
        graph.page = 1
        puller.begin()


def test_a_folder_that_is_not_there_is_named(graph) -> None:
    with opened(graph, folders=("Nowhere",)) as puller, pytest.raises(NoFolder, match="'Nowhere'"):
        puller.begin()
    graph.instead("/mailFolders/inbox", NOT_FOUND)
    with opened(graph) as puller, pytest.raises(NoFolder, match="'inbox'"):
        puller.begin()


@pytest.mark.parametrize("lane", ["new", "backfill"])
def test_a_folder_that_is_removed_is_looked_for_anew(graph, lane) -> None:
    graph.put(mail(0))
    with opened(graph) as puller:
        puller.begin()
        title = graph.folders.pop("AQMk-inbox")
        with pytest.raises(Gone):
            puller.pull(lane)
        with pytest.raises(NoFolder):  # which does not stop other folders
            puller.begin()
        graph.folders["AQMk-inbox"] = title
        puller.begin()
        assert [mail(0)] == [each.raw for each in puller.drain("backfill")]


def test_a_page_that_leads_nowhere_is_not_taken_for_the_last(graph) -> None:
    with opened(graph) as puller:
        puller.begin()
        graph.instead("/delta", "garbage")
        with pytest.raises(Away):
            puller.pull("new")
        graph.instead("/messages", "garbage")
        with pytest.raises(Away):
            puller.pull("backfill")


def test_a_shared_mailbox_is_asked_for_by_its_name(graph) -> None:
    oauth = OAuth(graph.token_url, "app", "r", scope="https://graph.microsoft.com/Mail.Read.Shared offline_access")
    session = KIND.open(replace(mailbox_of(graph), username="shop@x.org", oauth=oauth), Asking(graph))
    with pytest.raises(Away):
        session.begin("inbox")
    session.close()

    assert ["/v1.0/users/shop@x.org/mailFolders/inbox"] == graph.paths()
