"""Statements on the secrets that an endpoint's requests are signed with, all encrypted."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

# Locked, so that of two rotations at once the second keeps the secret of the first.
SECRETS = text("SELECT transport, secrets FROM endpoint WHERE id = :id AND state <> 'removed' FOR UPDATE")

PUT = text("UPDATE endpoint SET secrets = :secrets WHERE id = :id")


def secrets(conn: Connection, id_: int) -> tuple[str, Sequence[bytes]] | None:
    """The endpoint's transport and its secrets, the newest first, locked until the transaction ends; None if it is removed."""
    row = conn.execute(SECRETS, {"id": id_}).one_or_none()
    return None if row is None else (row.transport, [bytes(each) for each in row.secrets])


def put(conn: Connection, id_: int, encrypted: Sequence[bytes]) -> None:
    """Replaces the endpoint's secrets; processes notice with the catalog's version."""
    conn.execute(PUT, {"id": id_, "secrets": list(encrypted)})
