"""The part of the table of metrics that is about the console's search index."""

from ops.process_roles import CONSOLE
from ops.telemetry.metric_kinds import counter, gauge

SEARCH_INDEXED = counter(
    "search_indexed_total", "Events and deliveries copied into the search index.", (CONSOLE,), kind=("event", "delivery")
)
SEARCH_BEHIND = gauge(
    "search_unindexed_entries",
    "Entries with a position in their log that are not in the search index; 0 where another console copies.",
    (CONSOLE,),
)
