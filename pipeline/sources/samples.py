"""An unsigned sample message of a source, as its sender would send it, for trying the source out."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import orjson

from pipeline.errors import Rejected
from pipeline.formats.extraction import DIGEST, FIELD, HEADER, Extractor
from pipeline.formats.forms import FORM
from pipeline.sources import KINDS
from schemas.source import Source


def sample(source: Source, fresh: str, now: datetime) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a message of `source`; its id is `fresh`, or derived from it if the kind's ids have a format.

    The message contains the fields that the source's rules read.
    """
    headers, content = KINDS[source.kind].sample(fresh, now)
    wanted = {"id": source.id, "type": source.type, "subject": source.subject}
    for name, rule in wanted.items():
        if rule is not None and not _reads(headers, content, rule):
            _add(headers, content, rule, fresh if name == "id" else f"sample.{name}")
    return headers, _written(headers, content)


def _written(headers: Mapping[str, str], content: Mapping[str, Any]) -> bytes:
    return urlencode(content).encode() if headers["content-type"] == FORM else orjson.dumps(content)


def _reads(headers: Mapping[str, str], content: Mapping[str, Any], rule: str) -> bool:
    try:
        return bool(Extractor(headers, _written(headers, content)).read(rule))
    except Rejected:
        return False


def _add(headers: dict[str, str], content: dict[str, Any], rule: str, value: str) -> None:
    """Puts `value` where `rule` looks for it, if the sample's content allows that."""
    if rule.startswith(HEADER):
        headers[rule[len(HEADER) :].strip().lower()] = value
    elif rule.startswith(FIELD):
        content[rule[len(FIELD) :].strip()] = value
    elif rule != DIGEST:
        *path, last = (step.replace("~1", "/").replace("~0", "~") for step in rule.split("/")[1:])
        for step in path:
            deeper = content.setdefault(step, {})
            if not isinstance(deeper, dict):
                return
            content = deeper
        content[last] = value
