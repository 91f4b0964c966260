"""The configuration file's schema (CONTRACT §3). `ops.config.read_file` reads the file and finds the line of each error."""

from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, model_validator

from schemas.config.endpoint import EndpointSpec, Rate
from schemas.config.mailbox import MailboxSpec
from schemas.config.values import BrokerUser, Extension, Kind, Retention, Rule, Secret, Size, Slug, Spec, Tolerance, checks
from schemas.source import Source


class TenantSpec(Spec):
    """A tenant. `retention` is for events of all its sources that have none of their own."""

    name: Slug
    retention: Retention | None = None


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
    retention: Retention | None = None

    @model_validator(mode="after")
    def _suits_its_kind(self, info: ValidationInfo) -> Self:
        problems = checks(info).source(self.source())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def source(self) -> Source:
        """The configured source."""
        settings = self.settings()
        users = tuple(settings.pop("users", ()))
        return Source(self.tenant, self.name, self.kind, tuple(self.secrets), users=users, **settings)

    def settings(self) -> dict[str, Any]:
        """The values in the file that are stored as settings; defaults are not stored."""
        rules = ("id", "type", "subject", "time", "extensions")
        return self.said(*rules, "max_body", "tolerance", "rate_limit", "options", "users", "retention")


class ConfigFile(Spec):
    """The whole file. `ops.config.read_file` checks that names are unique and that every tenant named exists."""

    tenants: list[TenantSpec] = Field([])
    sources: list[SourceSpec] = Field([])
    endpoints: list[EndpointSpec] = Field([])
    mailboxes: list[MailboxSpec] = Field([])
