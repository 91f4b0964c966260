"""The relay: claims the deliveries that are due and hands them to the actors, in batches per endpoint.

Woken by Postgres when something was planned, and by the clock. Any number of relays may run. What a relay has claimed when it
dies is claimed again when the lease ends; what it cannot publish it hands back.
"""

import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Connection, Engine

from ops import health
from ops import log as logs
from ops.db import make_engine, passes, transaction
from ops.settings import Settings, require
from pipeline.store import deliveries
from schemas.delivery import Claim
from workers.broker import DELIVER_TOPOLOGY, envelope
from workers.publisher_thread import PublisherThread

CLAIM: Final = 500  # deliveries in one claim
BATCH: Final = 50  # deliveries in one message
BATCH_BYTES: Final = 4 * 1024 * 1024  # of their bodies
IN_FLIGHT: Final = 4  # claims that wait for the broker's confirms
CONFIRM_SECONDS: Final = 5.0
POLL: Final = 1.0  # seconds after which the relay looks unasked
FULL: Final = 0.01  # seconds until it looks again when nothing more may be leased
SWEEP: Final = 1.0  # seconds between two looks for leases that have ended
RECONNECT: Final = (0.2, 5.0)  # seconds, first and longest wait

_log = structlog.get_logger()
