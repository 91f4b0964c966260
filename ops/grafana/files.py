"""The files of all dashboards, as text."""

import json
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from ops.grafana import delivery, mailboxes, overview, queues, slo, workers

DASHBOARDS: Final = (overview, delivery, queues, workers, slo, mailboxes)


def files() -> dict[str, str]:
    """The text of each file by its name, which is the uid of its dashboard."""
    return {f"{built.uid}.json": encode(built) for built in (each.dashboard() for each in DASHBOARDS)}


def encode(dashboard: Dashboard) -> str:
    """The JSON of a dashboard, in which a change of one panel changes the lines of that panel only."""
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
