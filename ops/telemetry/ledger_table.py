"""The part of the table of metrics that is about the ledger: the tenants' logs, what can be claimed of them, and erasure."""

from ops.process_roles import ERASER, RELAY, SEALER, SEQUENCER
from ops.telemetry import label_sets as sets
from ops.telemetry.metric_kinds import WORK_SECONDS, counter, gauge, histogram

LOG_LEAVES = counter("log_leaves_total", "Entries that were given a position in their tenant's log.", (SEQUENCER,))
LOG_SEQUENCE_SECONDS = histogram(
    "log_sequence_duration_seconds", "One transaction that gives entries of one tenant positions.", (SEQUENCER,), WORK_SECONDS
)
LOG_ASIDE = gauge(
    "log_set_aside", "Chains, and tenants, whose entries cannot be given positions, because they are damaged.", (SEQUENCER,)
)

LOG_SEAL_SECONDS = histogram(
    "log_seal_duration_seconds", "One checkpoint, from reading the log to its publication.", (SEALER,), WORK_SECONDS
)
LOG_UNSEALED_SECONDS = gauge(
    "log_unsealed_age_seconds", "For how long the log that waits longest has had leaves that are in no checkpoint.", (SEALER,)
)
LOG_REFUSED = gauge(
    "log_refused",
    "Logs that are not signed, because what was published or anchored of them is not a part of them.",
    (SEALER,),
)
LOG_ANCHORS = counter(
    "log_anchors_total",
    "Checkpoints that were to be anchored, by the kind of place, and whether it took them.",
    (SEALER,),
    kind=sets.ANCHORS,
    outcome=("anchored", "failed"),
)
LOG_ANCHORED_AT = gauge(
    "log_anchor_last_success_timestamp_seconds",
    "When a place of this kind last took a checkpoint from this process.",
    (SEALER,),
    kind=sets.ANCHORS,
)
LEDGER_CLAIMS = gauge(
    "ledger_claims", "Tenants by what was last found that can be claimed of their ledgers.", (RELAY,), claim=sets.CLAIMS
)
LEDGER_CLAIMED_AT = gauge(
    "ledger_claims_checked_timestamp_seconds",
    "When the claim that is longest unchecked was checked; 0 if there is none.",
    (RELAY,),
)

ERASED_ENTRIES = counter("erased_entries_total", "Entries whose content was erased by retention.", (ERASER,))
RETENTION_HELD = gauge("retention_held", "Is 1 while nothing is erased because a clock may have jumped, else 0.", (ERASER,))
RETENTION_BEHIND = gauge(
    "retention_behind_seconds", "Seconds by which the policy that is most behind is late, after the last run.", (ERASER,)
)

REMOVED = counter(
    "removed_total",
    "What was removed because it is kept no longer: rows, and of attempts days.",
    (ERASER,),
    what=sets.KEPT,
)
KEPT_SINCE = gauge(
    "kept_since_timestamp_seconds",
    "Since when there are rows, by what they are; the time of the last look if there were none.",
    (ERASER,),
    what=sets.KEPT,
)
