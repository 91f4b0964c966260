"""Slack: HMAC-SHA256 of `v0:timestamp:body` in X-Slack-Signature, for events, slash commands and interactions.

Source: docs.slack.dev, "Verifying requests from Slack". Slack sends a signed challenge to a new URL, which is answered and not
recorded. It resends an event under the same event_id with a new timestamp.
"""

import hmac
import re
from datetime import datetime
from typing import Any, Final

from pipeline.formats.bounded_json import members
from pipeline.formats.forms import FORM, fields
from pipeline.formats.timestamps import moment
from pipeline.sources.kind import (
    JSON,
    Headers,
    Kind,
    Reply,
    Sample,
    Unverified,
    any_equal,
    check_age,
    check_answer,
    check_time,
    first_key,
    keys_of,
    need_secret,
    octets,
    unknown_options,
)
from pipeline.sources.payload import digest, text_at
from schemas.source import Source

_SIGNATURE, _TIMESTAMP = "x-slack-signature", "x-slack-request-timestamp"
_FORM: Final = re.compile(r"v0=([0-9a-f]{64})", re.ASCII)
_CHALLENGE: Final = "url_verification"
_MAX_CHALLENGE: Final = 512  # characters

#: Slack shows the response to a slash command to the user; an empty one shows nothing.
_REPLIES: Final = {"empty": Reply(200, b"text/plain", b"")}


def verify(source: Source, headers: Headers, body: bytes, now: datetime) -> None:
    """The body and the timestamp must be signed with one of the secrets, and the timestamp must be recent."""
    match = _FORM.fullmatch(headers.get(_SIGNATURE, ""))
    if match is None:
        raise Unverified("malformed", "the header X-Slack-Signature must hold v0= and 64 hexadecimal digits")
    timestamp = headers.get(_TIMESTAMP, "")
    sent = check_time(timestamp, "X-Slack-Request-Timestamp")
    expected = [_mac(key, timestamp, body) for key in keys_of(source)]
    if not any_equal(expected, [bytes.fromhex(match.group(1))]):
        raise Unverified("signature", "X-Slack-Signature does not match")
    check_age(sent, now, source.tolerance)


def greet(_headers: Headers, body: bytes) -> Reply | None:
    """The challenge of a message of type url_verification, as plain text; None for other messages."""
    if _CHALLENGE.encode() not in body:
        return None
    message = members(body)
    challenge = text_at(message, "challenge") or ""
    if message.get("type") != _CHALLENGE or len(challenge) > _MAX_CHALLENGE:
        return None
    return Reply(200, b"text/plain", challenge.encode())


def describe(source: Source, headers: Headers, body: bytes) -> dict[str, str]:
    """The type of an event, a slash command or an interaction; its subject is the channel, or else the user or team."""
    found = _form(body) if headers.get("content-type", "").lower().startswith(FORM) else _event(members(body))
    found["id"] = found.get("id") or digest(octets(headers.get(_TIMESTAMP, "")), body)
    found["subject"] = found.get("subject") or source.name
    return {name: value for name, value in found.items() if value}


def check(source: Source) -> list[str]:
    """A secret is needed."""
    return need_secret(source) + unknown_options(source, "answer") + check_answer(source, _REPLIES)


def sign(source: Source, _headers: Headers, body: bytes, now: datetime) -> dict[str, str]:
    """The signature and its timestamp."""
    timestamp = str(int(now.timestamp()))
    return {_SIGNATURE: f"v0={_mac(first_key(source), timestamp, body).hex()}", _TIMESTAMP: timestamp}


def _mac(key: bytes, timestamp: str, body: bytes) -> bytes:
    return hmac.digest(key, b"v0:%b:%b" % (timestamp.encode(), body), "sha256")


def _event(message: dict[str, Any]) -> dict[str, str | None]:
    event = message.get("event")
    return {
        "id": text_at(message, "event_id"),
        "type": text_at(event, "type") or text_at(message, "type"),
        "subject": _place(event, "channel", "user") or text_at(event, "item", "channel") or text_at(message, "team_id"),
        "time": moment(message.get("event_time")),
    }


def _form(body: bytes) -> dict[str, str | None]:
    form = fields(body)
    if "payload" in form:
        payload = members(form["payload"].encode())
        subject = _place(payload, "channel", "user", "team")
        return {"id": text_at(payload, "trigger_id"), "type": text_at(payload, "type"), "subject": subject}
    subject = form.get("channel_id") or form.get("user_id") or form.get("team_id")
    return {"id": form.get("trigger_id"), "type": "slash_command" if "command" in form else None, "subject": subject}


def _place(event: Any, *names: str) -> str | None:
    """The first of `names` that is present: an id, or an object that has one."""
    for name in names:
        if found := text_at(event, name) or text_at(event, name, "id"):
            return found
    return None


def sample(fresh: str, now: datetime) -> Sample:
    """A message in a channel."""
    said = {"type": "message", "channel": "C0SAMPLE", "user": "U0SAMPLE", "text": "hello"}
    about = {"event_id": f"Ev{fresh}", "event_time": int(now.timestamp()), "team_id": "T0SAMPLE"}
    return {"content-type": JSON}, {"type": "event_callback", **about, "event": said}


KIND = Kind(verify, check, sign, describe, greet, _REPLIES, sample=sample)
