"""Mailboxes for operators: their state, and acts on them. Every act is audited."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy import RowMapping as Row

from ops.admin.bulk import Named
from ops.admin.read_session import known_tenant, snapshot
from ops.admin.views import View, rfc3339
from ops.errors import NotReady, OpsError, Unknown
from ops.runtime.db import transaction
from ops.runtime.vault import Vault
from ops.settings import Settings
from pipeline.store.admin import audit
from pipeline.store.mail import items as mail_items
from pipeline.store.mail import leases as mail_leases
from pipeline.store.mail import mailbox_overview, mailboxes, unreadable_folders
from schemas.access import By
from schemas.mailbox import Mailbox

_POLL: Final = 0.1  # seconds between two looks while waiting for a pull

_PLAIN: Final = (
    "tenant",
    "name",
    "kind",
    "username",
    "state",
    "reason",
    "failures",
    "error",
    "slow",
    "lease_owner",
    "unreadable",
)
_TIMES: Final = ("state_at", "began_at", "pulled_at", "next_pull_at", "reconciled_at", "failing_since", "lease_until")

Asked = tuple[int, str, datetime]


def list_mailboxes(engine: Engine, tenant: str | None) -> Iterator[View]:
    """State and progress of the mailboxes. Raises `OpsError` for a tenant that does not exist."""
    with snapshot(engine) as conn:
        if tenant is not None:
            known_tenant(conn, tenant)
        yield from map(_view, mailbox_overview.mailboxes(conn, tenant))


def show_mailbox(engine: Engine, named: Named) -> View:
    """State and progress of one mailbox, folder by folder. Raises `OpsError` for one that does not exist."""
    with snapshot(engine) as conn:
        id_ = _known(conn, named)
        (row,) = mailbox_overview.mailboxes(conn, named.tenant, named.name)
        folders = [
            {
                **{name: each[name] for name in ("folder", "lane", "done", "total")},
                **{name: rfc3339(each[name]) for name in ("begun_at", "moved_at", "finished_at")},
            }
            for each in mailbox_overview.folders(conn, id_)
        ]
        unreadable = [
            {"folder": folder, "error": error, "since": rfc3339(since)}
            for folder, (error, since) in unreadable_folders.errors(conn, id_).items()
        ]
        return {**_view(row), **mail_items.count(conn, id_), "by_folder": folders, "unreadable_folders": unreadable}


def pause(engine: Engine, named: Named, reason: str) -> bool:
    """Stops pulling the mailbox until it is resumed; returns whether it was active. A pull in progress writes nothing more."""

    def act(conn: Connection, id_: int, now: datetime) -> bool:
        moved = mailboxes.move_from(conn, id_, "active", "paused", now, reason)
        if moved:
            mailboxes.note(conn, id_, "mailbox_paused", f"by {named.who}: {reason}", now)
        return moved

    return _act(engine, named, "mailbox pause", act)


def resume(engine: Engine, named: Named) -> bool:
    """Pulls the mailbox again, at once; returns whether it was not active. Credentials that were refused are tried again."""

    def act(conn: Connection, id_: int, now: datetime) -> bool:
        moved = mailboxes.move(conn, id_, "active", None, now)
        if moved:
            mailboxes.note(conn, id_, "mailbox_active", f"by {named.who}", now)
        return moved

    return _act(engine, named, "mailbox resume", act)


def resync(engine: Engine, named: Named, folder: str | None) -> bool:
    """Has the mailbox compared with the mails that are held, and missing ones fetched. No held mail is fetched again."""

    def act(conn: Connection, id_: int, now: datetime) -> bool:
        mail_leases.revoke(conn, id_)  # otherwise a pull in progress would write the old positions again
        dropped = mail_items.drop_positions(conn, id_, folder)
        if folder is not None and not dropped:
            read = sorted({each["folder"] for each in mailbox_overview.folders(conn, id_)})
            raise OpsError(f"{named.tenant}/{named.name} reads no folder {folder!r}, but {', '.join(read) or 'none yet'}")
        mail_leases.make_due(conn, [id_], now, anyway=True)
        return True

    return _act(engine, named, "mailbox resync", act)


def sync(engine: Engine, tenant: str | None, name: str | None, by: By | None = None) -> list[Asked]:
    """Makes active mailboxes due at once, failing ones too; returns id, title and time of the request of each.

    The audit says who asked, if that is told.

    Raises `OpsError` for a mailbox that does not exist, or that is named and not active.
    """
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        if tenant is not None and name is not None:
            _known(conn, Named(tenant, name))
        found = mailbox_overview.mailboxes(conn, tenant, name)
        if name is not None and found[0]["state"] != "active":
            raise OpsError(f"{tenant}/{name} is not pulled, it is {found[0]['state']}: {found[0]['reason']}")
        found = [row for row in found if row["state"] == "active"]
        mail_leases.make_due(conn, [row["id"] for row in found], now, anyway=True)
        if by is not None:
            audit.record(conn, by, "mailbox sync", {"tenant": tenant, "mailbox": name}, len(found), now, "done")
    return [(row["id"], f"{row['tenant']}/{row['name']}", now) for row in found]


def wait_synced(engine: Engine, asked: Sequence[Asked], seconds: float, show: Callable[[int], None]) -> list[str]:
    """Waits until each mailbox was pulled after the request, with nothing left to fetch; returns the errors of failed ones.

    Raises `NotReady` if some are not done within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        left, errors = _unsynced(engine, asked)
        show(len(asked) - len(left))
        if not left:
            return errors
        if time.monotonic() > deadline:
            raise NotReady(f"not pulled within {seconds:.0f} s: {', '.join(left[:5])}; is a `waxseal mail-pull` running?")
        time.sleep(_POLL)


def _unsynced(engine: Engine, asked: Sequence[Asked]) -> tuple[list[str], list[str]]:
    left, errors = [], []
    with snapshot(engine) as conn:
        rows = {row["id"]: row for row in mailbox_overview.mailboxes(conn, None)}
        unreadable = {id_: unreadable_folders.errors(conn, id_) for id_, row in rows.items() if row["unreadable"]}
    for id_, title, since in asked:
        row = rows.get(id_)
        if row is None or row["state"] == "paused":
            continue
        if row["state"] == "needs_reauthorization":
            errors.append(f"{title}: {row['reason']}")
        elif row["failures"] and row["next_pull_at"] > since and row["lease_until"] is None:
            errors.append(f"{title}: {row['error']}")
        elif _is_pulling(row, since):
            left.append(title)
        else:
            errors += [f"{title}: {folder}: {error}" for folder, (error, _) in unreadable.get(id_, {}).items()]
    return left, errors


def _is_pulling(row: Row, since: datetime) -> bool:
    """Whether the pull is not finished: none since then, a backfill to complete, or a pull that is due or in progress."""
    pulled = row["pulled_at"] is not None and row["pulled_at"] >= since
    under_way = row["lease_until"] is not None or row["next_pull_at"] <= datetime.now(UTC)
    return not pulled or bool(row["unfinished"]) or under_way


def _view(row: Row) -> View:
    return {
        **{name: row[name] for name in _PLAIN},
        **{name: rfc3339(row[name]) for name in _TIMES},
        "backfill_done": int(row["done"] or 0),
        "backfill_total": None if row["total"] is None else int(row["total"]),
        "unreadable": row["unreadable"],
        "backfill_finished": bool(row["folders"]) and not row["unfinished"],
    }


def configured(engine: Engine, settings: Settings, tenant: str, name: str) -> Mailbox:
    """The mailbox as configured, its secrets decrypted. Raises `OpsError` for one that does not exist."""
    vault = Vault(settings.fernet_keys())
    with snapshot(engine) as conn:
        mailbox = mailboxes.get(conn, _known(conn, Named(tenant, name)), vault.decrypt)
    assert mailbox is not None
    return mailbox


def _act(engine: Engine, named: Named, name: str, act: Callable[[Connection, int, datetime], bool]) -> bool:
    """Runs and audits the act; one that changes nothing is not audited."""
    now = datetime.now(UTC)
    with transaction(engine) as conn:
        moved = act(conn, _known(conn, named), now)
        if moved:
            filter_: dict[str, Any] = {"tenant": named.tenant, "mailbox": named.name}
            audit.record(conn, named.who, name, filter_, 1, now, "done")
    return moved


def _known(conn: Connection, named: Named) -> int:
    id_ = mailboxes.find(conn, named.tenant, named.name)
    if id_ is None:
        raise Unknown(f"there is no mailbox {named.tenant}/{named.name}: `waxseal mailbox list` lists them")
    return id_
