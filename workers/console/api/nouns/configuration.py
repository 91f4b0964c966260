"""The configuration: shown, and replaced by an uploaded file if it is still what was read."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ops.admin.configuring import uploads
from ops.admin.configuring.uploads import Options, Stale
from workers.console.api.nouns.me import Tenant
from workers.console.api.operation import BYTES, Answer, Asked, Operation
from workers.console.api.shapes import Flag, Given, Shape
from workers.console.call import Refused

YAML: Final = "application/yaml"


class SourceItem(Shape):
    """A source, as it is configured."""

    tenant: str
    name: str
    kind: str


class EndpointItem(Shape):
    """An endpoint, as it is configured."""

    tenant: str
    name: str
    transport: str
    url: str
    filter: dict[str, Any] | None


class MailboxItem(Shape):
    """A mailbox, as it is configured."""

    tenant: str
    name: str
    kind: str
    username: str | None


class Configuration(Shape):
    """All that is configured, never a secret. `etag` changes with any of it."""

    etag: str
    tenants: list[Tenant]
    sources: list[SourceItem]
    endpoints: list[EndpointItem]
    mailboxes: list[MailboxItem]


class ApplyQuery(Given):
    """How to apply the file."""

    dry_run: Annotated[Flag, Field(description="only say what would change")] = False
    prune: Annotated[Flag, Field(description="remove what the file does not name")] = False
    enable: Annotated[Flag, Field(description="enable endpoints again that are disabled")] = False
    give_up: Annotated[Flag, Field(description="discard what removed endpoints have not received")] = False


class Change(Shape):
    """What happened, or would happen, to one thing that is configured."""

    action: Literal["created", "changed", "removed", "unchanged", "kept"]
    item: Literal["tenant", "source", "endpoint", "mailbox"]
    tenant: str
    name: str
    details: list[str]


class Difference(Shape):
    """What changed, or would. `secrets`: new ones, by endpoint; they are shown only now."""

    dry_run: bool
    changes: list[Change]
    gives_up: int
    warnings: list[str]
    secrets: dict[str, str]


def _shown(asked: Asked) -> Answer:
    found = uploads.shown(asked.reads, asked.acts)
    return Answer(found, headers={"ETag": f'"{found["etag"]}"'})


def _applied(asked: Asked) -> Answer:
    query: ApplyQuery = asked.query
    options = Options(**query.model_dump())
    etag = str(asked.etag).strip('"')
    try:
        return Answer(uploads.apply(asked.settings, asked.body, etag, options, asked.by()))
    except Stale as error:
        raise Refused(412, "precondition_failed", str(error)) from None


OPERATIONS: Final = (
    Operation(
        "show_configuration",
        "GET",
        "/configuration",
        "viewer",
        "all",
        _shown,
        "What is configured, and its ETag",
        {200: Configuration},
    ),
    Operation(
        "apply_configuration",
        "PUT",
        "/configuration",
        "admin",
        "all",
        _applied,
        "Apply a configuration file",
        {200: Difference},
        ApplyQuery,
        body_media=(YAML, BYTES),
        act=True,
        if_match=True,
        fresh=True,
        description="The file as `waxseal apply` takes it; its secrets must be in it.",
    ),
)
