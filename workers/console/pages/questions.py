"""The page between the wish for an act and the act: what will happen, to how many, and what confirms it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from starlette.responses import Response

from schemas.access import Actor
from workers.console.call import Call
from workers.console.pages import page_table
from workers.console.pages.layout import render

SHORTEST_REASON: Final = 3


class Choice(NamedTuple):
    """One of several ways to do it."""

    value: str
    title: str


@dataclass(frozen=True)
class Question:
    """What is asked before an act.

    `points`: what it does, one by one; `typed`: what must be typed for it; `danger`: it cannot be undone.
    """

    title: str
    sentence: str
    action: str
    cancel: str
    submit: str
    facts: Sequence[tuple[str, Any]] = ()
    samples: Sequence[str] = ()
    points: Sequence[str] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    choices: Sequence[Choice] = ()
    reason: Literal["", "optional", "required"] = ""
    typed: str = ""
    danger: bool = False
    upload: bool = False


def ask(call: Call, question: Question, error: Mapping[str, str] | None = None) -> Response:
    """The page with the question; `error` says what is wrong with the answer that was given, and in which field."""
    values = asdict(question) | {"error": error, "given": {"reason": page_table.field(call, "reason")}}
    return render(call, "confirm.html", values, 200 if error is None else 422)


def wrong(call: Call, question: Question) -> Response | None:
    """The question again, if the answer does not confirm it."""
    reason, typed = page_table.field(call, "reason"), page_table.field(call, "typed")
    if question.reason == "required" and len(reason) < SHORTEST_REASON:
        return ask(call, question, {"field": "reason", "say": "Say why, in a few words: the audit keeps it."})
    if question.typed and typed.replace(",", "") != question.typed.replace(",", ""):
        return ask(call, question, {"field": "typed", "say": f"That is not {question.typed}. Nothing was done."})
    if question.choices and page_table.field(call, "choice") not in {each.value for each in question.choices}:
        return ask(call, question, {"field": "choice", "say": "Choose one of them."})
    return None


def other(call: Call, question: Question, say: str) -> Response:
    """The question again, because what it is about has changed since it was shown."""
    return ask(call, replace(question), {"field": "", "say": say})


def by(call: Call, reason: str = "") -> Actor:
    """Who acts, and why, as the audit records it."""
    return call.actor(reason or page_table.field(call, "reason"))
