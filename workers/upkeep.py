"""What every relay does beside relaying: partitions of the attempt log, documents of mails, and an offer to collect figures."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog

from ops.blobs import open_blobs
from ops.chores import Chore
from ops.collector import SECONDS, Collector
from ops.db import Engine, transaction
from ops.settings import Settings
from pipeline.store import partitions
from workers.broker import QUEUE
from workers.depths import queues
from workers.mail_maker import DocumentMaker
from workers.mail_reader import MailReader

HOURLY: Final = 3600.0
DOCUMENTS: Final = 1.0  # seconds between two looks for mails without a document
AHEAD: Final = 8  # days, today among them, so that a week without a relay is no harm

_log = structlog.get_logger()


class Upkeep:
    """Goes on from construction to `close`, in threads of its own."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._collector = Collector(settings.database_url, partial(queues, settings.amqp_url), QUEUE)
        self._maker = DocumentMaker(engine, open_blobs(settings), MailReader(dns=settings.mail_dns))
        self._chores = (
            Chore("partitions", HOURLY, partial(make_partitions, engine)),
            Chore("documents", DOCUMENTS, self._maker.turn),
            Chore("collector", SECONDS, self._collector.turn),
        )

    def close(self) -> None:
        """End it, within a few seconds."""
        self._maker.close()
        for chore in self._chores:
            chore.close()
        self._collector.close()


def make_partitions(engine: Engine) -> None:
    """Make those of the coming days; yesterday's too, for a try that began before midnight."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with transaction(engine) as conn:
        made = partitions.ensure(conn, yesterday, AHEAD + 1)
    if made:
        _log.info("partitions_made", partitions=made)
