"""Brings tenants, sources, endpoints and mailboxes in line with a configuration file."""

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from ops.config.diff import Change, differences, taken_names, unnamed
from ops.config.read_file import ConfigRead, read_config
from ops.errors import Misconfigured, OpsError
from ops.runtime.db import make_engine, sqlstate, transaction
from ops.runtime.schema_check import check
from ops.runtime.vault import Vault
from ops.settings import Settings, environment, require
from pipeline.delivery.addresses import networks
from pipeline.delivery.settle_endpoint import begin_anew
from pipeline.store.config import catalog, configure
from pipeline.store.config.endpoint_row import settings_of
from pipeline.store.deliveries import inactive_endpoints, paused
from pipeline.store.mail import items as mail_items
from pipeline.store.mail import mailboxes
from schemas.access import By
from schemas.blob import LARGEST
from schemas.config.file import ConfigFile
from schemas.config.transports import TRANSPORTS
from schemas.endpoint import Endpoint
from schemas.mailbox import DELIVER_BACKFILL, EVERY_FOLDER, Mailbox
from schemas.source import Source

WAIT: Final = 5.0  # seconds that it waits for a lock, because others may wait for the locks that it has
PATIENCE: Final = 20.0  # seconds for which it tries again when another transaction was in the way
LONGEST: Final = 3600.0  # seconds for one statement: a removed endpoint may have millions of deliveries
_KEY_BYTES: Final = 32


@dataclass(frozen=True)
class Difference:
    """What was changed, or would be. `generated` holds the new secrets by endpoint; they can be shown only this once."""

    changes: Sequence[Change]
    generated: dict[str, str] = field(default_factory=dict, repr=False)
    dry_run: bool = False
    gives_up: int = 0  # undelivered deliveries of removed endpoints
    warnings: Sequence[str] = ()  # likely mistakes in the file, one line each

    @property
    def changed(self) -> list[Change]:
        """The changes that alter something."""
        return [change for change in self.changes if change.action in ("created", "changed", "removed")]


class NeedsConfirmation(OpsError):
    """Nothing was written: endpoints with undelivered deliveries would be removed, which needs a confirmation."""

    def __init__(self, what: str) -> None:
        super().__init__(f"to {what}, add --yes; --dry-run shows which")
        self.what = what


def apply_file(path: Path, settings: Settings, **options: Any) -> Difference:
    """Reads and applies the file, with the options of `apply_config`. Raises `BadConfig` as well."""
    return apply_config(read_config(path, environment()), settings, **options)


def apply_config(
    read: ConfigRead,
    settings: Settings,
    dry_run: bool = False,
    prune: bool = False,
    enable: bool = False,
    *,
    give_up: bool = False,
    who: By = "waxseal apply",
    agreed: Callable[[Connection, Sequence[Change]], None] = lambda _conn, _changes: None,
) -> Difference:
    """Applies the file in one transaction; changes nothing if any of it is invalid.

    Idempotent: what already matches is not written again, and processes that watch the catalog see no change. What the file
    does not name stays, unless `prune`. `agreed` is told the changes before they are written, when nobody else can change
    anything, and may raise. Raises `NeedsConfirmation` if an endpoint with undelivered deliveries is to be removed, unless
    `give_up`: then they are discarded, and the audit names `who`. Raises `OpsError` if another session holds locks that are
    needed for `PATIENCE` seconds.
    """
    require(settings, "database_url", "keys")
    vault = Vault(settings.fernet_keys())
    applied = partial(_applied, vault=vault, config=read.config, agreed=agreed, dry_run=dry_run, prune=prune)
    engine = make_engine(settings.direct_url, pool_size=1, statement_timeout=LONGEST)
    try:
        for attempt in Retrying(
            retry=retry_if_exception(_in_the_way), stop=stop_after_delay(PATIENCE), wait=wait_random(0, 0.5), reraise=True
        ):
            with attempt, transaction(engine) as conn:
                configure.limit_waits(conn, WAIT)
                difference = applied(conn, enable=enable, give_up=give_up, who=who)
    except DBAPIError as error:
        if _in_the_way(error):
            told = "another session, perhaps a worker that stands still, holds rows that this would change"
            raise OpsError(f"nothing was changed: {told}; try again in a minute") from error
        raise
    finally:
        engine.dispose()
    warnings = read.warnings(networks(settings.allow_networks), by_proxy=bool(settings.proxy))
    return replace(difference, warnings=warnings)


def _in_the_way(error: BaseException) -> bool:
    """Whether another transaction was in the way: a lock was not to be had in time, or there was a deadlock."""
    return sqlstate(error).startswith(("40", "55"))


def _applied(
    conn: Connection,
    vault: Vault,
    config: ConfigFile,
    *,
    agreed: Callable[[Connection, Sequence[Change]], None],
    dry_run: bool,
    prune: bool,
    enable: bool,
    give_up: bool,
    who: By,
) -> Difference:
    check(conn)
    configure.lock(conn)
    now = catalog.load(conn, vault.decrypt)
    pulled = mailboxes.load(conn, vault.decrypt)
    if faults := list(taken_names(config, now)):
        raise Misconfigured("\n".join(faults))
    changes = list(differences(config, now, pulled, enable=enable))
    if prune:
        changes += unnamed(config, now, configure.tenants_in_use(conn), pulled)
    given_up = _add_given_up(conn, changes)
    agreed(conn, changes)
    generated: dict[str, str] = {}
    if not dry_run:
        if given_up and not give_up:
            raise NeedsConfirmation(f"give up {_counted(given_up)} that removed endpoints have not received")
        changes, generated = _with_secrets(changes)
        _write(conn, vault, changes, who)
    return Difference(changes, generated, dry_run, given_up)


def _add_given_up(conn: Connection, changes: list[Change]) -> int:
    """Adds to each removal of an endpoint how many deliveries it gives up; returns their sum."""
    removed = {
        each.before.id: at for at, each in enumerate(changes) if each.action == "removed" and isinstance(each.before, Endpoint)
    }
    undelivered = inactive_endpoints.count_undelivered(conn, removed) if removed else {}
    for id_, count in undelivered.items():
        at = removed[id_]
        changes[at] = replace(changes[at], details=(*changes[at].details, f"gives up {_counted(count)}"))
    return sum(undelivered.values())


def _counted(count: int) -> str:
    return f"{count} {'delivery' if count == 1 else 'deliveries'}"


def _with_secrets(changes: list[Change]) -> tuple[list[Change], dict[str, str]]:
    """Gives a fresh secret to every endpoint that has none and whose deliveries are signed."""
    generated = {}
    for index, change in enumerate(changes):
        if isinstance(change.after, Endpoint) and not change.after.secrets and TRANSPORTS[change.after.transport].signed:
            secret = "whsec_" + base64.b64encode(os.urandom(_KEY_BYTES)).decode()
            generated[change.title] = secret
            changes[index] = replace(change, after=replace(change.after, secrets=(secret,)))
    return changes, generated


def _write(conn: Connection, vault: Vault, changes: Sequence[Change], who: By) -> None:
    """Writes the changes; first what takes long or may wait, because workers wait for the catalog once it is changed."""
    given_up = _give_up(conn, changes, who)
    for change in changes:
        if change.action in ("created", "changed"):
            _put(conn, vault, change)
        elif change.action == "removed":
            _remove(conn, change, who, given_up)


def _give_up(conn: Connection, changes: Sequence[Change], who: By) -> Mapping[int, int]:
    """Gives up what removed endpoints have not received, so that it does not go to their successors of the same name.

    Of an endpoint that is being removed, deliveries that are locked or leased are left to `_remove` and to the workers.
    Returns how many it gave up of each of those.
    """
    given_up, now = dict[int, int](), datetime.now(UTC)
    for change in changes:
        former = change.before
        if not isinstance(former, Endpoint):
            continue
        if change.action == "removed":
            given_up[former.id] = inactive_endpoints.give_up(conn, former.id, now)
        elif former.state == "removed" and (count := inactive_endpoints.give_up(conn, former.id, now, leased=True)):
            inactive_endpoints.note_removal(conn, who, former.tenant, former.name, count, now)
    return given_up


def _put(conn: Connection, vault: Vault, change: Change) -> None:
    if isinstance(change.after, Source):
        configure.put_source(conn, change.after, _encrypted(vault, change.after.secrets), change.settings)
    elif isinstance(change.after, Endpoint):
        secrets = _encrypted(vault, change.after.secrets)
        settings = settings_of(change.after, change.settings, vault.encrypt)
        endpoint_id = configure.put_endpoint(conn, change.after, secrets, settings, activate=change.activate)
        if change.activate and change.before is not None:
            now = datetime.now(UTC)
            begin_anew(conn, endpoint_id, now, "by its configuration")
            paused.release(conn, endpoint_id, now)
    elif isinstance(change.after, Mailbox):
        _put_mailbox(conn, vault, change, change.after)
    else:
        if change.action == "created":
            configure.add_tenant(conn, change.name, vault.encrypt(os.urandom(_KEY_BYTES)))
        configure.set_retention(conn, change.name, change.settings["retention"])


def _put_mailbox(conn: Connection, vault: Vault, change: Change, mailbox: Mailbox) -> None:
    """Writes the mailbox and its source. The source holds whether backfill is delivered, because fan-out reads it there."""
    now = datetime.now(UTC)
    settings: dict[str, Any] = {"max_body": LARGEST}
    if not mailbox.deliver_backfill:
        settings["options"] = {DELIVER_BACKFILL: "false"}
    if mailbox.retention is not None:
        settings["retention"] = mailbox.retention
    configure.put_source(conn, Source(mailbox.tenant, mailbox.name, mailbox.kind), (), settings)
    id_ = mailboxes.put(conn, mailbox, vault.encrypt, now, anew=change.activate)
    before = change.before
    if isinstance(before, Mailbox):
        if change.elsewhere:
            same_login = (before.kind, before.username) == (mailbox.kind, mailbox.username)
            mailboxes.begin_elsewhere(conn, id_, same_login=same_login)
        elif _older(before.sync_from, mailbox.sync_from):
            mail_items.drop_positions(conn, id_)  # mails that were skipped as too old are compared again; none is fetched twice
        if EVERY_FOLDER not in mailbox.folders:
            mailboxes.only_folders(conn, id_, mailbox.folders)
    if change.activate and mailboxes.move_from(conn, id_, "needs_reauthorization", "active", now):
        mailboxes.note(conn, id_, "mailbox_active", "by its configuration: it has other credentials", now)


def _older(before: datetime | None, after: datetime | None) -> bool:
    """Whether `after` includes older mails than `before` did; None includes all."""
    return before is not None and (after is None or after < before)


def _remove(conn: Connection, change: Change, who: By, given_up: Mapping[int, int]) -> None:
    if isinstance(change.before, Endpoint):
        now, id_ = datetime.now(UTC), change.before.id
        configure.remove_endpoint(conn, id_)
        count = given_up[id_] + inactive_endpoints.give_up(conn, id_, now)  # planned or handed back meanwhile
        inactive_endpoints.note_removal(conn, who, change.tenant, change.name, count, now)
    elif change.item in ("source", "mailbox"):
        configure.delete_source(conn, change.tenant, change.name)
    else:
        configure.delete_tenant(conn, change.name)


def _encrypted(vault: Vault, secrets: Sequence[str]) -> list[bytes]:
    return [vault.encrypt(secret.encode()) for secret in secrets]
