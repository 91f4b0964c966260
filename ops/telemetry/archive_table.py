"""The part of the table of metrics that is about the archive of the write-ahead log."""

from ops.process_roles import RELAY
from ops.telemetry.metric_kinds import gauge

ARCHIVE_BEHIND = gauge(
    "wal_archive_behind_bytes",
    "Bytes of its write-ahead log that Postgres has not archived yet; 0 if it archives none.",
    (RELAY,),
)
ARCHIVE_FAILING = gauge(
    "wal_archive_failing", "Is 1 while the last attempt of Postgres to archive its write-ahead log failed, else 0.", (RELAY,)
)
