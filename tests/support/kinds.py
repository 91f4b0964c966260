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
