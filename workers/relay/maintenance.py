"""The relays' maintenance work: partitions of the attempt log, documents of mails, and the collector of metrics."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog

from ops.runtime.background import Chore
from ops.runtime.blobs import open_blobs
from ops.runtime.db import Engine, transaction
from ops.settings import Settings
from ops.telemetry import metrics
from ops.telemetry.collector import Broker, Collector
from ops.telemetry.disks import show_disk
from pipeline.store.deliveries import attempt_partitions
from workers.amqp.dramatiq_broker import QUEUE
from workers.amqp.inbox_probe import InboxProbe
from workers.amqp.queue_depths import queues
from workers.amqp.topology import INBOX
from workers.documents.mail_parser import MailParser
from workers.documents.maker import DocumentMaker

HOURLY: Final = 3600.0
DOCUMENTS: Final = 1.0  # seconds between two checks for mails without a document
AHEAD: Final = 8  # days, including today, so that a week without a relay does no harm

_log = structlog.get_logger()


class Maintenance:
    """Runs the maintenance from construction to `close`, in threads of its own."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        blobs = open_blobs(settings, called=metrics.observe_blob_call)
        self._collector = Collector(
            settings.direct_url,
            Broker(partial(queues, settings.amqp_url), InboxProbe(settings.amqp_url), QUEUE, INBOX),
            lease=settings.lease,
        )
        self._maker = DocumentMaker(engine, blobs, MailParser(dns=settings.mail_dns))
        self._chores = (
            Chore("partitions", HOURLY, partial(make_partitions, engine)),
            Chore("documents", DOCUMENTS, self._maker.turn),
            Chore("collector", settings.collect_every, self._collector.turn),
            # Beside the collector: a network disk can hang.
            Chore("disk", settings.collect_every, partial(show_disk, "blobs", blobs.folder)),
        )

    def close(self) -> None:
        """End the threads, within a few seconds."""
        self._maker.close()
        for chore in self._chores:
            chore.close()
        self._collector.close()


def make_partitions(engine: Engine) -> None:
    """Make the partitions of the coming days, and yesterday's for an attempt that began before midnight."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with transaction(engine) as conn:
        made = attempt_partitions.ensure(conn, yesterday, AHEAD + 1)
    if made:
        _log.info("partitions_made", partitions=made)
