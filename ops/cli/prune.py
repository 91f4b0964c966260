"""The command that drops what is no longer needed."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.terminal.confirm import ActTerms, bulk_act
from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import Column, counted, progress, show_json, show_list

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ops.settings import Settings

_LOOKS = 20  # at the queues
_BETWEEN_LOOKS = 0.25  # seconds

_PARTITION: tuple[Column, ...] = (
    ("day", "day"),
    ("attempts", "attempts"),
    ("MiB", lambda row: f"{row['bytes'] / 2**20:.1f}"),
    ("state", "state"),
)


_ROWS: dict[str, tuple[str, str]] = {
    "deliveries": ("delivery that nothing refers to", "deliveries that nothing refers to"),
    "operator_events": ("operator event", "operator events"),
    "audit": ("row of the audit", "rows of the audit"),
    "mail_items": ("mail that its mailbox no longer has", "mails that their mailboxes no longer have"),
}


class _Age(click.ParamType[timedelta]):
    """A duration of a day at least."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        from schemas.units import seconds

        try:
            age = value if isinstance(value, timedelta) else timedelta(seconds=seconds(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if age < timedelta(days=1):
            self.fail("must be a day at least, as 30d", param, ctx)
        return age


@click.command()
@click.option("--attempts-older-than", "attempts", type=_Age(), help="Drop attempts of days before that, as 30d.")
@click.option("--letters-older-than", "letters", type=_Age(), help="Drop dead letters replayed or discarded before that.")
@click.option(
    "--deliveries-older-than", "deliveries", type=_Age(), help="Remove deliveries that were delivered or discarded before that."
)
@click.option("--operator-events-older-than", "operator_events", type=_Age(), help="Remove operator events before that.")
@click.option("--audit-older-than", "audit", type=_Age(), help="Remove operators' acts before that from the audit.")
@click.option(
    "--mail-items-older-than", "mail_items", type=_Age(), help="Forget mails that their mailbox listed last before that."
)
@click.option(
    "--blobs-older-than", "blobs", type=_Age(), help="Remove blobs that nothing refers to and that were not stored since."
)
@click.option("--dry-run", is_flag=True, help="Only show what would be dropped, as without --yes.")
@bulk_act
@DATA
def prune(dry_run: bool, terms: ActTerms, data: Path, blobs: timedelta | None, **ages: timedelta | None) -> None:
    """Drop what is no part of the ledger and is old. Without --yes it only shows what that is.

    Attempts are dropped in whole days; no other session waits for that for longer than a fifth of a second. A delivery goes
    when it was delivered or discarded before that, and no attempt of that day and no dead letter is left; past deliveries are
    counted by day. Mails that were fetched are forgotten when their mailbox no longer has them. A blob that no entry and no
    dead letter refers to is set aside first, and deleted after the same time again; not while messages wait in the inbox.
    Nothing else is touched: no entry or content of the ledger, no open dead letter, no delivery that could be tried.
    Needs the login of the database's owner. The settings WAXSEAL_KEEP_… have the eraser do the same every hour.

    Example: waxseal prune --attempts-older-than 30d --letters-older-than 180d --yes
    """
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for

    if blobs is None and not any(ages.values()):
        which = "which? say --attempts-older-than or another age: see --help"
        raise click.UsageError(which, click.get_current_context())
    if dry_run and terms.yes:
        raise click.UsageError("--dry-run or --yes, not both", click.get_current_context())
    now = datetime.now(UTC)
    settings = settings_for(data, "database_url")
    with open_engine(settings) as engine:
        if (age := ages["attempts"]) is not None:
            _prune_attempts(engine, now - age, terms)
        if (age := ages["letters"]) is not None:
            _prune_dead_letters(engine, now - age, terms)
        for what in _ROWS:
            if (age := ages[what]) is not None:
                _remove(engine, what, now - age, terms)
        if blobs is not None:
            _prune_blobs(settings, engine, now - blobs, terms)
    if not terms.yes:
        click.echo("nothing was dropped: add --yes", err=True)


def _prune_attempts(engine: "Engine", before: datetime, terms: ActTerms) -> None:
    from ops.admin.bulk import Act
    from ops.admin.erasure.prune import drop_attempts, old_partitions
    from ops.admin.views import partition_view

    old = old_partitions(engine, before)
    show_list(map(partition_view, old), _PARTITION, terms.as_json, none="no attempts are that old", limited=True)
    if terms.yes and old:
        act = Act(terms.who, "prune attempts", {"before": before.date().isoformat()})
        with progress("dropping", len(old)) as show:
            done = drop_attempts(engine, act, len(old), before, show)
        _tell(terms, "dropped_days", done, f"dropped the attempts of {counted(done, 'day', 'days')}")


def _prune_dead_letters(engine: "Engine", before: datetime, terms: ActTerms) -> None:
    from ops.admin.bulk import Act, Pace
    from ops.admin.erasure.prune import count_old_dead_letters, drop_dead_letters

    planned = count_old_dead_letters(engine, before)
    _tell(terms, "old_letters", planned, f"{counted(planned, 'dead letter', 'dead letters')} replayed or discarded before that")
    if terms.yes and planned:
        act = Act(terms.who, "prune dead letters", {"before": before.isoformat()})
        with progress("deleting", planned) as show:
            done = drop_dead_letters(engine, act, planned, before, Pace(terms.rate), show)
        _tell(terms, "dropped_letters", done, f"dropped {counted(done, 'dead letter', 'dead letters')}")


def _remove(engine: "Engine", what: str, before: datetime, terms: ActTerms) -> None:
    from ops.admin.bulk import Act
    from ops.admin.erasure.keeping import count_old, remove_rows

    planned = count_old(engine, what, before)
    names = _ROWS[what]
    _tell(terms, f"old_{what}", planned, f"{counted(planned, *names)} before that")
    if terms.yes and planned:
        act = Act(terms.who, f"prune {what.replace('_', ' ')}", {"before": before.isoformat()})
        with progress("removing", planned) as show:
            done = remove_rows(engine, act, what, planned, before, show)
        _tell(terms, f"removed_{what}", done, f"removed {counted(done, *names)}")


def _prune_blobs(settings: "Settings", engine: "Engine", before: datetime, terms: ActTerms) -> None:
    from ops.admin.bulk import Act
    from ops.admin.orphan_blobs import collect, find
    from ops.runtime.blobs import open_blobs

    if terms.yes:
        _need_empty_inbox(settings)
    blobs = open_blobs(settings)
    orphans = find(engine, blobs, before)
    size = sum(kept.size for kept in (*orphans.fresh, *orphans.aside))
    if terms.as_json:
        show_json({"orphans": len(orphans.fresh), "orphans_aside": len(orphans.aside), "bytes": size})
    else:
        aside = f"{len(orphans.aside)} of them set aside for as long" if orphans.aside else "none of them set aside yet"
        click.echo(f"{counted(len(orphans), 'blob', 'blobs')} that nothing refers to, {size / 2**20:.1f} MiB, {aside}")
    if terms.yes and len(orphans):
        act = Act(terms.who, "prune blobs", {"before": before.isoformat()})
        with progress("removing", len(orphans)) as show:
            done = collect(engine, blobs, act, orphans, show)
        _tell(terms, "taken_blobs", done, f"{counted(done, 'blob', 'blobs')} set aside or deleted")


def _need_empty_inbox(settings: "Settings") -> None:
    """Raises `OpsError` unless the inbox is empty: a waiting message may hold the only reference to a blob."""
    from ops.errors import OpsError
    from ops.settings import require
    from workers.amqp.queue_depths import depths
    from workers.amqp.topology import INBOX, UNROUTED

    require(settings, "amqp_url")
    for _ in range(_LOOKS):
        found = depths(settings.amqp_url)
        waiting = sum(found[queue] or 0 for queue in (INBOX, UNROUTED))
        if not waiting:
            return
        time.sleep(_BETWEEN_LOOKS)
    raise OpsError(
        f"{waiting} messages wait in {INBOX} or {UNROUTED} and may refer to blobs: run this again when they are recorded"
    )


def _tell(terms: ActTerms, name: str, count: int, sentence: str) -> None:
    if terms.as_json:
        show_json({name: count})
    else:
        click.echo(sentence)


COMMANDS: tuple[click.Command, ...] = (prune,)
