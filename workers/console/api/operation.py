"""One operation of the API: a row of the table from which its route, its part of the document and its tests are made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel
from sqlalchemy import Engine

from ops.settings import Settings
from schemas.access import Actor, Role
from workers.console.call import Call

#: tenant: of the tenant in the path. all: of all tenants and of none, by a role for all of them. any: for whoever has the role
#: for any tenant; the handler gives what the principal sees.
Scope = Literal["tenant", "all", "any"]

#: What an operation says of its Idempotency-Key: repeating it without one would act twice, or not.
Keyed = Literal["required", "taken", "no"]

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Asked:
    """A call whose query and body were read by the operation's models. `etag` is that of If-Match."""

    call: Call
    query: Any = None
    body: Any = None
    etag: str | None = None

    @property
    def tenant(self) -> str | None:
        """The tenant in the path; None: all."""
        found = self.call.path.get("tenant")
        return None if found is None else str(found)

    @property
    def name(self) -> str:
        """The name in the path, of an endpoint or mailbox."""
        return str(self.call.path["name"])

    @property
    def id(self) -> int:
        """The number in the path."""
        return int(self.call.path["id"])

    @property
    def reads(self) -> Engine:
        """The pool that reads."""
        return self.call.console.reads

    @property
    def acts(self) -> Engine:
        """The pool that acts; of an act with an Idempotency-Key, its transaction."""
        return self.call.console.acts

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        return self.call.console.settings

    def by(self, reason: str | None = None) -> Actor:
        """Who acts, for the audit."""
        return self.call.actor(reason or "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers: a plain object as JSON, or `raw` bytes of its media type."""

    data: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Any = None


Handler = Callable[[Asked], Answer]


class NoQuery(BaseModel):
    """No parameters."""

    model_config = {"extra": "forbid"}


_NAMES: Final = {"tenant", "endpoint"}  # members of a query or body, of which there may be none of that name


@dataclass(frozen=True, slots=True)
class Operation:
    """A row. `problems` are the statuses of errors of its own, beside those that its other members imply.

    `answers` are models by status; None: the answer is of type `media`, and not JSON. `body_media` are the types of a body that
    has no model. `fresh`: it shows content or a secret, for which a person must have logged in a few minutes ago.
    """

    id: str
    method: str
    path: str
    role: Role
    scope: Scope
    handler: Handler
    summary: str
    answers: Mapping[int, Any]
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    body_media: tuple[str, ...] = ()
    media: str = JSON
    problems: tuple[int, ...] = ()
    act: bool = False
    keyed: Keyed = "no"
    if_match: bool = False
    fresh: bool = False
    description: str = ""

    @property
    def statuses(self) -> tuple[int, ...]:
        """The statuses of all errors that it may answer."""
        implied = {401, 403, 503, 429}
        named = {*self.query.model_fields, *(self.body.model_fields if self.body is not None else ())}
        if "{" in self.path or named & _NAMES:
            implied |= {404}
        implied |= {422}
        if self.body is not None or self.body_media:
            implied |= {400, 413, 415}
        if self.act:
            implied |= {409}
        if self.keyed != "no":
            implied |= {400, 409}
        if self.if_match:
            implied |= {412, 428}
        return tuple(sorted(implied | set(self.problems)))
