"""The configuration file: what it may say (CONTRACT §3). Shapes only; `ops.config.read_file` reads it and finds its lines."""

from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, model_validator

from schemas.config.endpoint import EndpointSpec, Rate
from schemas.config.mailbox import MailboxSpec
from schemas.config.values import BrokerUser, Extension, Kind, Rule, Secret, Size, Slug, Spec, Tolerance, checks
from schemas.source import Source


class TenantSpec(Spec):
    """A tenant."""

    name: Slug


class SourceSpec(Spec):
    """A source, its secrets in the clear."""

    tenant: Slug
    name: Slug
    kind: Kind
    secrets: list[Secret] = Field(default=[], repr=False)
    id: Rule | None = None
    type: Rule | None = None
    subject: Rule | None = None
    time: Rule | None = None
    extensions: dict[Extension, Rule] = Field({})
    max_body: Size | None = None
    tolerance: Tolerance | None = None
    options: dict[str, str] = Field({})
    rate_limit: Rate | None = None
    users: Annotated[list[BrokerUser], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _suits_its_kind(self, info: ValidationInfo) -> Self:
        problems = checks(info).source(self.source())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def source(self) -> Source:
        """The source as it is wanted."""
        settings = self.settings()
        users = tuple(settings.pop("users", ()))
        return Source(self.tenant, self.name, self.kind, tuple(self.secrets), users=users, **settings)

    def settings(self) -> dict[str, Any]:
        """What was said, of that which is stored as settings; a default that was not asked for is not stored."""
        rules = ("id", "type", "subject", "time", "extensions")
        return self.said(*rules, "max_body", "tolerance", "rate_limit", "options", "users")


class ConfigFile(Spec):
    """The whole file. That names are unique, and every tenant that is named is there, has been seen to."""

    tenants: list[TenantSpec] = Field([])
    sources: list[SourceSpec] = Field([])
    endpoints: list[EndpointSpec] = Field([])
    mailboxes: list[MailboxSpec] = Field([])
