"""Shows faults of the ledger or of a bundle as they are found: a line each, or JSON."""

from collections.abc import Callable
from dataclasses import asdict

import click

from ops.cli.terminal.output import printable, show_json
from schemas.ledger.fault import Fault


def fault_reporter(as_json: bool) -> Callable[[Fault], None]:
    """Prints each fault that it gets."""

    def report(fault: Fault) -> None:
        if as_json:
            show_json(asdict(fault))
            return
        where = "/".join(part for part in (fault.tenant, fault.subject) if part is not None)
        seq = "" if fault.seq is None else f" entry {fault.seq}"
        chain = "" if fault.chain is None else f" (chain {fault.chain})"
        click.echo(printable(f"{fault.kind}: {where}{seq}{chain}: {fault.detail}"))

    return report
