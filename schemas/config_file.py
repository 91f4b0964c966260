"""The configuration file: what it may say (CONTRACT §3). Shapes only; `ops.config_file` reads it and finds its lines."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from schemas.config_values import (
    Extension,
    Filter,
    InFlight,
    Kind,
    Retry,
    Rule,
    Secret,
    Size,
    Slug,
    Timeout,
    Tolerance,
    Unsupported,
    Url,
    Whsec,
    checks,
)
from schemas.source import Source


def _not_yet(value: bool, info: ValidationInfo) -> bool:
    if value:
        raise ValueError(f"{info.field_name}: true is not supported by this version")
    return value


def _no_mailboxes(value: list[Any]) -> list[Any]:
    if value:
        raise ValueError("mailboxes are not supported by this version; leave them out")
    return value


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def _said(self, *names: str) -> dict[str, Any]:
        said = {name: getattr(self, name) for name in names if name in self.model_fields_set}
        return {name: value for name, value in said.items() if value is not None}


class TenantSpec(_Spec):
    """A tenant."""

    name: Slug


class SourceSpec(_Spec):
    """A source, its secrets in the clear."""

    tenant: Slug
    name: Slug
    kind: Kind
    secrets: list[Secret] = Field(default=[], repr=False)
    id: Rule | None = None
    type: Rule | None = None
    subject: Rule | None = None
    extensions: dict[Extension, Rule] = {}
    max_body: Size | None = None
    tolerance: Tolerance | None = None
    options: dict[str, str] = {}
    rate_limit: Unsupported = None

    @model_validator(mode="after")
    def _suits_its_kind(self, info: ValidationInfo) -> Self:
        problems = checks(info).source(self.source())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def source(self) -> Source:
        """The source as it is wanted."""
        return Source(self.tenant, self.name, self.kind, tuple(self.secrets), **self.settings())

    def settings(self) -> dict[str, Any]:
        """What was said, of that which is stored as settings; a default that was not asked for is not stored."""
        return self._said("id", "type", "subject", "extensions", "max_body", "tolerance", "options")


class EndpointSpec(_Spec):
    """An endpoint with its subscription, its secrets in the clear. No secrets: one is made at the first apply and kept."""

    tenant: Slug
    name: Slug
    url: Url | None = None
    secrets: Annotated[list[Whsec], Field(min_length=1)] | None = Field(None, repr=False)
    filter: Filter | None = None
    retry: Retry | None = None
    timeout: Timeout | None = None
    max_in_flight: InFlight | None = None
    ordered: Annotated[bool, AfterValidator(_not_yet)] = False
    rate_limit: Unsupported = None
    amqp: Unsupported = None
    smtp: Unsupported = None

    @model_validator(mode="after")
    def _has_somewhere_to_go(self) -> Self:
        if self.url is None:
            raise ValueError("needs url")
        return self

    def settings(self) -> dict[str, Any]:
        """What was said, of that which is stored as settings; a default that was not asked for is not stored."""
        return self._said("retry", "timeout", "max_in_flight", "ordered")


class ConfigFile(_Spec):
    """The whole file. That names are unique, and every tenant that is named is there, has been seen to."""

    tenants: list[TenantSpec] = []
    sources: list[SourceSpec] = []
    endpoints: list[EndpointSpec] = []
    mailboxes: Annotated[list[Any], AfterValidator(_no_mailboxes)] = []
