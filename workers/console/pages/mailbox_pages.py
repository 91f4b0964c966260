"""Mailboxes: how far each is read, what holds it up, and the consent that it needs."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.responses import Response

from ops.admin import documents, mailboxes
from ops.admin.bulk import Named
from ops.errors import OpsError
from ops.runtime.vault import Vault
from schemas.access import Role
from workers.console.call import Call, Refused
from workers.console.pages.layout import go
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import Choice, Question, ask, by, wrong
from workers.console.rendering.page_addresses import at
from workers.mail.oauth.consent import take_over

_OAUTH: Final = ("gmail", "graph")  # kinds that need consent, not a password
_LONGEST_TOKEN: Final = 16_384


def listed(call: Call) -> Mapping[str, Any]:
    """The mailboxes, and how many of their mails were made documents."""
    tenant = call.path.get("tenant")
    found = list(mailboxes.list_mailboxes(call.console.reads, tenant))
    return {"mailboxes": found, "documents": documents.counted(call.console.reads) if tenant is None and found else None}


def one(call: Call) -> Mapping[str, Any]:
    """One mailbox, folder by folder."""
    return {"mailbox": _known(call), "oauth": _OAUTH}


def _known(call: Call) -> Mapping[str, Any]:
    try:
        return mailboxes.show_mailbox(call.console.acts, Named(call.tenant, str(call.path["name"])))
    except OpsError as error:
        raise Refused(404, "not_found", str(error)) from error


def _question(call: Call, title: str, sentence: str, submit: str, **more: Any) -> Question:
    act = call.request.url.path.rpartition("/")[2]
    return Question(title=title, sentence=sentence, action=f"{_back(call)}/{act}", cancel=_back(call), submit=submit, **more)


def _pause(call: Call, found: Mapping[str, Any]) -> Question:
    said = "It is not pulled until somebody resumes it. Mails stay at the provider, and are fetched then."
    return _question(call, f"Pause {found['name']}", said, "Pause", reason="required")


def _do_pause(call: Call, named: Named) -> str:
    return _told(mailboxes.pause(call.console.acts, named, field(call, "reason", 500)), "It is paused.")


def _resume(call: Call, found: Mapping[str, Any]) -> Question:
    said = "It is pulled again, at once. Credentials that were refused are tried again."
    return _question(call, f"Resume {found['name']}", said, "Resume", reason="optional")


def _do_resume(call: Call, named: Named) -> str:
    return _told(mailboxes.resume(call.console.acts, named), "It is pulled again.")


def _sync(call: Call, found: Mapping[str, Any]) -> Question:
    return _question(call, f"Pull {found['name']} now", "It is pulled at once, and not only when its turn comes.", "Pull now")


def _do_sync(call: Call, named: Named) -> str:
    mailboxes.sync(call.console.acts, named.tenant, named.name, named.who)
    return "It is pulled now; this page shows how far it is."


def _resync(call: Call, found: Mapping[str, Any]) -> Question:
    said = "Every mail at the provider is compared with what is held. Missing ones are fetched; none is fetched twice."
    folders = sorted({each["folder"] for each in found["by_folder"]})
    choices = [Choice("", "All folders"), *(Choice(f"in:{name}", name) for name in folders)]
    return _question(call, f"Compare {found['name']} anew", said, "Compare", choices=choices, reason="optional")


def _do_resync(call: Call, named: Named) -> str:
    folder = field(call, "choice").removeprefix("in:") or None
    return _told(mailboxes.resync(call.console.acts, named, folder), "It is compared anew.")


def _told(moved: bool, done: str) -> str:
    return done if moved else "It was like that already: nothing was changed."


def _back(call: Call) -> str:
    return at(call.tenant, "mailboxes", call.path["name"])


def consent(call: Call) -> Response:
    """Take over a refresh token, if the provider accepts it."""
    settings, token = call.console.settings, field(call, "token", _LONGEST_TOKEN)
    if not token or not token.isprintable():
        raise Refused(422, "token", "paste the refresh token that the provider gave")
    mailbox = mailboxes.configured(call.console.acts, settings, call.tenant, str(call.path["name"]))
    resumed = take_over(call.console.acts, Vault(settings.fernet_keys()), mailbox, token, by(call))
    return go(call, _back(call), "The provider took the new token" + ("; the mailbox is pulled again." if resumed else "."))


def _done(make: Callable[..., Question], do: Callable[[Call, Named], str]) -> Callable[[Call], Response]:
    def carry(call: Call) -> Response:
        again = wrong(call, make(call, _known(call)))
        return go(call, _back(call), do(call, Named(call.tenant, str(call.path["name"]), by(call)))) if again is None else again

    return carry


def _shown(make: Callable[..., Question]) -> Callable[[Call], Response]:
    return lambda call: ask(call, make(call, _known(call)))


_EVERY: Final[Mapping[str, tuple[Role, Callable[..., Question], Callable[[Call, Named], str]]]] = {
    "pause": ("operator", _pause, _do_pause),
    "resume": ("operator", _resume, _do_resume),
    "sync": ("operator", _sync, _do_sync),
    "resync": ("operator", _resync, _do_resync),
}
_PATH: Final = "/t/{tenant}/mailboxes/{name}"
PAGES: Final = [
    Page("/mailboxes", "viewer", "mailboxes.html", listed),
    Page("/t/{tenant}/mailboxes", "viewer", "mailboxes.html", listed),
    Page(_PATH, "viewer", "mailbox.html", one),
    *(Page(f"{_PATH}/{act}", role, "", _shown(make)) for act, (role, make, _) in _EVERY.items()),
]
ACTS: Final = [
    *(Act(f"{_PATH}/{act}", role, _done(make, do)) for act, (role, make, do) in _EVERY.items()),
    Act(f"{_PATH}/consent", "admin", consent),
]
