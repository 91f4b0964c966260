"""The command that erases what is recorded of a subject."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ops.cli.terminal.confirm import Rate
from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, progress, show_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ops.admin.erasure.erase_subject import ErasurePlan
    from ops.admin.erasure.erased_blobs import Swept
    from ops.settings import Settings
    from schemas.ledger.erasure import Erased

_MOST: Final = 100_000  # numbers that --seq may name


class _Numbers(click.ParamType[list[int]]):
    """Numbers of entries, and ranges of them: 3,5,10-20."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Read them."""
        if isinstance(value, list):
            return value
        found: list[int] = []
        for part in value.split(","):
            first, _, last = part.strip().partition("-")
            if not (first.isdecimal() and first.isascii() and (not last or (last.isdecimal() and last.isascii()))):
                self.fail(f"{part!r} is no number of an entry; write 3, or 3,5,10-20", param, ctx)
            span = range(int(first), int(last or first) + 1)
            if not span or len(found) + len(span) > _MOST:
                self.fail(f"{part!r} is empty or names more than {_MOST} entries", param, ctx)
            found += span
        return found


@click.command()
@click.argument("tenant")
@click.argument("subject")
@click.argument("more", nargs=-1, type=_Numbers(), metavar="")
@click.option("--seq", "seqs", type=_Numbers(), multiple=True, help="Only these entries: 3 5 8, or 3,5,10-20. May be repeated.")
@click.option("--reason", required=True, help="Why, in a few words. It is kept in the ledger for ever.")
@click.option("--by", "who", required=True, help="Who decided it. Kept for ever as well.")
@click.option("--subject-name", "name", is_flag=True, help="Erase the subject's name too, wherever Waxseal copied it.")
@click.option("--dry-run", is_flag=True, help="Only show what would be erased, as without --yes.")
@click.option("--yes", is_flag=True, help="Do it, without being asked.")
@click.option("--rate", type=Rate(), default="2000/s", show_default=True, help="At most this many entries per s, m or h.")
@JSON
@DATA
def erase(
    tenant: str,
    subject: str,
    more: Sequence[list[int]],
    seqs: Sequence[list[int]],
    reason: str,
    who: str,
    name: bool,
    dry_run: bool,
    yes: bool,
    rate: float,
    as_json: bool,
    data: Path,
) -> None:
    """Erase the content of a subject's entries. Without --yes it only shows what would be erased.

    Content, salt, large bodies that nothing else refers to, documents, what was copied for searching, held mails, dead letters
    of these events and kept answers of receivers. Unfinished deliveries of them are discarded. The entries stay, with their
    hashes, and so do all proofs: an entry of kind erasure in the same chain says what was erased, why and by whom, and
    `waxseal verify` accepts that. Entries that are recorded while it runs are not touched. If interrupted, the same command
    does the rest. There is no way back. Needs the login of the database's owner or one with the role waxseal_eraser.

    Example: waxseal erase acme order-123 --reason "request of 3 May" --by dpo@acme.example --yes
    """
    from ops.admin.erasure.erase_subject import Wanted, carry_out, plan
    from ops.admin.read_session import open_engine
    from ops.system.stack_file import settings_for
    from pipeline.ledger.erase import Order

    order = Order(_text("--by", who), _text("--reason", reason))
    _check_options(subject, seqs, more, order.reason + "\n" + order.by, name=name, dry_run=dry_run, yes=yes)
    only = sorted({number for each in (*seqs, *more) for number in each}) or None
    settings = settings_for(data, "database_url")
    with open_engine(settings) as engine:
        planned = plan(engine, settings, Wanted(tenant, subject, only, name))
        _show_plan(planned, as_json)
        if planned.does_nothing:
            if not as_json:
                click.echo("nothing to erase: all of it was erased before", err=True)
            _sweep(settings, engine, as_json)
            return
        if not yes:
            click.echo("nothing was erased: add --yes", err=True)
            return
        from ops.admin.bulk import Pace

        with progress("erasing", planned.counted.erasable) as show:
            erased = carry_out(engine, planned, order, Pace(rate), show)
        swept = _sweep(settings, engine, as_json, say=False)
    _show_done(erased, swept, as_json)


def _text(option: str, value: str) -> str:
    if not value.strip():
        raise click.UsageError(f"{option} is empty: it is what an auditor will read", click.get_current_context())
    if len(value) > 1000 or not value.isprintable():
        raise click.UsageError(f"{option} must be one line of 1000 characters at most", click.get_current_context())
    return value.strip()


def _check_options(
    subject: str,
    seqs: Sequence[list[int]],
    more: Sequence[list[int]],
    told: str,
    *,
    name: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    context = click.get_current_context()
    if more and not seqs:
        raise click.UsageError("numbers of entries need --seq before them; put a subject with spaces in quotes", context)
    if name and seqs:
        raise click.UsageError("--subject-name goes with the whole subject: its other entries hold the name, too", context)
    if dry_run and yes:
        raise click.UsageError("--dry-run or --yes, not both", context)
    if subject.casefold() in told.casefold():
        raise click.UsageError("--reason and --by are kept for ever and must not name the subject: give a case number", context)


def _show_plan(planned: "ErasurePlan", as_json: bool) -> None:
    found = planned.counted
    unfinished = {state: number for state, number in found.deliveries.items() if state not in ("delivered", "discarded")}
    if as_json:
        show_json(
            {
                "would_erase": {
                    "entries": found.erasable,
                    "bytes": found.bytes,
                    "blobs": found.blobs,
                    "documents": found.documents,
                    "deliveries": unfinished,
                    "subject_name": planned.name,
                },
                "chain": planned.chain.chain_id.hex,
                "erased_before": found.gone,
                "kept": found.own,
            }
        )
        return
    lines = [f"{counted(found.erasable, 'entry', 'entries')} with {found.bytes / 2**20:.1f} MiB of content"]
    if found.blobs:
        lines.append(f"{counted(found.blobs, 'blob', 'blobs')}, those of them that nothing else refers to")
    if found.documents:
        lines.append(counted(found.documents, "document", "documents"))
    if unfinished:
        states = ", ".join(f"{number} {state}" for state, number in sorted(unfinished.items()))
        lines.append(f"unfinished deliveries, to be discarded: {states}")
    if planned.name:
        lines.append("the subject's name")
    if found.gone:
        lines.append(f"already without content: {counted(found.gone, 'entry', 'entries')}{_last(planned)}")
    if found.own:
        lines.append(f"never erased: {counted(found.own, 'entry', 'entries')} of Waxseal's own")
    click.echo("\n".join(lines))


def _last(planned: "ErasurePlan") -> str:
    """The last erasure that took some of it."""
    numbers = planned.only if planned.only is not None else ()
    found = next((each for seq in reversed(numbers) if (each := planned.erased.of(seq)) is not None), planned.erased.last)
    return "" if found is None else f"; entry {found.seq} erased some: {found.reason}, {found.by}, {found.at:%Y-%m-%d %H:%M}"


def _sweep(settings: "Settings", engine: "Engine", as_json: bool, *, say: bool = True) -> "Swept | None":
    """Sees to the blobs of erased content. If the store is away, the eraser or the next `erase` does it."""
    from datetime import UTC, datetime

    from ops.admin.erasure.erased_blobs import sweep
    from ops.runtime.blobs import open_blobs
    from pipeline.errors import BlobsAway

    try:
        swept = sweep(engine, open_blobs(settings), datetime.now(UTC))
    except BlobsAway as error:
        click.echo(f"large bodies are not deleted yet, and will be when this is run again: {error}", err=True)
        return None
    if say and as_json:
        show_json({"erased": {"entries": 0}, "blobs_deleted": swept.deleted, "blobs_waiting": swept.waiting})
    return swept


def _show_done(erased: "Erased", swept: "Swept | None", as_json: bool) -> None:
    if as_json:
        went = {name: getattr(erased, name) for name in ("entries", "bytes", "documents", "mails", "letters")}
        blobs = {} if swept is None else {"blobs_deleted": swept.deleted, "blobs_waiting": swept.waiting}
        show_json({"erased": {**went, "discarded": sum(erased.discarded.values())}, **blobs})
        return
    click.echo(
        f"erased {counted(erased.entries, 'entry', 'entries')}, {erased.bytes / 2**20:.1f} MiB; "
        f"{counted(sum(erased.discarded.values()), 'delivery', 'deliveries')} discarded, "
        f"{counted(erased.letters, 'dead letter', 'dead letters')} emptied"
    )
    if swept is not None and swept.waiting:
        click.echo(f"{counted(swept.waiting, 'blob', 'blobs')} set aside; the eraser deletes them after a day")


COMMANDS: tuple[click.Command, ...] = (erase,)
