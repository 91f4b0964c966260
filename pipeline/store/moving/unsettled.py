"""The tenant's deliveries that are not settled, or dead: what is still to be done, or decided, of it."""

from typing import Final

STATES: Final = ("pending", "leased", "paused", "dead")


def unsettled(endpoints: str) -> str:
    """A query for their ids and states, of an SQL array of endpoints.

    Each state has an index of its own; one look-up for all of them would read every delivery there is.
    """
    each = "SELECT id, state FROM delivery WHERE endpoint_id = ANY ({}) AND state = '{}'"
    return " UNION ALL ".join(each.format(endpoints, state) for state in STATES)
