"""Checks of the tenants' logs: whether one is refused, and whether what is recorded gets into checkpoints that outlive it."""

from collections.abc import Iterator

from sqlalchemy import Connection

from ops.admin.doctor.finding import Finding, note, ok, wrong
from ops.settings import Settings
from pipeline.store.log import checkpoints


def check_logs(conn: Connection, settings: Settings) -> Iterator[Finding]:
    """A finding for each refused log; else one of where they are anchored."""
    refused = checkpoints.refusals(conn)
    for row in refused:
        mend = f"`waxseal log status --tenant {row['tenant']}`, and runbook.md, WaxsealLogRefused"
        yield wrong("log", f"{row['tenant']} is not signed ({row['kind']}): {row['detail']}", mend)
    if refused:
        return
    if settings.log_anchors:
        yield ok("log", f"no log is refused; anchored at {len(settings.log_anchors.split())} places")
    else:
        said = "checkpoints are anchored nowhere: if the ledger and its published files were rewritten, nobody would notice"
        yield note("log", said, "set WAXSEAL_LOG_ANCHORS (log.md)")
