"""Acts on an endpoint: pause and resume it, force its breaker, test it, rotate its secret, send what it missed or awaits."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.responses import Response

from ops.admin import endpoints
from ops.admin.bulk import Named
from ops.admin.configured import endpoint_secrets
from ops.admin.jobs import jobs
from ops.runtime.vault import Vault
from schemas.access import Role
from workers.commands.endpoint_trial import tried
from workers.console.call import Call, Refused
from workers.console.pages.endpoint_pages import known
from workers.console.pages.layout import go, render
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import Choice, Question, ask, by, wrong
from workers.console.rendering.figures_in_words import many, moment
from workers.console.rendering.filter_words import time
from workers.console.rendering.page_addresses import at

Make = Callable[[Call, Mapping[str, Any]], Question]
Do = Callable[[Call, Named], Response]


def _question(call: Call, title: str, sentence: str, submit: str, **more: Any) -> Question:
    act = str(call.request.url.path).rpartition("/")[2]
    back = _back(call)
    return Question(title=title, sentence=sentence, action=f"{back}/{act}", cancel=back, submit=submit, **more)


def _pause(call: Call, found: Mapping[str, Any]) -> Question:
    name = found["endpoint"]["name"]
    said = f"Nothing more is sent to {name}. What arrives for it meanwhile is kept, and you decide about it when you resume."
    return _question(call, f"Pause {name}", said, "Pause", reason="required")


def _do_pause(call: Call, named: Named) -> Response:
    moved = endpoints.disable(call.console.acts, named, field(call, "reason", 500))
    return go(call, _back(call), f"{named.name} is paused." if moved else f"{named.name} was not active: nothing was changed.")


def _resume(call: Call, found: Mapping[str, Any]) -> Question:
    name, missed = found["endpoint"]["name"], found["endpoint"]["paused"]
    said = f"Events are sent to {name} again, and its breaker and failures are reset. It missed {many(missed, 'event')}."
    choices = [
        Choice("replay", "Deliver what it missed, as fast as its limits allow"),
        Choice("keep", "Keep what it missed paused; decide later"),
        Choice("discard", "Discard what it missed, for good"),
    ]
    return _question(call, f"Resume {name}", said, "Resume", reason="optional", choices=choices if missed else ())


def _do_resume(call: Call, named: Named) -> Response:
    choice = field(call, "choice") or "keep"
    arguments = {"endpoint": named.name}
    if choice == "discard":  # before it is enabled: deliveries still paused after that can be delivered
        id_ = jobs.start(call.console.acts, "endpoint_discard", named.tenant, {**arguments, "enable": True}, by(call))
        return go(call, at(named.tenant, "jobs", id_), f"{named.name} is resumed when all of this is discarded.")
    moved = endpoints.enable(call.console.acts, named)
    if choice == "replay":
        id_ = jobs.start(call.console.acts, "endpoint_replay", named.tenant, arguments, by(call))
        return go(call, at(named.tenant, "jobs", id_), f"{named.name} is resumed; what it missed follows.")
    return go(call, _back(call), f"{named.name} is resumed." if moved else f"{named.name} was not paused.")


def _breaker(call: Call, found: Mapping[str, Any]) -> Question:
    name = found["endpoint"]["name"]
    choices = [
        Choice("release", "Let it work by itself; an open one lets a probe through at once"),
        Choice("open", "Force it open: nothing is sent and no try is counted"),
        Choice("close", "Force it closed: everything is sent, whatever fails"),
    ]
    return _question(call, f"Breaker of {name}", "How should its breaker be?", "Set", choices=choices, reason="optional")


def _do_breaker(call: Call, named: Named) -> Response:
    acts = {"release": endpoints.release_breaker, "open": endpoints.open_breaker, "close": endpoints.close_breaker}
    moved = acts[field(call, "choice")](call.console.acts, named)
    return go(call, _back(call), "The breaker is set." if moved else "The breaker was like that already.")


def _test(call: Call, found: Mapping[str, Any]) -> Question:
    name = found["endpoint"]["name"]
    said = (
        f"One event of type waxseal.test is sent to {name}, signed like any other. It is tried once, whether the endpoint is "
        "paused or not, and is not recorded in the ledger."
    )
    return _question(call, f"Send a test to {name}", said, "Send")


def _do_test(call: Call, named: Named) -> Response:
    attempt = tried(call.console.acts, call.console.settings, named)
    return render(call, "endpoint_test.html", {"attempt": attempt, "name": named.name, "address": _back(call)})


def _rotate(call: Call, found: Mapping[str, Any]) -> Question:
    name = found["endpoint"]["name"]
    said = (
        f"{name} gets a new secret, which is shown once. Requests carry signatures of the new and of the last one, until you "
        "retire the last one; an older one ends now."
    )
    facts = [
        ("Secrets now", found["terms"]["secrets"]),
        ("Is one in a file?", "Then the next apply of that file sets it again"),
    ]
    grave: Mapping[str, Any] = {"typed": name, "danger": True, "reason": "required"}
    return _question(call, f"Rotate the secret of {name}", said, "Rotate", facts=facts, **grave)


def _do_rotate(call: Call, named: Named) -> Response:
    call.must_be_fresh()
    secret = endpoint_secrets.rotate(call.console.acts, Vault(call.console.settings.fernet_keys()), named)
    return render(call, "endpoint_secret.html", {"secret": secret, "name": named.name, "address": _back(call)})


def _retire(call: Call, found: Mapping[str, Any]) -> Question:
    name = found["endpoint"]["name"]
    said = f"Requests to {name} are signed with its newest secret alone: a receiver that checks the last one refuses them."
    return _question(call, f"Retire the last secret of {name}", said, "Retire", typed=name, danger=True, reason="required")


def _do_retire(call: Call, named: Named) -> Response:
    moved = endpoint_secrets.retire(call.console.acts, named)
    return go(call, _back(call), "The last secret is retired." if moved else f"{named.name} has one secret only.")


def _redeliver(call: Call, found: Mapping[str, Any]) -> Question:
    name, since = found["endpoint"]["name"], call.query.get("since") or field(call, "since") or "24h"
    try:
        moment_ = time(since)
    except ValueError as error:
        raise Refused(422, "filter", f"since {since}: {error}") from error
    preview = jobs.preview(call.console.reads, "redeliver", call.tenant, {"endpoint": name, "since": moment_})
    count = int(preview["count"])
    return _question(
        call,
        f"Redeliver to {name}",
        f"{many(count, 'delivery', 'deliveries')} to {name} failed for good since then. They are due again, at once.",
        f"Redeliver {count:,}",
        facts=[("Recorded since", moment(moment_).exact + " UTC")],
        hidden={"since": moment_.isoformat()},
        typed=f"{count:,}" if count > MANY else "",
        reason="optional",
    )


def _do_redeliver(call: Call, named: Named) -> Response:
    arguments = {"endpoint": named.name, "since": time(field(call, "since"))}
    id_ = jobs.start(call.console.acts, "redeliver", named.tenant, arguments, by(call))
    return go(call, at(named.tenant, "jobs", id_), "The job has begun.")


def _retry(call: Call, found: Mapping[str, Any]) -> Question:
    name = found["endpoint"]["name"]
    count = int(jobs.preview(call.console.reads, "retry", call.tenant, {"endpoint": name})["count"])
    said = (
        f"{many(count, 'try', 'tries')} to {name}, planned for later, {'is' if count == 1 else 'are'} made now, at most 500 a "
        "second; the schedules go on from there. What a breaker, a rate or a pause holds back stays so."
    )
    more: Mapping[str, Any] = {"typed": f"{count:,}" if count > MANY else "", "reason": "optional"}
    return _question(
        call, f"Retry {name}", said if count else f"No try to {name} is planned for later.", f"Retry {count:,}", **more
    )


def _do_retry(call: Call, named: Named) -> Response:
    id_ = jobs.start(call.console.acts, "retry", named.tenant, {"endpoint": named.name}, by(call))
    return go(call, at(named.tenant, "jobs", id_), "The job has begun.")


def _back(call: Call) -> str:
    return at(call.tenant, "endpoints", call.path["name"])


def _shown(make: Make) -> Callable[[Call], Response]:
    return lambda call: ask(call, make(call, known(call)))


def _done(make: Make, do: Do) -> Callable[[Call], Response]:
    def carry(call: Call) -> Response:
        again = wrong(call, make(call, known(call)))
        return do(call, Named(call.tenant, str(call.path["name"]), by(call))) if again is None else again

    return carry


MANY: Final = 10_000
_EVERY: Final[Mapping[str, tuple[Role, Make, Do]]] = {
    "pause": ("operator", _pause, _do_pause),
    "resume": ("operator", _resume, _do_resume),
    "breaker": ("operator", _breaker, _do_breaker),
    "test": ("operator", _test, _do_test),
    "redeliver": ("operator", _redeliver, _do_redeliver),
    "retry": ("operator", _retry, _do_retry),
    "rotate": ("admin", _rotate, _do_rotate),
    "retire": ("admin", _retire, _do_retire),
}
_PATH: Final = "/t/{tenant}/endpoints/{name}"
PAGES: Final = [Page(f"{_PATH}/{act}", role, "", _shown(make)) for act, (role, make, _) in _EVERY.items()]
ACTS: Final = [Act(f"{_PATH}/{act}", role, _done(make, do)) for act, (role, make, do) in _EVERY.items()]
