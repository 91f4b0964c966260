"""Step 7, deliver, over SMTP: renders an endpoint's templates for an event.

Jinja2's sandbox gives a template access to its arguments only. It bounds neither time nor memory, so this runs in a process of
its own (`workers.transports.template_child`).
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson
from jinja2 import ChainableUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.delivery.signing import described
from schemas.delivery import Delivery

if TYPE_CHECKING:  # its module loads pydantic, which the rendering process does not need
    from schemas.config.smtp_target import SmtpTarget

MAX_TEXT: Final = 1024 * 1024  # characters of output of one template
MAX_SUBJECT: Final = 250  # characters; the rest is cut off
MAX_BODY: Final = 256 * 1024  # characters of the body that a template sees; the ledger has the rest

DEFAULT_TEXT: Final = """\
{% for name, value in event | dictsort %}{{ name }}: {{ value }}
{% endfor %}
{% if body is none %}({{ size }} bytes of {{ event.datacontenttype }}, which is no text){% else %}{{ body }}{% endif %}
{% if cut %}(the rest of {{ size }} bytes is in the ledger)
{% endif %}"""


class Unrenderable(ValueError):
    """The templates cannot be rendered for this event."""


def order(target: "SmtpTarget", delivery: Delivery) -> dict[str, Any]:
    """The argument of `render`: the templates and their variables, as JSON values."""
    text = _text(delivery.body)
    return {
        "templates": {"subject": target.subject, "text": DEFAULT_TEXT if target.text is None else target.text},
        "event": described(delivery),
        "body": None if text is None else text[:MAX_BODY],
        "cut": text is not None and len(text) > MAX_BODY,
        "size": len(delivery.body),
    }


def render(ordered: Mapping[str, Any]) -> dict[str, str]:
    """The text of each template. Variables: `event`, its attributes; `body`, its text, and `json`, each None if it has none.

    Raises `Unrenderable`, and MemoryError.
    """
    seen = {name: ordered[name] for name in ("event", "body", "cut", "size")}
    seen["json"] = _json(ordered)
    return {name: _rendered(name, source, seen) for name, source in ordered["templates"].items()}


def check_template(source: str) -> None:
    """Raises `Unrenderable`, with the line, for an invalid template."""
    try:
        _compiled(source)
    except TemplateError as error:
        raise Unrenderable(f"line {getattr(error, 'lineno', 1)}: {error.message or type(error).__name__}") from None


def _rendered(name: str, source: str, seen: Mapping[str, Any]) -> str:
    try:
        return _bounded(_compiled(source).generate(**seen))
    except MemoryError:
        raise
    except Exception as error:
        raise Unrenderable(_unicode(f"the {name}: {type(error).__name__}: {error}"[:300])) from error


def _bounded(pieces: Iterable[str]) -> str:
    made, size = [], 0
    for piece in pieces:
        made.append(piece)
        size += len(piece)
        if size > MAX_TEXT:
            raise Unrenderable(f"more than {MAX_TEXT} characters")
    return _unicode("".join(made))


def _unicode(text: str) -> str:
    """The text with U+FFFD for each lone surrogate: a template can produce them, and UTF-8 cannot encode them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class _Sandbox(ImmutableSandboxedEnvironment):
    """Looks up a mapping's keys before the methods of `dict`: `json.items` is the event's member."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return obj[attribute] if isinstance(obj, dict) and attribute in obj else super().getattr(obj, attribute)


@lru_cache(64)
def _compiled(source: str) -> Template:
    return _Sandbox(undefined=ChainableUndefined, keep_trailing_newline=True).from_string(source)


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _json(ordered: Mapping[str, Any]) -> Any:
    media = ordered["event"]["datacontenttype"].partition(";")[0].strip().lower()
    if ordered["body"] is None or ordered["cut"] or not (media == "application/json" or media.endswith("+json")):
        return None
    try:
        return orjson.loads(ordered["body"])
    except ValueError:
        return None
