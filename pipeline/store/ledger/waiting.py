"""What waits for its position in a tenant's log, as the statements of other modules read it."""

from typing import Final

#: For a FROM clause: each span of entries of one chain. A row of log_pending has those of one statement that appended entries.
SPANS: Final = """
    (SELECT tenant, id, at, chain_id, first, first + count - 1 AS last FROM log_pending
       CROSS JOIN LATERAL unnest(chain_ids, firsts, counts) AS span (chain_id, first, count))"""
