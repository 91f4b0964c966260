"""The settings of the console and its API."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class ConsoleSettings(BaseSettings):
    """What `Settings` has for the console."""

    console_host: str = Field("127.0.0.1", description="address that the console and the API listen on")
    console_port: int = Field(8430, ge=0, le=65535, description="its port; 0: any free one")
    console_url: str = Field(
        "",
        description="the console's address as browsers see it, https://console.example. Unset: http://, its host and port. "
        "Forms from other addresses are refused",
    )
    console_pool: int = Field(4, ge=1, le=64, description="connections to Postgres for pages, and as many again for acts")
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
    console_environment: str = Field(
        "",
        description="environment variables of the console's process that an uploaded configuration may name as env:NAME, "
        "comma-separated, * for any letters. Unset: none",
    )
    console_theme: Literal["auto", "light", "dark"] = Field("auto", description="look of the pages, until a browser chooses")
