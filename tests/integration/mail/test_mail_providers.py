"""Mailboxes of Gmail and Microsoft 365, configured and pulled: published mails, stored state, operator events."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.config.apply import apply_file
from ops.errors import OpsError
from ops.settings import Settings
from pipeline.store.mail import items as mail_items
from schemas.mailbox import Mailbox
from support.mail.graph import THROTTLED
from support.mail.mailboxes import arrive, drain, mail
from workers.mail.oauth.tokens import Tokens
from workers.mail.pull.publish import described
from workers.mail.pull.puller import Puller
from workers.mail.pull.sessions import Sessions

FILE = """\
tenants: [{{name: acme}}]
mailboxes:
  - tenant: acme
    name: google
    kind: gmail
    username: u@x.org
    api_url: {gmail}
    oauth: {{token_url: {gmail_tokens}, client_id: app, client_secret: shh, refresh_token: {refresh}}}
    {more}
  - tenant: acme
    name: microsoft
    kind: graph
    username: u@x.org
    api_url: {graph}/v1.0
    oauth: {{token_url: {graph_tokens}, client_id: app, client_secret: shh, refresh_token: {refresh}}}
    {more}
"""


@pytest.fixture
def apply(database, gmail, graph, tmp_path: Path) -> Callable[..., dict[str, int]]:
    def apply(more: str = "", **changed: str) -> dict[str, int]:
        urls = {"gmail": gmail.url, "gmail_tokens": gmail.token_url, "graph": graph.url, "graph_tokens": graph.token_url}
        text = FILE.format(**urls | {"refresh": "refresh-0", "more": more} | changed)
        (tmp_path / "waxseal.yaml").write_text(text)
        apply_file(tmp_path / "waxseal.yaml", Settings(database_url=database.url, keys=database.key))
        return dict(database.rows("SELECT name, mailbox.id FROM mailbox JOIN source USING (id)"))

    return apply


@pytest.fixture
def puller(database, engine, inbox) -> Iterator[Puller]:
    sessions = Sessions(Tokens(engine, database.vault).of)
    yield Puller(engine, database.vault, sessions, inbox, "me")
    sessions.sweep(everything=True)


@pytest.mark.parametrize("name", ["google", "microsoft"])
def test_a_mailbox_is_read_whole_and_then_what_arrives(apply, puller, inbox, database, gmail, graph, name: str) -> None:
    fake = gmail if name == "google" else graph
    for n in range(250):
        fake.put(mail(n))
    id = apply()[name]

    assert ["more", "done"] == drain(puller, id)
    assert [mail(n) for n in reversed(range(250))] == inbox.raws(name)
    assert all(each.backfill for each in inbox.mails)
    arrive(fake, 250)
    assert ["done"] == drain(puller, id)
    assert (mail(250), False) == (inbox.mails[-1].raw, inbox.mails[-1].backfill)
    assert [(251,)] == database.rows("SELECT count(*) FROM mail_item")
    assert [(250, True)] == database.rows("SELECT done, finished_at IS NOT NULL FROM mailbox_cursor WHERE lane = 'backfill'")
    assert 1 == fake.tokens.granted


@pytest.mark.parametrize("name", ["google", "microsoft"])
def test_dying_between_the_broker_and_the_cursor_loses_nothing(
    apply, puller, inbox, database, gmail, graph, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = gmail if name == "google" else graph
    id = apply()[name]
    drain(puller, id)
    for n in range(30):
        arrive(fake, n)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mail_items, "add", dies)
        puller.pull(id)
    assert 30 == len(inbox.mails)
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL")  # it expires
    drain(puller, id)

    assert 60 == len(inbox.mails)
    events = {described(Mailbox(id, "acme", name, "gmail", "u"), each)[1]["id"] for each in inbox.mails}
    assert (30, {mail(n) for n in range(30)}) == (len(events), set(inbox.raws(name)))  # the ledger drops the rest
    assert [(30,)] == database.rows("SELECT count(*) FROM mail_item")


@pytest.mark.parametrize("name", ["google", "microsoft"])
def test_what_has_expired_is_begun_anew_and_nothing_comes_twice(apply, puller, inbox, gmail, graph, name: str) -> None:
    fake = gmail if name == "google" else graph
    for n in range(5):
        arrive(fake, n)
    id = apply()[name]
    drain(puller, id)
    arrive(fake, 5)
    gmail.forget_history()
    graph.expire()
    arrive(fake, 6)

    drain(puller, id)
    arrive(fake, 7)
    drain(puller, id)

    assert sorted(mail(n) for n in range(8)) == sorted(inbox.raws(name))


def test_ended_consent_needs_somebody_and_disturbs_no_other_mailbox(apply, puller, inbox, database, gmail, graph) -> None:
    ids = apply()
    drain(puller, ids["google"])
    drain(puller, ids["microsoft"])
    graph.tokens.revoke()
    for fake in (gmail, graph):
        arrive(fake, 1)

    assert (["refused"], ["done"]) == (drain(puller, ids["microsoft"]), drain(puller, ids["google"]))
    assert ["busy"] == drain(puller, ids["microsoft"])  # it is no longer pulled
    assert ([mail(1)], []) == (inbox.raws("google"), inbox.raws("microsoft"))
    assert [("active", False), ("needs_reauthorization", True)] == database.rows(
        "SELECT state, coalesce(reason ~ 'AADSTS50173', false) FROM mailbox JOIN source USING (id) ORDER BY name"
    )
    assert [("mailbox_needs_reauthorization", "microsoft")] == database.rows(
        "SELECT operator_event.kind, source.name FROM operator_event JOIN source ON source.id = source_id"
    )


def test_a_new_refresh_token_in_the_configuration_ends_the_need(apply, puller, inbox, database, graph) -> None:
    id = apply()["microsoft"]
    graph.tokens.revoke()
    drain(puller, id)
    graph.tokens.refresh.add("new")
    arrive(graph, 1)
    apply(refresh="new")

    drain(puller, id)
    assert ([mail(1)], [("active",)]) == (
        inbox.raws("microsoft"),
        database.rows("SELECT state FROM mailbox WHERE id = %s", id),
    )


def test_applying_the_same_file_again_keeps_the_rotated_token(apply, puller, database, graph) -> None:
    graph.tokens.strict = True
    id = apply()["microsoft"]
    drain(puller, id)
    apply()
    graph.tokens.access.clear()

    assert ["done"] == drain(puller, id)
    assert ["refresh-0", "refresh-1"] == [asked.form["refresh_token"] for asked in graph.asked if asked.form]


def test_throttling_after_some_have_come_is_no_failure(apply, puller, inbox, database, graph) -> None:
    for n in range(30):
        arrive(graph, n)
    ids = apply()
    graph.instead("AAMkADNk10==/$value", THROTTLED)

    assert ["done"] == drain(puller, ids["microsoft"])
    assert 5 <= len(inbox.mails) < 30
    [[failures, wait]] = database.rows(
        "SELECT failures, extract(epoch FROM next_pull_at - pulled_at) FROM mailbox WHERE id = %s", ids["microsoft"]
    )
    assert (0, True) == (failures, 5 < wait < 30)


def test_a_file_with_an_endpoint_in_the_clear_is_refused(apply, gmail) -> None:
    with pytest.raises(OpsError, match="https"):
        apply(gmail="http://gmail.example")
    with pytest.raises(OpsError, match="https"):
        apply(gmail_tokens="http://192.168.0.7/token")


@pytest.mark.parametrize("more", ["password: p", "host: h", "folders: [INBOX]"])
def test_what_is_of_no_use_to_a_kind_is_refused(apply, more: str) -> None:
    with pytest.raises(OpsError, match="of no use to kind gmail"):
        apply(more)
