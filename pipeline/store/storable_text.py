"""Makes text storable in Postgres."""


def storable(value: str | None) -> str | None:
    """The text with NUL and lone surrogates, which Postgres refuses and foreign text may hold, replaced."""
    return value and value.replace("\x00", "\ufffd").encode(errors="replace").decode()
