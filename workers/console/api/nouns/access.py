"""Who may use the API and the console: tokens, and sessions that can be ended."""

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from ops.admin.access import sessions, tokens
from ops.errors import Unknown
from schemas.access import Role
from schemas.given import Slug, Words
from workers.console.api.operation import Answer, Asked, Operation
from workers.console.api.paths import PREFIX
from workers.console.api.shapes import Given, Reason, Shape, Time

_DAY: Final = 86_400
_USUAL: Final = 30 * _DAY
_USUAL_ONCE: Final = 900
_LONGEST_ONCE: Final = int(tokens.LONGEST_ONCE.total_seconds())


class Token(Shape):
    """A token, without its secret."""

    id: str
    who: str
    role: Role
    tenant: Annotated[str | None, Field(description="null: all of them")]
    once: bool
    state: Literal["active", "used", "expired", "revoked"]
    created_at: Time
    created_by: str
    expires_at: Time
    last_used_at: Time | None
    revoked_at: Time | None
    revoked_by: str | None


class Tokens(Shape):
    """The newest tokens."""

    data: list[Token]


class NewToken(Given):
    """For whom, and for what."""

    who: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]([ -~]*[!-~])?$", description="ASCII")]
    role: Role
    tenant: Slug | None = None
    once: Annotated[bool, Field(description="good for one login, and for no request; the session ends with it")] = False
    lasts_seconds: Annotated[
        int | None,
        Field(ge=60, le=366 * _DAY, description="without it 30 days; with `once` 15 minutes, a day at most"),
    ] = None
    reason: Reason | None = None

    @model_validator(mode="after")
    def _is_used_soon(self) -> "NewToken":
        if self.once and (self.lasts_seconds or 0) > _LONGEST_ONCE:
            raise ValueError(f"with `once` it lasts {_LONGEST_ONCE} seconds at most")
        return self

    @property
    def lasts(self) -> timedelta:
        """How long it lasts."""
        return timedelta(seconds=self.lasts_seconds or (_USUAL_ONCE if self.once else _USUAL))


class MadeToken(Token):
    """A new token, with its secret, which is shown only now."""

    secret: str
    link: Annotated[
        str | None,
        Field(description="of one that is good for one login: the address that logs in (WAXSEAL_CONSOLE_URL)"),
    ]


class Session(Shape):
    """A session of the console."""

    id: str
    who: str
    issuer: str | None
    subject: str | None
    token: str | None
    grants: dict[str, Role]
    address: str | None
    agent: str | None
    created_at: Time
    seen_at: Time
    fresh_at: Time | None
    idle_until: Time
    ends_at: Time


class Sessions(Shape):
    """The newest sessions that are in use."""

    data: list[Session]


class Whose(Given):
    """Of whom."""

    who: Words
    reason: Reason | None = None


class Ended(Shape):
    """How many sessions were ended."""

    ended: int


def _tokens(asked: Asked) -> Answer:
    return Answer({"data": tokens.listed(asked.acts, asked.tenant)})


def _made(asked: Asked) -> Answer:
    body: NewToken = asked.body
    by = asked.by(body.reason)
    view, secret = tokens.new(
        asked.acts, who=body.who, role=body.role, tenant=body.tenant, lasts=body.lasts, by=by, once=body.once
    )
    url = asked.settings.console_url.rstrip("/")
    link = f"{url}/login#{secret}" if body.once and url else None
    return Answer({**view, "secret": secret, "link": link}, 201, {"Location": f"{PREFIX}/tokens/{view['id']}"})


def _revoked(asked: Asked) -> Answer:
    if not tokens.revoke(asked.acts, str(asked.call.path["key"]), asked.by()):
        raise Unknown("there is no such token in use")
    return Answer(status=204)


def _sessions(asked: Asked) -> Answer:
    return Answer({"data": sessions.listed(asked.acts)})


def _ended(asked: Asked) -> Answer:
    if not sessions.end(asked.acts, str(asked.call.path["key"]), asked.by()):
        raise Unknown("there is no such session in use")
    return Answer(status=204)


def _all_ended(asked: Asked) -> Answer:
    body: Whose = asked.body
    return Answer({"ended": sessions.end_all(asked.acts, body.who, asked.by(body.reason))})


OPERATIONS: Final = (
    Operation("list_tokens", "GET", "/tokens", "admin", "all", _tokens, "The newest tokens", {200: Tokens}),
    Operation(
        "make_token",
        "POST",
        "/tokens",
        "admin",
        "all",
        _made,
        "Make a token; its secret is shown once",
        {201: MadeToken},
        body=NewToken,
        act=True,
        keyed="required",
        problems=(404,),
        fresh=True,
    ),
    Operation("revoke_token", "DELETE", "/tokens/{key}", "admin", "all", _revoked, "Revoke a token", {204: None}, act=True),
    Operation("list_sessions", "GET", "/sessions", "admin", "all", _sessions, "The sessions in use", {200: Sessions}),
    Operation("end_session", "DELETE", "/sessions/{key}", "admin", "all", _ended, "End a session", {204: None}, act=True),
    Operation(
        "end_sessions",
        "POST",
        "/sessions/end",
        "admin",
        "all",
        _all_ended,
        "End all sessions of a person",
        {200: Ended},
        body=Whose,
        act=True,
        keyed="taken",
    ),
)
