"""The tenants' logs, the console's search index and erased content, a part of the dashboard of workers."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Panel

from ops.grafana.panels import Limits, Text, lines
from ops.grafana.promql import age, largest, quantile, rate

RETENTION: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Retention behind",
            "Seconds by which the policy that is most behind is late after the last run; held: 1 while a clock is doubted.",
            "run `waxseal retention`, which says why",
            "WaxsealRetentionHeld",
        ),
        {"behind": largest("retention_behind_seconds"), "held": largest("retention_held")},
        "s",
        Limits(86_400, 2 * 86_400),
        size=(8, 8),
    ),
    lines(
        Text(
            "Erased by retention",
            "Entries a second whose content is erased.",
            "run `waxseal retention`, which says what is due",
            "WaxsealRetentionHeld",
        ),
        {"entries": rate("erased_entries_total")},
        "short",
        size=(8, 8),
    ),
    lines(
        Text(
            "Removed, because it is kept no longer",
            "Deliveries, dead letters, operator events, acts, and days of attempts a second.",
            "compare with the settings WAXSEAL_KEEP_…, of which none removes anything by default",
            "WaxsealRetentionHeld",
        ),
        {"{{what}}": rate("removed_total", by="what")},
        "short",
        size=(8, 8),
    ),
    lines(
        Text(
            "Age of the oldest that is kept",
            "Of deliveries, attempts, dead letters, operator events, acts of the audit, verifications and mails.",
            "if it passes the setting, read the log of the eraser; what is dead or paused waits for a decision",
            "WaxsealRetentionHeld",
        ),
        {"{{what}}": age("kept_since_timestamp_seconds", by="what")},
        "s",
        size=(8, 8),
    ),
)

SEARCH: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Not in the search index",
            "Entries that have a position in their log and that the console does not find yet.",
            "if it grows, read the log of the console; deliveries and the ledger do not depend on it",
            "WaxsealSequencingLate",
        ),
        {"entries": largest("search_unindexed_entries")},
        "short",
        size=(8, 8),
    ),
    lines(
        Text(
            "Copied into the search index",
            "Events and deliveries per second that the console copies, to be searched.",
            "compare with the entries sequenced above: it may catch up after a pause",
            "WaxsealSequencingLate",
        ),
        {"{{kind}}": rate("search_indexed_total", by="kind")},
        "ops",
        size=(8, 8),
    ),
)

LOG: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Entries sequenced",
            "Entries per second that got their position in their tenant's log, and those recorded.",
            "if the first stays below the second, read the log of the sequencer; its process may be down",
            "WaxsealSequencingLate",
        ),
        {"sequenced": rate("log_leaves_total"), "recorded": rate("ingest_messages_total", 'outcome="accepted"')},
        "ops",
        size=(8, 8),
    ),
    lines(
        Text(
            "One transaction of the sequencer, p95",
            "Duration of a transaction that gives up to 2,000 entries of one tenant their positions.",
            "if it grows, Postgres is slow: see its disk",
            "WaxsealSequencingLate",
        ),
        {"p95": quantile(0.95, "log_sequence_duration_seconds")},
        "s",
        Limits(0.5, 2),
        size=(8, 8),
    ),
    lines(
        Text(
            "Set aside",
            "Chains and tenants whose entries the sequencer cannot give positions.",
            "its log names them; run `waxseal verify`",
            "WaxsealSequencingLate",
        ),
        {"set aside": largest("log_set_aside")},
        "short",
        Limits(1, 10),
        size=(8, 8),
    ),
    lines(
        Text(
            "Refused logs",
            "Logs that the sealer does not sign, because what is outside is not a part of them.",
            "run `waxseal log status`; after a restore, `waxseal log new-origin`",
            "WaxsealLogRefused",
        ),
        {"refused": largest("log_refused")},
        "short",
        Limits(1, 1),
        size=(6, 8),
    ),
    lines(
        Text(
            "Unsealed for",
            "How long the log that waits longest has had entries in no checkpoint, and the p95 of sealing one.",
            "read the log of the sealer: the place where logs are published may be away",
            "WaxsealLogUnsealed",
        ),
        {"unsealed": largest("log_unsealed_age_seconds"), "sealing p95": quantile(0.95, "log_seal_duration_seconds")},
        "s",
        Limits(60, 300),
        size=(6, 8),
    ),
    lines(
        Text(
            "Anchors",
            "Checkpoints per second that were to be anchored, by kind of place and outcome.",
            "run `waxseal log status`: it names the place; the log of the sealer says what it answered",
            "WaxsealNotAnchored",
        ),
        {"{{kind}} {{outcome}}": rate("log_anchors_total", by="kind, outcome")},
        "ops",
        size=(6, 8),
    ),
    lines(
        Text(
            "Last anchored",
            "Seconds since a place of each kind last took a checkpoint; a log that does not grow needs none.",
            "see the anchors beside",
            "WaxsealNotAnchored",
        ),
        {"{{kind}}": age("log_anchor_last_success_timestamp_seconds", by="kind")},
        "s",
        Limits(86_400, 7 * 86_400),
        size=(6, 8),
    ),
)
