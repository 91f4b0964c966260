"""Reauthorization: with a refresh token that a person supplies, or a device code (RFC 8628); tried before it is stored."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from ops.errors import OpsError
from ops.runtime.db import Connection, Engine, persist
from ops.runtime.vault import Vault
from pipeline.store.admin import audit
from pipeline.store.mail import leases as mail_leases
from pipeline.store.mail import mailboxes
from schemas.access import By
from schemas.config.mailbox_kinds import MAILBOX_KINDS
from schemas.mailbox import Mailbox, OAuth
from workers.mail.api.exchange import Answer, Request
from workers.mail.mailbox_session import SourceError
from workers.mail.oauth.tokens import REFRESH_SECONDS, STORE_SECONDS, Granted, configured, grant_of, granted, seconds_within
from workers.net.terms import deployment

CODE_SECONDS: Final = 900.0  # to wait for a person to enter a code, at most
_PAUSE: Final = 5.0  # seconds between two polls, and by which a `slow_down` lengthens that; RFC 8628 §3.5
_PAUSES: Final = (1.0, 60.0)  # seconds: the shortest and the longest interval that is taken from the provider
_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_TOKEN_PATH: Final = "/oauth2/v2.0/token"  # noqa: S105 - a path; only Microsoft's device codes cover mail

#: The scope by kind, if none is configured: to read mail, and to refresh the token.
SCOPES: Final[Mapping[str, str]] = {kind.name: kind.scope for kind in MAILBOX_KINDS.values()}


@dataclass(frozen=True, slots=True)
class Code:
    """A device code. `message` tells a person which code to enter at which URL."""

    message: str
    device: str = field(repr=False)
    pause: float = _PAUSE
    seconds: float = CODE_SECONDS


def take_over(engine: Engine, vault: Vault, mailbox: Mailbox, refresh_token: str, who: By) -> bool:
    """Makes `refresh_token` the source of the mailbox's tokens and resumes its pulls; returns whether they were suspended.

    The token is tried first: if the provider refuses it, nothing changes, and this raises `OpsError`.
    """
    try:
        given = granted(_oauth(mailbox), refresh_token)
    except SourceError as error:
        raise OpsError(f"{_named(mailbox)}: the refresh token was tried, and {error}") from None
    return _store(engine, vault, mailbox, replace(given, refresh=given.refresh or refresh_token), who)


def with_code(
    engine: Engine,
    vault: Vault,
    mailbox: Mailbox,
    show: Callable[[str], None],
    who: By,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """As `take_over`, with a token that a person grants in any browser by entering the code passed to `show`."""
    oauth = _oauth(mailbox)
    code = ask_code(mailbox, oauth)
    show(code.message)
    return _store(engine, vault, mailbox, _wait(mailbox, oauth, code, sleep), who)


def ask_code(mailbox: Mailbox, oauth: OAuth) -> Code:
    """A code from the provider. Raises `OpsError` if the provider has none for mail."""
    if not oauth.token_url.endswith(_TOKEN_PATH):
        raise OpsError("only Microsoft gives codes for mail: give a refresh token instead, with --refresh-token")
    url = f"{oauth.token_url.removesuffix('/token')}/devicecode"
    answer = _post(mailbox, url, {"client_id": oauth.client_id, "scope": oauth.scope or SCOPES.get(mailbox.kind, "")})
    said = answer.json()
    try:
        seconds = seconds_within(said.get("expires_in"), CODE_SECONDS, 0.0, CODE_SECONDS)
        pause = seconds_within(said.get("interval"), _PAUSE, *_PAUSES)
        message = str(said.get("message") or f"Open {said['verification_uri']} and enter the code {said['user_code']}.")
        return Code(message[:1000], str(said["device_code"]), pause, seconds)
    except KeyError:
        raise OpsError(f"{_named(mailbox)}: no code was given: {_why(said) or f'answered {answer.status}'}") from None


def _wait(mailbox: Mailbox, oauth: OAuth, code: Code, sleep: Callable[[float], None]) -> Granted:
    form = {"grant_type": _GRANT, "device_code": code.device, "client_id": oauth.client_id}
    form |= {"client_secret": oauth.client_secret} if oauth.client_secret else {}
    until, pause = time.monotonic() + code.seconds, code.pause
    while time.monotonic() < until:
        sleep(pause)
        try:
            answer = _post(mailbox, oauth.token_url, form)
        except OpsError:  # the code stays valid
            continue
        error = answer.json().get("error")
        if error == "slow_down":
            pause += _PAUSE
        elif error != "authorization_pending" and answer.status < 500:
            return _whole(mailbox, answer)
    raise OpsError(f"{_named(mailbox)}: nobody entered the code in time; run the command again for another")


def _whole(mailbox: Mailbox, answer: Answer) -> Granted:
    try:
        given = grant_of(answer)
    except SourceError as error:
        raise OpsError(f"{_named(mailbox)}: {error}") from None
    if given.refresh is None:
        raise OpsError(f"{_named(mailbox)}: no refresh token was given; oauth.scope needs offline_access")
    return given


def _store(engine: Engine, vault: Vault, mailbox: Mailbox, given: Granted, who: By) -> bool:
    """Stores the tokens and resumes the pulls; tries again for `STORE_SECONDS` while Postgres is unavailable."""
    now = datetime.now(UTC)
    first = configured(mailbox, _oauth(mailbox), given.refresh)
    held = replace(first, access=given.access, until=now.timestamp() + given.seconds)
    sealed = held.seal(vault)
    resumed = False

    def store(conn: Connection) -> None:
        nonlocal resumed
        mail_leases.revoke(conn, mailbox.id)  # otherwise a pull with the old token could still record a refusal
        mailboxes.put_tokens(conn, mailbox.id, sealed)
        moved = mailboxes.move_from(conn, mailbox.id, "needs_reauthorization", "active", now)
        audit.record(conn, who, "mailbox reauthorize", {"tenant": mailbox.tenant, "mailbox": mailbox.name}, 1, now, "done")
        if moved:
            mailboxes.note(conn, mailbox.id, "mailbox_active", f"authorised anew by {who}", now)
            resumed = True  # kept if the answer to COMMIT is lost and the next try finds it active

    persist(engine, STORE_SECONDS, store, longest=1.0)  # the provider may have invalidated the token before this one
    return resumed


def _oauth(mailbox: Mailbox) -> OAuth:
    if mailbox.oauth is None:
        raise OpsError(f"{_named(mailbox)} logs in with a password: change it in the configuration, and `waxseal apply` that")
    return mailbox.oauth


def _post(mailbox: Mailbox, url: str, form: Mapping[str, str]) -> Answer:
    from workers.mail.api.http_client import MailHttp  # noqa: PLC0415 - loads aiohttp

    with MailHttp(deployment()) as http:
        answer = http.ask([Request(url, {"Accept": "application/json"}, form)], REFRESH_SECONDS)[0]
    if not isinstance(answer, Answer):
        raise OpsError(f"{_named(mailbox)}: {answer or 'the answer is too large'}")
    return answer


def _why(said: Mapping[str, Any]) -> str:
    return f"{said['error']}: {said.get('error_description', '')}"[:300] if "error" in said else ""


def _named(mailbox: Mailbox) -> str:
    return f"{mailbox.tenant}/{mailbox.name}"
