"""Text as Postgres can hold it."""


def storable(value: str | None) -> str | None:
    """The text without what Postgres refuses: what comes from outside may hold NUL and lone surrogates."""
    return value and value.replace("\x00", "\ufffd").encode(errors="replace").decode()
