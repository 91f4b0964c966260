"""Endpoints: health and backlog, switching them and their breakers, secrets, and what they missed or failed to take."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ops.admin import endpoints
from ops.admin.bulk import Named
from ops.admin.configured import endpoint_secrets
from ops.admin.views import rfc3339
from ops.runtime.vault import Vault
from schemas.access import Role
from schemas.given import Moment, Rate
from schemas.job import JobKind
from workers.commands import endpoint_trial
from workers.console.api.nouns.job_starts import ANSWERS, DryRun, begin
from workers.console.api.nouns.rows import Job, Phases
from workers.console.api.operation import Answer, Asked, Keyed, Operation
from workers.console.api.paths import OF_TENANT
from workers.console.api.shapes import Changed, Given, Reason, Shape, Time, Why


class Endpoint(Shape):
    """State, health and backlog of an endpoint. `forced`: an operator forced its breaker."""

    tenant: str
    name: str
    transport: str
    state: Literal["active", "disabled"]
    reason: str | None
    breaker: Literal["closed", "open", "half_open"]
    forced: bool
    trips: int
    failures: int
    successes: int
    opened_at: Time | None
    probe_at: Time | None
    window_from: Time | None
    not_before: Time | None
    failing_since: Time | None
    oldest_due: Time | None
    waits_until: Time | None
    streak: int
    last_error: str | None
    pending: int
    overdue: int
    waiting: int
    leased: int
    paused: int
    rate_limit: float | None
    max_in_flight: int
    ordered: bool


class Endpoints(Shape):
    """All endpoints of a tenant."""

    data: list[Endpoint]


class Enable(Given):
    """What is to become of what it missed. Needed if it missed anything."""

    missed: Annotated[
        Literal["replay", "discard", "keep"] | None, Field(description="discard: the endpoint is enabled when that is done")
    ] = None
    rate: Rate = 500
    reason: Reason | None = None


class Enabled(Changed):
    """Whether it was disabled, and the job that sees to what it missed."""

    job: Job | None


class Settle(Given):
    """At which rate."""

    rate: Rate = 500
    reason: Reason | None = None


class Since(Settle):
    """What failed of the events that were recorded from `since` on, before `until`."""

    since: Moment
    until: Moment | None = None


class Trial(Shape):
    """What the endpoint answered to a test."""

    n: int
    id: str
    outcome: Literal["delivered", "failed"]
    started_at: Time
    seconds: float
    status: int | None
    error: str | None
    detail: str | None
    address: str | None
    reused: bool
    phases: Phases
    response: str


class Secret(Shape):
    """The new secret, which is shown only now. The former one signs beside it, until it is retired."""

    secret: str


def _named(asked: Asked) -> Named:
    return Named(str(asked.tenant), asked.name, asked.by(getattr(asked.body, "reason", None)))


def _listed(asked: Asked) -> Answer:
    return Answer({"data": list(endpoints.list_endpoints(asked.reads, asked.tenant))})


def _shown(asked: Asked) -> Answer:
    return Answer(endpoints.show_endpoint(asked.reads, _named(asked)))


def _switch(act: Callable[[Asked], bool], asked: Asked) -> Answer:
    return Answer({"changed": act(asked)})


def _enable(asked: Asked) -> Answer:
    """Discarding comes before enabling: what is still paused after that may be delivered."""
    body: Enable = asked.body
    named, wanted = _named(asked), {"endpoint": asked.name, "rate": body.rate}
    missed = endpoints.missed_by(asked.acts, named).count
    if missed and body.missed is None:
        raise endpoints.NotDecided(f"it missed {missed} deliveries: say what is to become of them with `missed`")
    if missed and body.missed == "discard":
        job = begin(asked, "endpoint_discard", {**wanted, "enable": True}, body.reason).data
        return Answer({"changed": False, "job": job})
    changed = endpoints.enable(asked.acts, named)
    replayed = missed and body.missed == "replay"
    return Answer({"changed": changed, "job": begin(asked, "endpoint_replay", wanted, body.reason).data if replayed else None})


def _start(kind: JobKind, asked: Asked) -> Answer:
    given = asked.body.model_dump(mode="json", exclude_none=True, exclude={"reason"})
    return begin(asked, kind, {**given, "endpoint": asked.name}, asked.body.reason)


def _tried(asked: Asked) -> Answer:
    found = endpoint_trial.tried(asked.acts, asked.settings, _named(asked))
    return Answer({**found, "started_at": rfc3339(found["started_at"])})


def _rotate(asked: Asked) -> Answer:
    return Answer({"secret": endpoint_secrets.rotate(asked.acts, Vault(asked.settings.fernet_keys()), _named(asked))})


_ONE: Final = f"{OF_TENANT}/endpoints/{{name}}"
_SECRET: Final = {200: Secret}


def _act(
    name: str, told: str, handler: Any, answers: Any, body: Any, role: Role = "operator", keyed: Keyed = "taken"
) -> Operation:
    path, id_ = f"{_ONE}/{name}", f"{name.replace('-', '_')}_of_endpoint"
    query = {"query": DryRun} if answers is ANSWERS else {}
    more = {**query, "fresh": answers is _SECRET}
    return Operation(id_, "POST", path, role, "tenant", handler, told, answers, body=body, act=True, keyed=keyed, **more)  # type: ignore[arg-type]


_CHANGED: Final = {200: Changed}
OPERATIONS: Final = (
    Operation(
        "list_endpoints",
        "GET",
        f"{OF_TENANT}/endpoints",
        "viewer",
        "tenant",
        _listed,
        "The tenant's endpoints",
        {200: Endpoints},
    ),
    Operation("show_endpoint", "GET", _ONE, "viewer", "tenant", _shown, "Health and backlog of an endpoint", {200: Endpoint}),
    _act("enable", "Enable an endpoint, and decide about what it missed", _enable, {200: Enabled}, Enable, keyed="required"),
    _act(
        "disable",
        "Disable an endpoint; its deliveries are kept",
        partial(_switch, lambda asked: endpoints.disable(asked.acts, _named(asked), asked.body.reason or "by an operator")),
        _CHANGED,
        Why,
    ),
    _act(
        "open-breaker",
        "Force the breaker open: nothing is sent until `release`",
        partial(_switch, lambda asked: endpoints.open_breaker(asked.acts, _named(asked))),
        _CHANGED,
        Why,
    ),
    _act(
        "close-breaker",
        "Force the breaker closed: all is sent until `release`",
        partial(_switch, lambda asked: endpoints.close_breaker(asked.acts, _named(asked))),
        _CHANGED,
        Why,
    ),
    _act(
        "release",
        "End a forced state of the breaker",
        partial(_switch, lambda asked: endpoints.release_breaker(asked.acts, _named(asked))),
        _CHANGED,
        Why,
    ),
    _act("replay-missed", "Deliver what it missed", partial(_start, "endpoint_replay"), ANSWERS, Settle, keyed="required"),
    _act("discard-missed", "Discard what it missed", partial(_start, "endpoint_discard"), ANSWERS, Settle, keyed="required"),
    _act("redeliver", "Send what failed since a time again", partial(_start, "redeliver"), ANSWERS, Since, keyed="required"),
    _act("test", "Send a signed test event, once; it is not recorded", _tried, {200: Trial}, Why, keyed="no"),
    _act("rotate-secret", "Sign with a new secret beside the former", _rotate, _SECRET, Why, "admin", "required"),
    _act(
        "retire-secret",
        "Sign with the newest secret alone",
        partial(_switch, lambda asked: endpoint_secrets.retire(asked.acts, _named(asked))),
        _CHANGED,
        Why,
        "admin",
    ),
)
