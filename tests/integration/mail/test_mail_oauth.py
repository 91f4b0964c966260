"""Access tokens: refreshed by one process at a time, stored before use, and ended only by a definite refusal."""

import itertools
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import structlog
from prometheus_client import REGISTRY

from ops.runtime.log import configure
from ops.runtime.vault import Vault
from pipeline.store.mail import tokens as mail_tokens
from schemas.mailbox import Mailbox
from support.mail.api import Said
from support.mail.graph import INTERACTION_REQUIRED
from support.mail.mailboxes import added, mailbox_of
from workers.mail.mailbox_session import Away, Refused, Throttled, Token
from workers.mail.oauth import tokens as oauth_tokens
from workers.mail.oauth.tokens import StoredTokens, configured, unsealed
from workers.mail.oauth.tokens import Tokens as MailTokens

_names = itertools.count()


@pytest.fixture
def mailbox(database, graph) -> Mailbox:
    return added(database, mailbox_of(graph, name=f"m{next(_names)}"))


@pytest.fixture
def ask(database, engine, mailbox) -> Callable[[], Token]:
    """Makes a token source, as another process would."""

    def ask() -> Token:
        token = MailTokens(engine, database.vault).of(mailbox)
        assert token is not None
        return token

    return ask


def held(database, mailbox: Mailbox) -> StoredTokens:
    [[sealed]] = database.rows("SELECT tokens FROM mailbox WHERE id = %s", mailbox.id)
    return unsealed(bytes(sealed), mailbox, database.vault)


def put(database, mailbox: Mailbox, held: StoredTokens) -> None:
    with database.connect() as conn:
        conn.execute("UPDATE mailbox SET tokens = %s WHERE id = %s", (held.seal(database.vault), mailbox.id))


def refreshes(outcome: str, kind: str = "graph") -> float:
    return REGISTRY.get_sample_value("waxseal_mail_token_refreshes_total", {"kind": kind, "outcome": outcome}) or 0.0


def test_a_token_is_got_once_and_used_by_every_process(graph, ask) -> None:
    assert ["access-1"] * 3 == [ask()(), ask()(), ask()()]
    assert 1 == graph.tokens.granted


def test_a_rotated_refresh_token_is_stored_sealed_and_used_the_next_time(database, graph, mailbox, ask) -> None:
    graph.tokens.strict = True  # a used refresh token is invalid
    counted = refreshes("refreshed")
    token = ask()

    assert ["access-1", "access-2", "access-3"] == [token(), token(fresh=True), ask()(fresh=True)]
    assert ["refresh-0", "refresh-1", "refresh-2"] == [asked.form["refresh_token"] for asked in graph.asked]
    assert "refresh-3" == held(database, mailbox).refresh
    [[sealed]] = database.rows("SELECT tokens FROM mailbox WHERE id = %s", mailbox.id)
    assert b"refresh" not in bytes(sealed)
    assert counted + 3 == refreshes("refreshed")


def test_a_provider_that_does_not_rotate_is_asked_with_the_same_token(database, graph, mailbox, ask) -> None:
    graph.tokens.rotates = False
    token = ask()

    assert ["access-1", "access-2"] == [token(), token(fresh=True)]
    assert "refresh-0" == held(database, mailbox).refresh


def test_a_token_that_is_about_to_end_is_replaced(graph, ask) -> None:
    graph.tokens.seconds = 100

    assert ["access-1", "access-2"] == [ask()(), ask()()]


@pytest.mark.parametrize("life", ["3599", None, "soon", -1])
def test_a_tokens_life_may_be_told_in_any_way(graph, ask, life) -> None:
    graph.tokens.access.add("a")
    graph.instead("/token", Said(200, {"access_token": "a", "expires_in": life}))

    assert "a" == ask()()


def test_a_token_is_not_used_before_it_is_stored(database, graph, mailbox, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies between the provider's answer and COMMIT: the token was not used, and the old one is tried again."""

    def dies(*_: object) -> bool:
        raise KeyboardInterrupt

    real = mail_tokens.swap
    swaps = iter([real, dies])

    def swap(*arguments: object) -> bool:
        return next(swaps, real)(*arguments)

    monkeypatch.setattr(mail_tokens, "swap", swap)
    monkeypatch.setattr(oauth_tokens, "CLAIM_SECONDS", 0.3)

    with pytest.raises(KeyboardInterrupt):
        ask()()
    assert ("refresh-0", None) == (held(database, mailbox).refresh, held(database, mailbox).access)

    assert "access-2" == ask()()
    assert "refresh-2" == held(database, mailbox).refresh


def test_concurrent_refreshes_ask_once_and_lose_nothing(database, graph, mailbox, ask) -> None:
    graph.tokens.strict = True
    first = ask()()
    barrier = threading.Barrier(8)

    def refused() -> str:
        token = ask()
        token()
        barrier.wait(30)
        return token(fresh=True)

    with ThreadPoolExecutor(8) as pool:
        given = [each.result(60) for each in [pool.submit(refused) for _ in range(8)]]

    assert ("access-1", {"access-2"}) == (first, set(given))
    assert "refresh-2" == held(database, mailbox).refresh
    assert "access-3" == ask()(fresh=True)


def test_no_connection_is_held_while_the_provider_is_asked(engine, graph, ask) -> None:
    out: list[int] = []
    graph.before("/token", lambda: out.append(engine.pool.checkedout()))
    ask()()

    assert [0] == out


def test_one_that_died_while_it_refreshed_is_not_waited_for_longer_than_its_claim(database, mailbox, ask) -> None:
    oauth = mailbox.oauth
    assert oauth is not None
    claimed = time.time() + 1
    put(database, mailbox, replace(configured(mailbox, oauth), claimed=claimed))

    assert "access-1" == ask()()
    assert claimed < time.time() < claimed + oauth_tokens.CLAIM_SECONDS / 2


def test_a_claim_that_does_not_end_is_left(database, mailbox, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    oauth = mailbox.oauth
    assert oauth is not None
    monkeypatch.setattr(oauth_tokens, "CLAIM_SECONDS", 0.2)
    put(database, mailbox, replace(configured(mailbox, oauth), claimed=time.time() + 1000))

    with pytest.raises(Away, match="another process"):
        ask()()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (None, "AADSTS50173"),
        (INTERACTION_REQUIRED, "AADSTS50076"),
        (Said(401, {"error": "invalid_client"}), "invalid_client"),
        (Said(400, {"error": "consent_required"}), "consent_required"),
    ],
    ids=["invalid_grant", "interaction_required", "invalid_client", "consent_required"],
)
def test_ended_consent_needs_somebody_at_once(database, graph, mailbox, ask, answer: Said | None, word: str) -> None:
    counted = refreshes("refused")
    if answer is None:
        graph.tokens.revoke()
    else:
        graph.instead("/token", answer)

    with pytest.raises(Refused, match=word):
        ask()()
    assert (counted + 1, 0.0) == (refreshes("refused"), held(database, mailbox).claimed)


@pytest.mark.parametrize("secret", ["refresh-0", "shh"])
def test_what_a_provider_repeats_of_the_secrets_is_told_to_nobody(graph, ask, secret: str) -> None:
    graph.instead("/token", Said(400, {"error": "invalid_grant", "error_description": f"{secret} is no token of yours"}))

    with pytest.raises(Refused) as told:
        ask()()
    assert "repeats what it was sent" in str(told.value)
    assert secret not in str(told.value)


def test_google_says_that_consent_has_ended(database, engine, gmail) -> None:
    token = MailTokens(engine, database.vault).of(added(database, mailbox_of(gmail, name="google")))
    assert token is not None
    assert "access-1" == token()
    gmail.tokens.revoke()

    with pytest.raises(Refused, match="expired or revoked"):
        token(fresh=True)


@pytest.mark.parametrize(
    "fault",
    [
        Said(500, b"oops"),
        Said(503, {"error": "temporarily_unavailable"}),
        Said(500, {"error": "invalid_grant"}),
        Said(400, b"<html>"),
        Said(200, {"token_type": "Bearer"}),
        Said(200, {"access_token": "a\x01b"}),
        Said(200, {"access_token": "a" * 300_000}),
        "garbage",
        "drop",
        "elsewhere",
    ],
)
def test_trouble_at_the_provider_is_not_taken_for_ended_consent(database, graph, mailbox, ask, fault) -> None:
    counted = refreshes("failed")
    graph.instead("/token", fault)

    with pytest.raises(Away):
        ask()()
    assert (counted + 1, "refresh-0", 0.0) == (
        refreshes("failed"),
        held(database, mailbox).refresh,
        held(database, mailbox).claimed,
    )
    assert ask()().startswith("access-")


def test_a_hanging_provider_is_left_in_time(graph, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth_tokens, "REFRESH_SECONDS", 0.5)
    graph.instead("/token", "trickle")

    with pytest.raises(Away, match="no whole answer"):
        ask()()


def test_a_provider_that_asks_for_less_is_left_as_long_as_it_says(graph, ask) -> None:
    graph.instead("/token", Said(429, {}, {"Retry-After": "7"}), Said(429, {}))
    said = []
    for _ in range(2):
        with pytest.raises(Throttled) as told:
            ask()()
        said.append(told.value.seconds)

    assert [7, 30] == said


def test_another_configured_refresh_token_takes_the_place_of_what_is_stored(database, engine, graph, mailbox, ask) -> None:
    ask()()
    graph.tokens.refresh.add("another")
    assert mailbox.oauth is not None
    other = replace(mailbox, oauth=replace(mailbox.oauth, refresh_token="another"))
    token = MailTokens(engine, database.vault).of(other)
    assert token is not None

    assert "access-2" == token()
    assert "another" == graph.asked[-1].form["refresh_token"]


def test_what_is_configured_while_a_refresh_is_under_way_is_not_written_over(database, graph, mailbox, ask) -> None:
    assert mailbox.oauth is not None
    newer = configured(mailbox, mailbox.oauth, "newer")
    graph.before("/token", lambda: put(database, mailbox, newer))

    ask()()

    assert "newer" == held(database, mailbox).refresh


def test_a_token_in_hand_is_stored_though_another_claimed_meanwhile(database, graph, mailbox, ask) -> None:
    assert mailbox.oauth is not None
    claimed = replace(configured(mailbox, mailbox.oauth), claimed=time.time() + 100)
    graph.before("/token", lambda: put(database, mailbox, claimed))

    ask()()

    assert "refresh-1" == held(database, mailbox).refresh


def test_tokens_that_were_moved_to_another_mailbox_open_nothing_there(database, graph, mailbox, ask) -> None:
    ask()()
    stored = held(database, mailbox)
    put(database, mailbox, replace(stored, mailbox=mailbox.id + 1))

    with pytest.raises(Refused, match="another mailbox"):
        ask()()


def test_tokens_under_a_lost_key_are_not_taken_for_ended_consent(database, engine, mailbox, ask) -> None:
    ask()()
    token = MailTokens(engine, Vault(["A" * 43 + "="])).of(mailbox)
    assert token is not None

    with pytest.raises(Away, match="WAXSEAL_KEYS"):
        token()


def test_a_database_that_is_away_is_a_reason_to_come_back(ask, engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    def away(*_: object) -> None:
        raise psycopg.OperationalError("gone")

    monkeypatch.setattr(mail_tokens, "read", away)

    with pytest.raises(Away, match="Postgres"):
        ask()()


def test_a_mailbox_that_is_gone_has_no_token(database, mailbox, ask) -> None:
    with database.connect() as conn:
        conn.execute("DELETE FROM mailbox WHERE id = %s", (mailbox.id,))

    with pytest.raises(Away, match="not configured"):
        ask()()


def test_a_mailbox_with_a_password_has_no_token(database, engine, mailbox) -> None:
    assert MailTokens(engine, database.vault).of(replace(mailbox, oauth=None)) is None


@pytest.fixture
def logged(monkeypatch) -> Iterator[None]:
    """Configures logging to write everything, whatever an earlier test did."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure("json", "debug", "test")
    monkeypatch.setattr(oauth_tokens, "_log", structlog.get_logger())
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.mark.usefixtures("logged")
def test_no_token_is_ever_told(graph, ask, mailbox, capsys, caplog) -> None:
    token = ask()
    told = []
    graph.tokens.refresh = {"refresh-0"}
    for fault in (None, Said(500, b"oops"), "drop", INTERACTION_REQUIRED):
        if fault is not None:
            graph.instead("/token", fault, fault)
        try:
            token(fresh=True)
        except (Away, Refused) as error:
            told += [repr(error), "".join(traceback.format_exception(error))]
        graph.calm()
    out = capsys.readouterr()
    told += [repr(token), repr(mailbox), out.out, out.err, caplog.text]

    assert "token_not_refreshed" in "".join(told)
    for secret in ("access-1", "refresh-0", "refresh-1", "shh"):
        assert secret not in "".join(told)


def test_the_token_endpoint_is_asked_in_the_clear_only_where_the_deployment_allows_it(graph, ask, monkeypatch) -> None:
    monkeypatch.setenv("WAXSEAL_ALLOW_NETWORKS", "none")
    with pytest.raises(Away, match="https only"):
        ask()()

    assert [] == graph.asked


def test_stored_tokens_are_read_again_as_they_were(database, mailbox) -> None:
    kept = StoredTokens(mailbox.id, "d", "r", "a", 1.5, 2.5)

    assert kept == unsealed(kept.seal(database.vault), mailbox, database.vault)
    assert "mailbox" in json.loads(database.vault.decrypt(kept.seal(database.vault)))
