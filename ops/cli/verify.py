"""The command that verifies the ledger."""

# ruff: noqa: PLC0415 - commands import what they need when they run

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, progress, show_json

if TYPE_CHECKING:
    from ops.settings import Settings
    from schemas.ledger.assurance import Claim
    from schemas.ledger.fault import Fault, Verified

INTACT, NOT_INTACT, NOT_CHECKED = 0, 1, 2


@click.command()
@click.option("--tenant", help="Only this tenant.")
@click.option("--subject", help="Only this subject of the tenant.")
@click.option("--new", is_flag=True, help="Only what was recorded since the last verification that moved the verified points.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the work.")
@click.option("--without-keys", is_flag=True, help="Accept that fingerprints and chain keys are not checked.")
@JSON
@DATA
def verify(tenant: str | None, subject: str | None, new: bool, jobs: int, without_keys: bool, as_json: bool, data: Path) -> int:
    """Check that the ledger is as it was written.

    Checks every hash, link, number, column, content and head, that nothing is there twice, the tenants' logs, and that the
    database's own protections are there; names every fault. Exit code 0: all intact. 1: a fault, or nothing to check. 2: it
    could not be checked, or not all of it for want of WAXSEAL_KEYS. A check of the whole ledger is recorded, for metrics and
    status, if the login may: as a member of the role waxseal_verifier, or as the database's owner.

    Example: waxseal verify --tenant acme
    """
    from ops.admin.verifying.verify_ledger import Wanted, verification
    from ops.cli.terminal.faults import fault_reporter
    from ops.runtime import gc_tuning
    from ops.system.stack_file import settings_for

    if subject is not None and tenant is None:
        raise click.UsageError("--subject needs --tenant", click.get_current_context())
    if new and tenant is not None:
        raise click.UsageError("--new is of the whole ledger", click.get_current_context())
    settings, began = settings_for(data, "database_url"), datetime.now(UTC)
    faulty: set[str | None] = set()
    tell = fault_reporter(as_json)

    def report(fault: "Fault") -> None:
        faulty.add(fault.tenant)
        tell(fault)

    gc_tuning.tune()
    with verification(settings, report) as ledger:
        with progress("verifying", 0 if tenant or new else ledger.size()) as show:
            verified = ledger.new(show) if new else ledger.all_of(Wanted(tenant, subject, jobs), show)
        made = list(ledger.claims(faulty)) if tenant is None else []
        skipped = [] if ledger.keys is not None else ["fingerprint", "chain key"]
    if tenant is None and (new or verified.verdict != "nothing"):
        _record(settings, verified, began, "new" if new else "whole", made)
    if skipped and not as_json:
        click.echo("Not checked, for want of WAXSEAL_KEYS: fingerprints and the keys of chains.", err=True)
    if not as_json and verified.verdict != "nothing":
        for name, each in made:
            click.echo(f"{name}: {each.word}" + (f" ({each.missing})" if each.missing else ""))
    code = _conclude(verified, as_json, skipped, "since the verified points" if new else "in the ledger")
    if new and verified.verdict == "nothing":
        code = INTACT  # there is nothing new
    return NOT_CHECKED if code == INTACT and skipped and not without_keys else code


def _record(
    settings: "Settings", verified: "Verified", began: datetime, part: Literal["new", "whole"], made: list[tuple[str, "Claim"]]
) -> None:
    from ops.admin.verifying.verify_ledger import keep_claims, note

    unkept, why = keep_claims(settings, made, part), note(settings, verified, began, part)
    if unkept and unkept == why:
        click.echo(f"The result is not recorded, and neither metrics nor status will show it: {why}", err=True)
        return
    if unkept:
        click.echo(f"What can be claimed is not recorded, and status will not show it: {unkept}", err=True)
    if why:
        click.echo(f"The result is not recorded, and metrics will not show it: {why}", err=True)


def _conclude(verified: "Verified", as_json: bool, skipped: list[str], where: str) -> int:
    if as_json:
        counts = {"entries": verified.entries, "chains": verified.chains, "faults": verified.faults}
        show_json({"verdict": verified.verdict, **counts, "not_checked": skipped})
    elif verified.verdict == "nothing":
        click.echo(f"nothing to check {where}")
    else:
        what = "intact" if not verified.faults else f"NOT intact, {counted(verified.faults, 'fault', 'faults')}"
        entries, chains = counted(verified.entries, "entry", "entries"), counted(verified.chains, "chain", "chains")
        click.echo(f"{what}: {entries} in {chains} {where}")
    return INTACT if verified.verdict == "intact" else NOT_INTACT


COMMANDS: tuple[click.Command, ...] = (verify,)
