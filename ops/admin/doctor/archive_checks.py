"""The check of the archive of the write-ahead log."""

from datetime import UTC, datetime
from typing import Final

from ops.admin.doctor.finding import Finding, note, ok, wrong
from pipeline.store.admin.server_facts import Archiving

MOST: Final = 512 * 2**20  # bytes that may wait: a burst of half a minute


def check_archiving(found: Archiving) -> Finding:
    """Whether the server archives its write-ahead log, and keeps up with it."""
    if not found.wanted:
        mend = "set WAXSEAL_WAL_ARCHIVE for `waxseal up`, or archive_mode of a server of your own: see backup.md"
        return note("wal archive", "none: a backup restores the moment at which it was taken, and nothing after it", mend)
    to = f" in {found.place}" if found.place else ""
    if found.failing:
        what = f"{found.failed} could not be archived{to}, after {found.failures} failures in all"
        return wrong("wal archive", what, "read the log of Postgres, which has what its archive_command said")
    if found.behind is not None and found.behind > MOST:
        what = f"{found.behind / 2**20:.0f} MiB wait to be archived{to}"
        return wrong("wal archive", what, "see that the archive's disk is fast enough, and that archive_command does not hang")
    if found.archived_at is None:
        return note("wal archive", f"nothing has been archived{to} since the server started", "look again in some minutes")
    behind = "" if found.behind is None else f", {found.behind / 2**20:.1f} MiB behind"
    seconds = (datetime.now(UTC) - found.archived_at).total_seconds()
    return ok("wal archive", f"archived{to} {max(0, seconds):.0f} s ago{behind}")
