"""An OpenID provider as we ask it: where its endpoints are, which keys it signs with, and what a code is worth.

Everything here blocks, for threads. A request has a deadline and a bound on its answer, follows no redirect, and reaches no
private address that WAXSEAL_ALLOW_NETWORKS does not list.
"""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from joserfc.jwk import Key

from ops.console_settings import read_algorithms
from ops.settings import Settings
from workers.console.access.id_token import usable_keys
from workers.mail.api.exchange import Answer, Request
from workers.net.terms import terms_of

SECONDS: Final = 10.0  # for one answer
LARGEST: Final = 256 * 1024  # bytes of it
KNOWN_FOR: Final = 3600.0  # seconds for which metadata and keys are kept
AGAIN_AFTER: Final = 60.0  # seconds between two looks for a key that is unknown
_WELL_KNOWN: Final = "/.well-known/openid-configuration"


class ProviderAway(Exception):
    """The provider did not answer as it must; the text says what it was, for the log."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the provider gives for a code."""

    id_token: str = field(repr=False)
    access_token: str = field(repr=False)


class Provider:
    """The provider of the settings; what it published is kept for an hour, for all threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()  # held while it is asked, so that many logins ask once
        self._metadata: Mapping[str, Any] = {}
        self._read_at = float("-inf")
        self._keys: list[Key] = []
        self._keys_at = float("-inf")

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that its ID tokens may be signed by."""
        return read_algorithms(self._settings.oidc_algorithms)

    def login_address(self, parameters: Mapping[str, str]) -> str:
        """Where a person logs in. Raises `ProviderAway`."""
        endpoint = self._endpoint("authorization_endpoint")
        ours = {"response_type": "code", "client_id": self._settings.oidc_client, "scope": self._settings.oidc_scopes}
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode({**ours, **parameters}, quote_via=quote)}"

    def names_itself(self) -> bool:
        """Whether it says who it is when a person comes back (RFC 9207). Raises `ProviderAway`."""
        return self._known().get("authorization_response_iss_parameter_supported") is True

    def redeem(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """The tokens for a code. Raises `ProviderAway`."""
        settings = self._settings
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
        headers = {}
        methods = self._known().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if settings.oidc_secret and "client_secret_basic" in methods:
            pair = f"{quote(settings.oidc_client, safe='')}:{quote(settings.oidc_secret, safe='')}"  # RFC 6749, 2.3.1
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = settings.oidc_client
            if settings.oidc_secret:
                form["client_secret"] = settings.oidc_secret
        said = self._asked(self._endpoint("token_endpoint"), headers, form)
        id_token, access_token = said.get("id_token"), said.get("access_token")
        if not isinstance(id_token, str):
            raise ProviderAway("the answer to a code has no ID token")
        return Tokens(id_token, access_token if isinstance(access_token, str) else "")

    def about(self, tokens: Tokens) -> Mapping[str, Any]:
        """What it says about the person beside the ID token; nothing if it has no such endpoint. Raises `ProviderAway`."""
        if not tokens.access_token or "userinfo_endpoint" not in self._known():
            return {}
        return self._asked(self._endpoint("userinfo_endpoint"), {"Authorization": f"Bearer {tokens.access_token}"}, None)

    def key(self, kid: str | None) -> Key | None:
        """The key with this id, looked for anew once a minute if it is unknown; without an id, the only one.

        Raises `ProviderAway`.
        """
        with self._lock:
            age = time.monotonic() - self._keys_at
            found = self._find(kid)
            if age > KNOWN_FOR or (found is None and age > AGAIN_AFTER):
                self._keys_at = time.monotonic()
                self._keys = usable_keys(self._asked(self._read_endpoint("jwks_uri"), {}, None))
                found = self._find(kid)
        return found

    def _find(self, kid: str | None) -> Key | None:
        keys = [key for key in self._keys if kid is None or key.kid == kid]
        return keys[0] if len(keys) == 1 or (keys and kid is not None) else None

    def _endpoint(self, name: str) -> str:
        with self._lock:
            return self._read_endpoint(name)

    def _read_endpoint(self, name: str) -> str:
        url = self._read().get(name)
        schemes = ("https",) if self._settings.oidc_issuer.startswith("https:") else ("https", "http")
        if not isinstance(url, str) or urlsplit(url).scheme not in schemes or not urlsplit(url).hostname:
            raise ProviderAway(f"its {name} is {url!r:.100}")
        return url

    def _known(self) -> Mapping[str, Any]:
        with self._lock:
            return self._read()

    def _read(self) -> Mapping[str, Any]:
        if time.monotonic() - self._read_at <= KNOWN_FOR:
            return self._metadata
        issuer = self._settings.oidc_issuer
        said = self._asked(issuer.rstrip("/") + _WELL_KNOWN, {}, None)
        if said.get("issuer") != issuer:
            raise ProviderAway(f"it calls itself {said.get('issuer')!r:.200}, and WAXSEAL_OIDC_ISSUER is {issuer!r}")
        self._metadata, self._read_at = said, time.monotonic()
        return said

    def _asked(self, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None) -> dict[str, Any]:
        from workers.mail.api.http_client import MailHttp  # noqa: PLC0415 - loads aiohttp, which only logins need

        with MailHttp(terms_of(self._settings)) as http:
            answer = http.ask([Request(url, {"Accept": "application/json", **headers}, form, LARGEST)], SECONDS)[0]
        if not isinstance(answer, Answer) or answer.too_large:
            raise ProviderAway(str(answer) if answer is not None and not isinstance(answer, Answer) else f"{url}: too large")
        if answer.status != 200:
            said = answer.json()
            why = f"{said.get('error', '')} {said.get('error_description', '')}".strip()
            raise ProviderAway(f"{urlsplit(url).hostname}{urlsplit(url).path}: status {answer.status} {why:.200}")
        return answer.json()
