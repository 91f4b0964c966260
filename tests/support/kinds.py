"""What tests of the source kinds share: a source, a time, and the verdict of a kind on a message."""

from datetime import UTC, datetime

from pipeline.sources import KINDS, Unverified
from schemas.source import Source

Headers = dict[str, str]


def source(kind: str, *secrets: str, **options: str) -> Source:
    return Source("acme", "shop", kind, secrets, options=options)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def verdict(a_source: Source, headers: Headers, body: bytes, now: datetime) -> str:
    try:
        KINDS[a_source.kind].verify(a_source, headers, body, now)
    except Unverified as error:
        return error.reason
    return "verified"


#: Secret, body and signature. Shopify publishes none: these are from projects that verify its webhooks.
SHOPIFY_VECTORS = (
    (
        "test-webhook-secret",
        b'{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}',
        "QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw=",
    ),
    ("shop-secret", b'{"id":1}', "plW8VGqq0nDMIEhDqaNNW99asdUCy7EIqLZVcQwtAZ0="),
    ("secret", b"{}", "dzJZAsrKgS3CWXM6rNBGtzgXNyx3e42VtAJkdHRRbhM="),
)

#: The vector of Slack's documentation.
SLACK_KEY = "8f742231b10e8888abcd99yyyzzz85a5"
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
SLACK_SENT = 1531420618
SLACK_SIGNATURE = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
