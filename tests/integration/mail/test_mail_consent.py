"""New consent: it is tried first and stored encrypted, and then the mailbox is pulled again."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from ops.cli.mail.reauthorize import reauthorize
from ops.errors import OpsError
from ops.runtime.db import transaction
from pipeline.store.mail import mailboxes
from schemas.mailbox import Mailbox
from support.mail.api import Said
from support.mail.gmail import Gmail
from support.mail.mailboxes import added, mailbox_of
from workers.mail.oauth import consent
from workers.mail.oauth.consent import with_code
from workers.mail.oauth.tokens import Tokens


@pytest.fixture
def mailbox(database, engine, graph) -> Mailbox:
    """A mailbox whose consent was revoked."""
    mailbox = added(database, mailbox_of(graph))
    graph.tokens.revoke()
    graph.tokens.refresh.add("new-consent")
    with transaction(engine) as conn:
        mailboxes.move(conn, mailbox.id, "needs_reauthorization", "invalid_grant", datetime.now(UTC))
    return mailbox


@pytest.fixture
def command(database, mailbox) -> Callable[..., Result]:
    def command(*options: str, name: str = "support", **more: str) -> Result:
        env = {"WAXSEAL_DATABASE_URL": database.worker_url, "WAXSEAL_KEYS": database.key, "NEW": "new-consent"}
        arguments = ["acme", name, "--by", "kim", *options]
        return CliRunner().invoke(reauthorize, arguments, env=env, input=more.get("input"))

    return command


def state(database) -> list[tuple]:
    return database.rows("SELECT state, reason FROM mailbox")


def test_a_new_refresh_token_is_stored_and_the_mailbox_pulled_again(database, engine, graph, mailbox, command) -> None:
    ended = command("--refresh-token", "env:NEW")

    assert (0, "acme/support has a new token; it is pulled again\n") == (ended.exit_code, ended.output)
    assert [("active", None)] == state(database)
    token = Tokens(engine, database.vault).of(mailbox)
    assert token is not None
    assert ["access-1", "access-2"] == [token(), token(fresh=True)]
    assert ["new-consent", "refresh-1"] == [asked.form["refresh_token"] for asked in graph.asked]
    assert [("mailbox_active", "authorised anew by kim")] == database.rows("SELECT kind, detail FROM operator_event")
    assert [("kim", "mailbox reauthorize")] == database.rows("SELECT who, act FROM audit")


@pytest.mark.parametrize("step", ["put_tokens", "note"])
def test_a_granted_token_is_stored_though_postgres_is_away_for_a_moment(
    database, engine, graph, mailbox, monkeypatch, step: str
) -> None:
    real, failures = getattr(mailboxes, step), iter([psycopg.OperationalError("gone")] * 2)

    def away_at_first(*arguments: object) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        real(*arguments)

    monkeypatch.setattr(mailboxes, step, away_at_first)

    assert consent.take_over(engine, database.vault, mailbox, "new-consent", "kim")

    assert 1 == len(graph.asked)
    assert [("active", None)] == state(database)
    assert [(1,)] == database.rows("SELECT count(*) FROM audit")
    token = Tokens(engine, database.vault).of(mailbox)
    assert token is not None
    assert "access-1" == token()


def test_a_token_may_come_from_a_file_or_from_standard_input(command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("new-consent\n")

    assert 0 == command("--refresh-token", f"file:{tmp_path}/token").exit_code
    again = command("--json", input="new-consent\n")
    assert '{"tenant":"acme","mailbox":"support","changed":false}' == again.stdout.strip().replace(" ", "")


def test_a_token_that_does_not_work_changes_nothing(database, command) -> None:
    ended = command(input="stale")

    assert isinstance(ended.exception, OpsError)
    assert "the refresh token was tried" in str(ended.exception)
    assert "AADSTS50173" in str(ended.exception)
    assert [("needs_reauthorization", "invalid_grant")] == state(database)
    assert [(None,)] == database.rows("SELECT tokens FROM mailbox")


@pytest.mark.parametrize("given", ["new-consent", "env:NOT_SET", "file:/nowhere"])
def test_a_token_on_the_command_line_or_nowhere_is_refused(command, given: str) -> None:
    ended = command("--refresh-token", given)

    assert 2 == ended.exit_code
    assert "--refresh-token" in ended.output


def test_no_token_and_no_such_mailbox_are_told_apart(command) -> None:
    assert "that is no token" in command(input="\n").output
    assert "there is no mailbox acme/other" in str(command("--refresh-token", "env:NEW", name="other").exception)
    assert "give --device or --refresh-token" in command("--device", "--refresh-token", "env:NEW").output


def test_a_mailbox_with_a_password_is_configured_anew(database, command) -> None:
    added(database, Mailbox(2, "acme", "imap", "imap", "u", host="imap.example", password="p"))

    assert "logs in with a password" in str(command("--refresh-token", "env:NEW", name="imap").exception)


def test_a_code_is_shown_and_waited_for(database, engine, graph, mailbox) -> None:
    graph.tokens.pending = ["authorization_pending", "slow_down", "authorization_pending"]
    graph.instead("/token", "drop")  # one failure
    shown: list[str] = []
    slept: list[float] = []

    assert with_code(engine, database.vault, mailbox, shown.append, "kim", slept.append)

    assert ["To sign in, enter the code GTHK-QPMN."] == shown
    assert [5, 5, 5, 10, 10] == slept
    assert consent.SCOPES["graph"] == graph.asked[0].form["scope"]
    assert [("active", None)] == state(database)
    token = Tokens(engine, database.vault).of(mailbox)
    assert token is not None
    assert ("access-1", "access-2") == (token(), token(fresh=True))


def test_a_provider_without_words_of_its_own_is_spoken_for(database, engine, graph, mailbox) -> None:
    given = {"user_code": "U", "device_code": "D", "verification_uri": "https://x.example"}
    graph.instead("/devicecode", Said(200, given))
    shown: list[str] = []

    with_code(engine, database.vault, mailbox, shown.append, "kim", lambda _: None)

    assert ["Open https://x.example and enter the code U."] == shown


@pytest.mark.parametrize("error", ["access_denied", "expired_token"])
def test_a_code_that_was_declined_changes_nothing(database, engine, graph, mailbox, error: str) -> None:
    graph.tokens.pending = [error]

    with pytest.raises(OpsError, match=error):
        with_code(engine, database.vault, mailbox, lambda _: None, "kim", lambda _: None)
    assert "needs_reauthorization" == state(database)[0][0]


def test_a_code_that_nobody_enters_is_not_waited_for_without_end(database, engine, graph, mailbox, monkeypatch) -> None:
    monkeypatch.setattr(consent, "CODE_SECONDS", 0.2)
    graph.tokens.pending = ["authorization_pending"] * 1000

    with pytest.raises(OpsError, match="nobody entered the code in time"):
        with_code(engine, database.vault, mailbox, lambda _: None, "kim", lambda _: time.sleep(0.05))


def test_a_consent_that_does_not_last_is_refused(database, engine, graph, mailbox) -> None:
    graph.tokens.rotates = False

    with pytest.raises(OpsError, match="offline_access"):
        with_code(engine, database.vault, mailbox, lambda _: None, "kim", lambda _: None)


def test_a_provider_without_codes_says_so(database, engine, graph, mailbox, command) -> None:
    gmail = mailbox_of(Gmail())
    with pytest.raises(OpsError, match="only Microsoft"):
        with_code(engine, database.vault, gmail, lambda _: None, "kim")
    graph.instead("/devicecode", Said(400, {"error": "unauthorized_client", "error_description": "AADSTS7000218"}))

    assert "no code was given: unauthorized_client: AADSTS7000218" in str(command("--device").exception)
