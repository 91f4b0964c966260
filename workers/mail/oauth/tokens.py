"""Access tokens of mailboxes (RFC 6749 §6): refreshed when needed, by one process at a time, and stored before they are used.

A refresh may return a new refresh token that invalidates the old one. It is stored, sealed, in the same transaction as the new
access token, which is never used before. If the process dies between the provider's answer and that transaction, the new token
is lost; the old one is tried again, which Google and Microsoft accept.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from math import isnan
from typing import Any, Final

import structlog

from ops.errors import OpsError
from ops.runtime.db import Engine, passes, persist, transaction
from ops.runtime.vault import Vault
from ops.telemetry import metrics
from pipeline.formats.timestamps import retry_after
from pipeline.store.mail import tokens as store
from schemas.mailbox import Mailbox, OAuth
from workers.mail.api.exchange import Answer, Request
from workers.mail.mailbox_session import Away, Refused, SourceError, Throttled, Token
from workers.net.terms import deployment

REFRESH_SECONDS: Final = 20.0  # for the provider to answer
CLAIM_SECONDS: Final = 40.0  # for which one process alone may refresh; longer than a refresh and its storing take
SPARE_SECONDS: Final = 120.0  # a token that expires sooner is refreshed
STORE_SECONDS: Final = 15.0  # for retries of storing a token that was granted
_DEFAULT_LIFE: Final = 300.0  # seconds, if the provider gives none
_LONGEST_LIFE: Final = 86_400.0  # seconds, even if the provider gives more
_PATIENCE: Final = 30.0  # seconds, if the provider throttles without a Retry-After
_LOOK: Final = 0.1  # seconds between two looks at another process's refresh
_MAX_ANSWER: Final = 256 * 1024

#: Errors of RFC 6749 §5.2, OpenID Connect and Microsoft that a retry does not fix: somebody has to act.
_FINAL: Final = frozenset(
    {"invalid_grant", "interaction_required", "consent_required", "login_required", "invalid_client", "unauthorized_client"}
    | {"invalid_scope", "unsupported_grant_type", "access_denied", "invalid_request", "deleted_client", "disabled_client"}
)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """The stored tokens of a mailbox. Times are seconds since 1970, by the clock of Postgres."""

    mailbox: int  # the mailbox's id: a value copied to another mailbox's row is rejected
    configured: str  # digest of the configured refresh token from which these are derived
    refresh: str = field(repr=False)
    access: str | None = field(default=None, repr=False)
    until: float = 0.0
    claimed: float = 0.0  # until when a process is refreshing

    def seal(self, vault: Vault) -> bytes:
        """The encrypted form, to be stored."""
        return vault.encrypt(json.dumps(asdict(self)).encode())


def configured(mailbox: Mailbox, oauth: OAuth, refresh_token: str | None = None) -> StoredTokens:
    """The tokens before any refresh: the configured refresh token, or the one given in its place."""
    return StoredTokens(mailbox.id, _digest(oauth), refresh_token or oauth.refresh_token)


class Tokens:
    """The access tokens of all mailboxes. Safe to use from any thread and in several processes at once."""

    def __init__(self, engine: Engine, vault: Vault, sleep: Callable[[float], None] = time.sleep) -> None:
        self._engine = engine
        self._vault = vault
        self._sleep = sleep

    def of(self, mailbox: Mailbox) -> Token | None:
        """The source of the mailbox's access tokens; None for a mailbox without `oauth`."""
        return _Token(self, mailbox, mailbox.oauth) if mailbox.oauth is not None else None

    def access(self, mailbox: Mailbox, oauth: OAuth, refused: str | None = None) -> str:
        """A token other than `refused`, valid for `SPARE_SECONDS`. Refreshes, or waits for another process's refresh."""
        until = time.monotonic() + CLAIM_SECONDS
        while True:
            sealed, held, now = self._read(mailbox, oauth)
            if held.access is not None and now + SPARE_SECONDS < held.until and held.access != refused:
                return held.access
            if held.claimed <= now:
                claim = replace(held, claimed=now + CLAIM_SECONDS)
                if self._swap(mailbox, sealed, ours := claim.seal(self._vault)):
                    return self._refresh(mailbox, oauth, ours, claim, now)
            if time.monotonic() > until:
                raise Away("another process has been refreshing the token for too long")
            self._sleep(_LOOK)

    def _refresh(self, mailbox: Mailbox, oauth: OAuth, ours: bytes, held: StoredTokens, now: float) -> str:
        try:
            given = granted(oauth, held.refresh)
        except SourceError as error:
            outcome = "refused" if isinstance(error, Refused) else "failed"
            metrics.observe_token_refresh(mailbox.kind, outcome)
            _log.warning("token_not_refreshed", tenant=mailbox.tenant, mailbox=mailbox.name, outcome=outcome, error=str(error))
            with suppress(SourceError):  # the claim expires anyway
                self._swap(mailbox, ours, replace(held, claimed=0.0).seal(self._vault))
            raise
        refresh, until = given.refresh or held.refresh, now + given.seconds
        self._store(mailbox, oauth, ours, held, replace(held, refresh=refresh, access=given.access, until=until, claimed=0.0))
        metrics.observe_token_refresh(mailbox.kind, "refreshed")
        rotated = given.refresh not in (None, held.refresh)
        _log.info("token_refreshed", tenant=mailbox.tenant, mailbox=mailbox.name, rotated=rotated, seconds=given.seconds)
        return given.access

    def _store(self, mailbox: Mailbox, oauth: OAuth, ours: bytes, held: StoredTokens, fresh: StoredTokens) -> None:
        """Stores the tokens durably. Tokens stored meanwhile by others stay, unless they hold the used refresh token."""
        sealed = fresh.seal(self._vault)
        if self._swap(mailbox, ours, sealed, STORE_SECONDS):
            return
        standing, other, _ = self._read(mailbox, oauth)
        if standing == sealed or (other.configured, other.refresh) != (held.configured, held.refresh):
            return
        self._swap(mailbox, standing, sealed, STORE_SECONDS)

    def _read(self, mailbox: Mailbox, oauth: OAuth) -> tuple[bytes | None, StoredTokens, float]:
        """The stored tokens, sealed and open, and the time. They are ignored if another refresh token was configured since."""
        with _database_errors_as_away(), transaction(self._engine) as conn:
            stored = store.read(conn, mailbox.id)
        if stored is None:
            raise Away("the mailbox is not configured any more")
        first = configured(mailbox, oauth)
        held = first if stored.sealed is None else unsealed(stored.sealed, mailbox, self._vault)
        return stored.sealed, held if held.configured == first.configured else first, stored.now.timestamp()

    def _swap(self, mailbox: Mailbox, old: bytes | None, new: bytes, seconds: float = 0.0) -> bool:
        with _database_errors_as_away():
            return persist(self._engine, seconds, lambda conn: store.swap(conn, mailbox.id, old, new), longest=1.0)


@dataclass(slots=True)
class _Token:
    """The token of one mailbox, for one session."""

    _tokens: Tokens
    _mailbox: Mailbox
    _oauth: OAuth
    _given: str | None = field(default=None, repr=False)

    def __call__(self, *, fresh: bool = False) -> str:
        if fresh and self._given is None:
            self()
        self._given = self._tokens.access(self._mailbox, self._oauth, self._given if fresh else None)
        return self._given


@dataclass(frozen=True, slots=True)
class Granted:
    """The tokens that the provider granted. `seconds` is the access token's lifetime."""

    access: str = field(repr=False)
    seconds: float
    refresh: str | None = field(repr=False)


def granted(oauth: OAuth, refresh_token: str) -> Granted:
    """Sends one request to the token endpoint. Raises `Refused` if consent has ended, otherwise `Throttled` or `Away`."""
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": oauth.client_id}
    form |= {"client_secret": oauth.client_secret} if oauth.client_secret else {}
    form |= {"scope": oauth.scope} if oauth.scope else {}
    from workers.mail.api.http_client import MailHttp  # noqa: PLC0415 - loads aiohttp

    request = Request(oauth.token_url, {"Accept": "application/json"}, form, _MAX_ANSWER)
    with MailHttp(deployment()) as http:
        answer = http.ask([request], REFRESH_SECONDS)[0]
    if not isinstance(answer, Answer):
        raise answer or Away("the token endpoint's answer is too large")
    try:
        return grant_of(answer)
    except (Refused, Away) as error:
        secrets = (refresh_token, oauth.client_secret or refresh_token)
        if any(each[:20] in str(error) for each in secrets):  # the text may be cut, so a prefix is compared
            raise type(error)(f"the token endpoint answered {answer.status}, and repeats what it was sent") from None
        raise


def grant_of(answer: Answer) -> Granted:
    """The tokens in a token endpoint's answer. Raises as `granted` does."""
    said = answer.json()
    if answer.status == 429:
        raise Throttled(
            "the token endpoint throttles", retry_after(answer.headers.get("retry-after"), datetime.now(UTC)) or _PATIENCE
        )
    if answer.ok and isinstance(said.get("access_token"), str):
        return Granted(
            _safe_token(said["access_token"]),
            seconds_within(said.get("expires_in"), _DEFAULT_LIFE, 0.0, _LONGEST_LIFE),
            _refresh_token(said),
        )
    code, why = str(said.get("error") or "")[:100], str(said.get("error_description") or "")[:300]
    text = (
        f"the token endpoint answered {answer.status} {code}: {why}" if code else f"the token endpoint answered {answer.status}"
    )
    raise Refused(text) if code in _FINAL and 400 <= answer.status < 500 else Away(text)


def seconds_within(said: Any, default: float, least: float, most: float) -> float:
    """The seconds that a provider gives, as a number or as text, within bounds; `default` if they are no number."""
    try:
        seconds = float(said)
    except (TypeError, ValueError, OverflowError):
        return default
    return default if isnan(seconds) else min(max(seconds, least), most)


def _refresh_token(said: dict[str, Any]) -> str | None:
    given = said.get("refresh_token")
    return given if isinstance(given, str) and given else None


def _safe_token(token: str) -> str:
    """The token, if it is safe in a header (RFC 6750 §2.1) and in SASL, whose separators are control characters."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Away("the token endpoint returned an invalid token")
    return token


def unsealed(sealed: bytes, mailbox: Mailbox, vault: Vault) -> StoredTokens:
    """The tokens sealed for this mailbox. Raises `Away` if they cannot be decrypted, `Refused` if another mailbox owns them."""
    try:
        held = StoredTokens(**json.loads(vault.decrypt(sealed)))
    except OpsError as error:
        raise Away(str(error)) from None
    if held.mailbox != mailbox.id:
        raise Refused("the stored tokens are those of another mailbox; give this one its own: waxseal mailbox reauthorize")
    return held


def _digest(oauth: OAuth) -> str:
    return hashlib.sha256(f"{oauth.client_id}\0{oauth.refresh_token}".encode()).hexdigest()


@contextmanager
def _database_errors_as_away() -> Iterator[None]:
    """Raises `Away` if Postgres is unavailable."""
    try:
        yield
    except Exception as error:
        if passes(error):
            raise Away(f"Postgres: {type(error).__name__}") from error
        raise
