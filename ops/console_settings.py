"""The settings of the console and its API."""

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

from pipeline.delivery.addresses import networks
from schemas.access import EVERYWHERE, ROLES, Role

_TENANT: Final = re.compile(r"[a-z0-9-]+", re.ASCII)

#: Signatures of ID tokens that only the provider can make.
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"}
)

Grants = Mapping[str, Sequence[tuple[str, Role]]]
"""What members of a group may do: a role for a tenant, or for `EVERYWHERE`."""


def read_grants(text: str) -> Grants:
    """The grants of each group in `GROUP=ROLE@TENANT, GROUP=ROLE`. Raises ValueError that names the wrong piece."""
    found: dict[str, list[tuple[str, Role]]] = {}
    for piece in filter(None, map(str.strip, text.split(","))):
        group, _, grant = piece.rpartition("=")
        name, at, tenant = grant.partition("@")
        role = next((each for each in ROLES if each == name), None)
        if not group or role is None or (at and not _TENANT.fullmatch(tenant)):
            raise ValueError(f"{piece!r:.80} is not GROUP=ROLE or GROUP=ROLE@TENANT; roles are {', '.join(ROLES)}")
        found.setdefault(group, []).append((tenant or EVERYWHERE, role))
    return found


def granted(grants: Grants, groups: Iterable[str]) -> dict[str, Role]:
    """What somebody in these groups may do: of several roles in one place, the highest."""
    roles: dict[str, Role] = {}
    for where, role in (each for group in groups for each in grants.get(group, ())):
        roles[where] = max(role, roles.get(where, role), key=ROLES.index)
    return roles


def read_algorithms(text: str) -> list[str]:
    """The algorithms in a list. Raises ValueError for one that is unknown, or that the console could sign with, too."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in ALGORITHMS]
    if wrong or not names:
        raise ValueError(f"{', '.join(wrong) or 'nothing'} cannot be taken; choose of {', '.join(sorted(ALGORITHMS))}")
    return names


class ConsoleSettings(BaseSettings):
    """What `Settings` has for the console."""

    console_host: str = Field("127.0.0.1", description="address that the console and the API listen on")
    console_port: int = Field(8430, ge=0, le=65535, description="its port; 0: any free one")
    console_url: str = Field(
        "",
        description="the console's address as browsers see it, https://console.example. Unset: http://, its host and port. "
        "Forms from other addresses are refused",
    )
    console_proxies: str = Field(
        "",
        description="reverse proxies in front of the console, as comma-separated CIDRs: requests from there say in "
        "X-Forwarded-For which address is the client's, for the audit and the limits of logins",
    )
    console_pool: int = Field(4, ge=1, le=64, description="connections to Postgres for pages, and as many again for acts")
    console_share: float = Field(
        0.25,
        ge=0,
        le=64,
        description="seconds in each second, on average, that all reading together takes at most, with its statements; beyond "
        "it requests wait their turn, so that whoever reads without a pause does not slow ingest. 0: no bound",
    )
    console_patience: float = Field(2.0, gt=0, le=60, description="seconds after which a page's statement is given up")
    oidc_issuer: str = Field("", description="OpenID provider that people log in by: its issuer, a URL. Unset: by tokens only")
    oidc_client: str = Field("", description="the console's client id there")
    oidc_secret: str = Field("", repr=False, description="and its secret; none for a public client")
    oidc_algorithms: str = Field("RS256,ES256", description="algorithms of ID tokens that are taken, comma-separated")
    oidc_groups: str = Field("groups", description="claim that lists a person's groups")
    oidc_grants: str = Field(
        "",
        description="which group has which role where: GROUP=ROLE or GROUP=ROLE@TENANT, comma-separated; without a tenant, "
        "for all. A person in none of them may do nothing",
    )
    oidc_session: float = Field(
        8.0,
        gt=0,
        le=12,
        description="hours after which people log in there again; who has left a group loses its role then at the latest",
    )
    oidc_scopes: str = Field("openid email profile", description="what is asked of it; some providers need groups here too")
    console_environment: str = Field(
        "",
        description="environment variables of the console's process that an uploaded configuration may name as env:NAME, "
        "comma-separated, * for any letters. Unset: none",
    )
    oidc_name: str = Field("email", description="claim that names a person in the audit; without it, the subject does")
    console_theme: Literal["auto", "light", "dark"] = Field("auto", description="look of the pages, until a browser chooses")

    @field_validator("console_url", "oidc_issuer")
    @classmethod
    def _is_a_url(cls, url: str, info: ValidationInfo) -> str:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment or parts.username)
        if url and (not whole or (info.field_name == "console_url" and parts.path not in ("", "/"))):
            raise ValueError("must be https://host, or https://host:port")
        return url

    @field_validator("console_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        networks(text)
        return text

    @field_validator("oidc_grants")
    @classmethod
    def _are_grants(cls, text: str) -> str:
        read_grants(text)
        return text

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_algorithms(cls, text: str) -> str:
        read_algorithms(text)
        return text


def openid_policy(settings: ConsoleSettings) -> str | None:
    """Stands for the settings that give grants to those who log in by OpenID: whoever did so under others logs in again."""
    if not settings.oidc_issuer:
        return None
    said = (settings.oidc_issuer, settings.oidc_client, settings.oidc_groups, settings.oidc_grants)
    return sha256("\0".join(said).encode()).hexdigest()[:32]
