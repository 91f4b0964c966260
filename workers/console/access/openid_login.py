"""Logging in at an OpenID provider: to it by a link, and back with a code (authorization code flow, PKCE S256)."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import Any, Final

import structlog
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ops.admin.access import attempts, sessions
from ops.admin.access.attempts import LASTS
from ops.admin.access.cross_site import is_loopback
from ops.admin.access.rates import LOGINS, RETURNS, Rate, exceeded
from ops.admin.access.sessions import Person
from ops.console_settings import granted, openid_policy, read_grants
from pipeline.store.access.attempts import Attempt
from workers.console.access.id_token import Expected, NotBelieved, claims_of
from workers.console.access.login import LOGIN, logged_in, login_page, safe_next, visitor_of
from workers.console.access.provider import Provider, ProviderAway
from workers.console.call import Console, Refused, address_of

COOKIE: Final = "__Host-waxseal-login"
CALLBACK: Final = "/login/callback"
AT_ONCE: Final = 4  # logins that wait for the provider
MOST_GROUPS: Final = 10_000
_LEEWAY: Final = timedelta(seconds=60)
_LONGEST_NAME: Final = 200

_log = structlog.get_logger()


def routes(console: Console) -> list[BaseRoute]:
    """The routes of logins by OpenID; none if no provider is configured."""
    if not console.settings.oidc_issuer:
        return []
    logins = _Logins(console)
    return [Route(f"{LOGIN}/openid", logins.leave, methods=["GET"]), Route(CALLBACK, logins.come_back, methods=["GET"])]


class _NotLoggedIn(Exception):
    """Why somebody is not logged in, as they get to read it."""

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.status = status


class _Logins:
    """A provider that hangs keeps threads of its own waiting, and none of those that answer other requests."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._settings = console.settings
        self._provider = Provider(console.settings)
        self._waiting = CapacityLimiter(AT_ONCE)

    async def leave(self, request: Request) -> Response:
        """Begins a login, and leads to the provider."""
        return await to_thread.run_sync(self._answered, request, self._leave, LOGINS, limiter=self._waiting)

    async def come_back(self, request: Request) -> Response:
        """Completes a login."""
        return await to_thread.run_sync(self._answered, request, self._come_back, RETURNS, limiter=self._waiting)

    def _answered(self, request: Request, step: "_Step", rate: Rate) -> Response:
        try:
            if seconds := exceeded(self._console.acts, rate, address_of(request)):
                wait = f"Too many logins from your address: wait {seconds} s."
                return login_page(self._console, request, wait, 429, **{"Retry-After": str(seconds)})
            return step(request)
        except ProviderAway as error:
            _log.warning("login_provider_away", error=str(error), request_id=request.state.id)
            why = "The provider does not answer as it must; the log says what is wrong. Try again, or log in by a token."
            return login_page(self._console, request, why, 503)
        except NotBelieved as error:
            _log.warning("login_not_believed", error=str(error), request_id=request.state.id)
            return login_page(
                self._console, request, "What the provider says of you is not to be believed; the log says why.", 403
            )
        except _NotLoggedIn as error:
            return login_page(self._console, request, str(error), error.status)

    def _leave(self, request: Request) -> Response:
        fresh = "fresh" in request.query_params
        back = self._callback(request)
        begun = attempts.start(
            self._console.acts, request.cookies.get(COOKIE), safe_next(request.query_params.get("next")), fresh=fresh
        )
        if begun is None:
            raise _NotLoggedIn("Too many logins are under way: try again in a few minutes, or log in by a token.", 503)
        # With max_age a provider must say when the person logged in there (OpenID Connect Core 1.0, 2, `auth_time`).
        anew = {"prompt": "login", "max_age": "0"} if fresh else {"max_age": str(int(sessions.LONGEST.total_seconds()))}
        asked = {
            "redirect_uri": back,
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": begun.challenge,
            "code_challenge_method": "S256",
            **anew,
        }
        address = self._provider.login_address(asked)
        answer = RedirectResponse(address, 303)
        seconds = int(LASTS.total_seconds())
        answer.set_cookie(COOKIE, begun.browser, seconds, path="/", secure=True, httponly=True, samesite="lax")
        return answer

    def _come_back(self, request: Request) -> Response:
        said = request.query_params
        attempt = attempts.take(self._console.acts, said.get("state", ""), request.cookies.get(COOKIE, ""))
        if attempt is None:
            raise _NotLoggedIn("This login has ended, or began in another browser: begin anew.", 400)
        if said.get("iss", self._settings.oidc_issuer) != self._settings.oidc_issuer or (
            "iss" not in said and self._provider.names_itself()
        ):
            raise NotBelieved("another provider answers (RFC 9207)")
        if "error" in said or not said.get("code"):
            shown = "".join(each for each in said.get("error", "no code")[:80] if each.isprintable())
            raise _NotLoggedIn(f"The provider did not log you in: {shown}.", 403)
        person = self._person(request, said["code"], attempt)
        return logged_in(sessions.begin_by_openid(self._console.acts, person, visitor_of(request)), attempt.next)

    def _person(self, request: Request, code: str, attempt: Attempt) -> Person:
        settings = self._settings
        tokens = self._provider.redeem(code, attempt.verifier, self._callback(request))
        expected = Expected(settings.oidc_issuer, settings.oidc_client, attempt.nonce, self._provider.algorithms)
        claims = claims_of(tokens.id_token, self._provider.key, expected)
        if settings.oidc_groups not in claims:
            more = self._provider.about(tokens)
            if not compare_digest(str(more.get("sub", "")).encode(), str(claims["sub"]).encode()):
                more = {}  # of somebody else (OpenID Connect Core, 5.3.2)
            claims = {**more, **claims}
        fresh_at = _logged_in_at(claims)
        if attempt.fresh and (fresh_at is None or fresh_at < attempt.begun_at - _LEEWAY):
            raise _NotLoggedIn("The provider did not ask you anew who you are, or does not say when it did (auth_time).", 403)
        grants = granted(read_grants(settings.oidc_grants), _groups(claims, settings.oidc_groups))
        who = _name(claims, settings.oidc_name)
        if not grants:
            sessions.turn_away(self._console.acts, who, settings.oidc_issuer, claims["sub"], visitor_of(request))
            why = f"You are {who}, but in no group that may do anything here: ask who runs this console (WAXSEAL_OIDC_GRANTS)."
            raise _NotLoggedIn(why, 403)
        policy, lasts = openid_policy(settings) or "", timedelta(hours=settings.oidc_session)
        return Person(who, settings.oidc_issuer, claims["sub"], policy, grants, fresh_at, lasts)

    def _callback(self, request: Request) -> str:
        """Where the provider sends people back to; the Host header is believed on the loopback only."""
        host = request.headers.get("host", "")
        if self._settings.console_url:
            return self._settings.console_url.rstrip("/") + CALLBACK
        if not is_loopback(host):
            raise Refused(409, "no_address", "logins by OpenID need WAXSEAL_CONSOLE_URL, the console's address")
        return f"http://{host}{CALLBACK}"


_Step = Callable[[Request], Response]


def _logged_in_at(claims: Mapping[str, Any]) -> datetime | None:
    """When the person last proved to the provider who they are; None if it does not say so, or names a time to come."""
    at = claims.get("auth_time")
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 <= at < 1e11:
        return None
    moment, now = datetime.fromtimestamp(at, UTC), datetime.now(UTC)
    return min(moment, now) if moment <= now + _LEEWAY else None


def _groups(claims: Mapping[str, Any], name: str) -> list[str]:
    given = claims.get(name)
    listed = given if isinstance(given, list) else [given]
    return [each for each in listed[:MOST_GROUPS] if isinstance(each, str)]


def _name(claims: Mapping[str, Any], name: str) -> str:
    """What the audit calls the person. An address that the provider has not verified is not used: anybody may claim it."""
    given = claims.get(name)
    usable = isinstance(given, str) and given.strip() and given.isprintable() and len(given) <= _LONGEST_NAME
    if not usable or (name == "email" and claims.get("email_verified") is False):
        return str(claims["sub"])
    return str(given).strip()
