"""The command that verifies the ledger."""

# ruff: noqa: PLC0415 - commands import what they need when they run

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.options import DATA
from ops.cli.terminal.output import JSON, counted, progress, show_json

if TYPE_CHECKING:
    from schemas.fault import Verified

INTACT, NOT_INTACT = 0, 1


@click.command()
@click.option("--tenant", help="Only this tenant.")
@click.option("--subject", help="Only this subject of the tenant.")
@JSON
@DATA
def verify(tenant: str | None, subject: str | None, as_json: bool, data: Path) -> int:
    """Check that the ledger is as it was written.

    Checks every hash, link, number, column, content and head, and names every fault. Exit code 0: all intact. 1: a fault, or
    nothing to check. 2: it could not be checked. A check of the whole ledger is recorded, for the metrics.

    Example: waxseal verify --tenant acme
    """
    from ops.admin.verification import Subject, note, whole_ledger
    from ops.cli.terminal.faults import fault_reporter
    from ops.system.stack_file import settings_for

    if subject is not None and tenant is None:
        raise click.UsageError("--subject needs --tenant", click.get_current_context())
    settings, began = settings_for(data, "database_url"), datetime.now(UTC)
    with whole_ledger(settings, Subject(tenant, subject)) as ledger:
        with progress("verifying", ledger.size()) as show:
            verified = ledger.verify(fault_reporter(as_json), show)
        skipped = [] if ledger.keys is not None else ["fingerprint", "chain key"]
    if tenant is None and verified.verdict != "nothing" and (why := note(settings, verified, began)):
        click.echo(f"The result is not recorded, and metrics will not show it: {why}", err=True)
    if skipped and not as_json:
        click.echo("Not checked, for want of WAXSEAL_KEYS: fingerprints and the keys of chains.", err=True)
    return _conclude(verified, as_json, skipped, "in the ledger")


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
