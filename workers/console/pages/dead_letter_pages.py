"""Dead letters: in groups, as rows, one by one; and from a selection, through its exact number, to the job that acts."""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final, get_args

from starlette.responses import Response

from ops.admin import replay, timeline
from ops.admin.access.reveals import note_reveal
from ops.admin.jobs import jobs
from ops.admin.views import View, group_view
from ops.errors import OpsError
from schemas.dead_letter import DeadLetterFilter, Stage
from schemas.job import JobKind
from workers.console.call import Call, Refused
from workers.console.pages.filtering import Filter, chosen
from workers.console.pages.layout import go, render
from workers.console.pages.page_table import Act, Page, field
from workers.console.pages.questions import Question, ask, by, other, wrong
from workers.console.pages.revealing import reason_of, shown
from workers.console.rendering.figures_in_words import NOTHING, many, moment, number
from workers.console.rendering.filter_words import Field, read, time
from workers.console.rendering.page_addresses import asked, at

ROWS: Final = 50
MANY: Final = 10_000  # above which the number must be typed
FIELDS: Final = (
    Field("endpoint", "Endpoint", "billing"),
    Field("reason", "Reason", "exhausted"),
    Field("stage", "Stage", options=get_args(Stage)),
    Field("since", "Failed since", "2h"),
    Field("until", "Failed before", "2026-01-31T12:00"),
)
_NO_END: Final = 2**62
_ACTS: Final[Mapping[str, JobKind]] = {"replay": "replay", "discard": "discard"}


def groups(call: Call) -> Mapping[str, Any] | Response:
    """The open dead letters by endpoint and reason, the largest group first."""
    wanted = chosen(call, FIELDS)
    if isinstance(wanted, Response):
        return wanted
    found: list[View] = []
    if wanted.error is None:
        decision = replay.decision_on(call.console.reads, _filter(wanted, _tenant(call)), "")
        found = [{**group_view(each), "q": _words_of(wanted, each)} for each in decision.counted]
    return {"filter": wanted, "groups": found, "total": sum(each["count"] for each in found), "base": _base(call)}


def rows(call: Call) -> Mapping[str, Any] | Response:
    """The open dead letters that match, the newest first."""
    wanted = chosen(call, FIELDS)
    if isinstance(wanted, Response):
        return wanted
    found: list[View] = []
    if wanted.error is None:
        before = _number(call.query.get("before", "")) or _NO_END
        selected = _filter(wanted, _tenant(call))
        found = list(timeline.dead_letters(call.console.reads, selected, ROWS + 1, before))
    more = found[ROWS - 1]["id"] if len(found) > ROWS else None
    base = _base(call)
    return {
        "filter": wanted,
        "rows": found[:ROWS],
        "next": more and asked(f"{base}/rows", q=wanted.words, before=more),
        "first": asked(f"{base}/rows", q=wanted.words) if "before" in call.query else None,
        "base": base,
    }


def letter(call: Call) -> Mapping[str, Any]:
    """One dead letter with its attempts; nothing of its content."""
    return {"letter": _letter(call), "content": None, "base": _base(call)}


def reveal(call: Call) -> Response:
    """One dead letter with its content, once that is in the audit."""
    found, reason = _letter(call), reason_of(call)
    about = {"tenant": found["tenant"], "dead_letter": found["id"]}
    note_reveal(call.console.acts, by(call, reason), "content", about)
    whole = timeline.dead_letter(call.console.reads, call.console.settings, found["id"])
    if whole["body_base64"] is None:
        raise Refused(404, "gone", "its content is gone: the blob store has lost it")
    body = b64decode(whole["body_base64"])
    content = shown(body, whole["content_type"], whole["headers"])
    return render(call, "dead_letter.html", {"letter": found, "content": content, "base": _base(call)})


def question(call: Call) -> Response:
    """What replaying or discarding would do, to how many."""
    return ask(call, _question(call, _selection(call.request.query_params.getlist("id"), call.query.get("q", ""))))


def decide(call: Call) -> Response:
    """Start the job, if what was confirmed is still what is there."""
    ids = [each for each in field(call, "ids", 20_000).split(",") if each]
    selection = _selection(ids, field(call, "q"))
    asked_now = _question(call, selection)
    before = field(call, "count")
    if before != asked_now.hidden["count"]:
        seen = number(_number(before) or 0)
        say = f"There were {seen} when you looked; there are {asked_now.hidden['count']} now. Nothing was done yet."
        return other(call, asked_now, say)
    if (again := wrong(call, asked_now)) is not None:
        return again
    id_ = jobs.start(call.console.acts, _kind(call), _tenant(call), selection, by(call))
    return go(call, at(_tenant(call), "jobs", id_), "The job has begun.")


def _question(call: Call, selection: Mapping[str, Any]) -> Question:
    kind, base = _kind(call), _base(call)
    found = jobs.preview(call.console.reads, kind, _tenant(call), selection)
    count = int(found["count"])
    back = asked(f"{base}/rows", q=call.query.get("q") or field(call, "q"))
    letters = many(count, "dead letter")
    dangerous = kind == "discard"
    said = {
        "replay": f"Replay {letters}: messages are published again, deliveries are due at once, at most 500 a second.",
        "discard": f"Discard {letters}, for good: nobody will deliver them. They stay in the ledger and in the audit.",
    }[kind]
    return Question(
        title=f"{kind.capitalize()} dead letters",
        sentence=said if count else "None of these is open any more: somebody was faster, or they were delivered.",
        action=f"{base}/decide/{kind}",
        cancel=back,
        submit=f"{kind.capitalize()} {number(count)}",
        facts=[
            ("Selected", _chosen_by(selection)),
            ("Oldest failure", _exact(found["oldest"])),
            ("Newest failure", _exact(found["newest"])),
        ],
        samples=[_sample(each) for each in found["samples"]],
        hidden={
            "q": call.query.get("q") or field(call, "q"),
            "ids": ",".join(map(str, selection.get("ids", ()))),
            "count": str(count),
        },
        reason="required" if dangerous else "optional",
        typed=number(count) if count and (dangerous or count > MANY) else "",
        danger=dangerous,
    )


def _selection(ids: list[str], words: str) -> Mapping[str, Any]:
    """The arguments of the job: those that were ticked, or all that match the words."""
    if ids:
        return {"ids": sorted({known for each in ids if (known := _number(each))})}
    values, error = read(words, FIELDS)
    if error is not None:
        raise Refused(422, "filter", error)
    return {name: time(value) if name in ("since", "until") else value for name, value in values.items()}


def _letter(call: Call) -> View:
    """The dead letter without content: neither its body, nor the values of its headers, nor what an endpoint answered."""
    try:
        found = timeline.dead_letter(call.console.reads, call.console.settings, int(call.path["id"]), content=False)
    except OpsError as error:
        raise Refused(404, "not_found", str(error)) from error
    tenant = _tenant(call)
    if tenant is not None and found["tenant"] != tenant:
        raise Refused(404, "not_found", "there is no such dead letter")
    tries = [{name: value for name, value in each.items() if name != "response"} for each in found["tries"]]
    held = found["body_base64"] is not None or found["blob"] is not None
    plain = {name: value for name, value in found.items() if name not in ("body", "body_base64")}
    return {**plain, "tries": tries, "headers": list(found["headers"] or ()), "held": held}


def _chosen_by(selection: Mapping[str, Any]) -> str:
    if "ids" in selection:
        return "by hand"
    return ", ".join(f"{name} {value}" for name, value in selection.items()) or "all that are open"


def _sample(view: Mapping[str, Any]) -> str:
    said = [str(view[name]) for name in ("id", "endpoint", "reason", "event_id") if view.get(name)]
    return " · ".join([*said, _exact(view["last_at"])])


def _kind(call: Call) -> JobKind:
    if call.path["act"] not in _ACTS:
        raise Refused(404, "not_found", "dead letters can be replayed and discarded")
    return _ACTS[str(call.path["act"])]


def _filter(wanted: Filter, tenant: str | None) -> DeadLetterFilter:
    stage: Any = wanted.text("stage")
    return DeadLetterFilter(
        tenant, wanted.text("endpoint"), wanted.text("reason"), wanted.time("since"), wanted.time("until"), stage=stage
    )


def _words_of(wanted: Filter, group: Any) -> str:
    return wanted.but(reason=group.reason, stage=group.stage, endpoint=group.endpoint or "")


def _tenant(call: Call) -> str | None:
    return call.path.get("tenant")


def _base(call: Call) -> str:
    return at(_tenant(call), "dead")


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 19 else None


def _exact(value: str | None) -> str:
    return NOTHING if value is None else moment(value).exact


PAGES: Final = [
    page
    for under in ("", "/t/{tenant}")
    for page in (
        Page(f"{under}/dead", "viewer", "dead_groups.html", groups),
        Page(f"{under}/dead/rows", "viewer", "dead_rows.html", rows),
        Page(f"{under}/dead/decide/{{act}}", "operator", "", question),
        Page(f"{under}/dead/{{id:int}}", "viewer", "dead_letter.html", letter),
    )
]
ACTS: Final = [
    act
    for under in ("", "/t/{tenant}")
    for act in (
        Act(f"{under}/dead/decide/{{act}}", "operator", decide),
        Act(f"{under}/dead/{{id:int}}/content", "operator", reveal),
    )
]
