"""Rules of a source: where a message holds id, type, subject, time and extensions.

A rule is a JSON pointer (RFC 6901) into the body, `header:NAME`, `form:NAME` for a field of a form, or `digest:body`, the
SHA-256 of the body in hexadecimal: as the id rule, it makes equal bodies the same event, whatever the headers are.
"""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pipeline.errors import Rejected
from pipeline.formats.bounded_json import check_size
from pipeline.formats.forms import fields

HEADER, FIELD, DIGEST = "header:", "form:", "digest:body"
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def check_rule(rule: str) -> None:
    """Raises ValueError unless `rule` has one of the four forms."""
    for prefix, example in ((HEADER, "X-Event-Id"), (FIELD, "From")):
        if rule.startswith(prefix) and not rule[len(prefix) :].strip():
            raise ValueError(f"{prefix} needs a name, as in {prefix}{example}")
    if rule != DIGEST and not rule.startswith(("/", HEADER, FIELD)):
        raise ValueError(f"{rule!r:.200} is neither a JSON pointer, as /data/id, nor header:NAME, form:NAME or {DIGEST}")


class Extractor:
    """Applies rules to a message. Its body is parsed at most once, and only when a rule needs it."""

    def __init__(self, headers: Mapping[str, Any], body: bytes) -> None:
        """`headers` must have lower-case names."""
        self._headers = headers
        self._body = body
        self._parsed: Any = None
        self._fields: Mapping[str, str] | None = None

    def read(self, rule: str) -> str | None:
        """The value at `rule`: a non-empty string, or a number or boolean as written; None for anything else."""
        if rule.startswith(HEADER):
            value = self._headers.get(rule[len(HEADER) :].strip().lower())
            return value if isinstance(value, str) else None
        if rule == DIGEST:
            return sha256(self._body).hexdigest()
        if rule.startswith(FIELD):
            return self._form.get(rule[len(FIELD) :].strip()) or None
        return _scalar(_follow(self.document, rule))

    @property
    def _form(self) -> Mapping[str, str]:
        if self._fields is None:
            self._fields = fields(self._body)
        return self._fields

    @property
    def document(self) -> Any:
        """The body as JSON, with numbers as written. Raises `Rejected` when it is not JSON."""
        if self._parsed is None:
            self._parsed = parse(self._body)
        return self._parsed


def parse(body: bytes) -> Any:
    """The JSON in `body`, numbers kept as their text so that no digit is lost. Raises `Rejected`."""
    check_size(body)
    try:
        return json.loads(body, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Rejected("malformed", f"the body is not JSON: {error}") from None


class _Number(str):
    """A number, as written."""

    __slots__ = ()


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _follow(document: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(key)
        else:
            document = _into_array(document, key) if isinstance(document, list) else None
    return document


def _into_array(document: list[Any], key: str) -> Any:
    if not _INDEX.fullmatch(key) or int(key) >= len(document):
        return None
    return document[int(key)]


def _scalar(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str) and value else None
