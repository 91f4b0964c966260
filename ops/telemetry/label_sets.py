"""The closed sets of values that labels may have. The last of each set stands for every value that is not in it.

None of them names tenants, sources or endpoints: their number has no bound.
"""

from typing import Final, get_args

from ops import process_roles
from ops.process_roles import SUPERVISOR, WORKERS
from pipeline import sources as source_kinds
from pipeline.errors import Rejected
from schemas.config import transports
from schemas.config.anchors import AnchorKind
from schemas.config.mailbox_kinds import MAIL_KINDS
from schemas.dead_letter import Stage
from schemas.endpoint_health import Breaker
from schemas.ledger.assurance import WORDS
from schemas.mailbox import LANES, MAILBOX_STATES

Closed = tuple[str, ...]

SOURCES: Final[Closed] = (*source_kinds.NAMES, *MAIL_KINDS, "unknown")
OUTCOMES: Final = ("accepted", "duplicate", "rejected", "error")
TRANSPORTS: Final[Closed] = (*transports.TRANSPORTS, "other")
HARMFUL: Final = ("too_slow", "crashed", "poison", "chain_broken")
REJECTIONS: Final[Closed] = (*Rejected.REASONS, "signature", "timestamp", "content_type", "rate_limited", *HARMFUL, "other")
STATUSES: Final = ("200", "202", "400", "401", "404", "405", "408", "411", "413", "415", "429", "431", "501", "503", "500")
BURIALS: Final[Closed] = ("exhausted", "expired", "gone", "refused", "disabled", "internal", *REJECTIONS)
KEPT: Final = ("deliveries", "attempts", "dead_letters", "operator_events", "audit", "verifications", "mail_items", "other")
BREAKERS: Final[Closed] = get_args(Breaker)
DESTINATION_CONDITIONS: Final = ("healthy", "degraded", "open", "paused")
FAULTS: Final = ("none", "destination", "platform")
STAGES: Final[Closed] = get_args(Stage)
CONNECTIONS: Final = ("consumer", "publisher", "actors", "other")
SERVERS: Final = ("postgres", "rabbitmq")
ACTOR_OUTCOMES: Final = ("done", "failed")
MAIL_OUTCOMES: Final = ("done", "more", "busy", "away", "throttled", "refused", "fenced", "internal")
MAILBOX_CONDITIONS: Final[Closed] = ("failing", *MAILBOX_STATES)
MAIL_LANES: Final[Closed] = tuple(LANES)
KINDS_OF_MAILBOX: Final[Closed] = MAIL_KINDS
BLOB_CALLS: Final = ("put", "get", "other")
BLOB_OUTCOMES: Final = ("ok", "away")
DISKS: Final = ("data", "blobs")
COLLECTORS: Final = ("database", "broker", "inbox")
RESOURCES: Final = ("memory", "disk", "other")

#: Where a message or a delivery can wait, in the order of its route.
WAITING: Final = ("inbox", "sequencing", "unclaimed", "in_flight", "retries", "mail", "dead_letters")

#: The kinds of places where checkpoints are anchored.
ANCHORS: Final[Closed] = get_args(AnchorKind)

#: One ledger; its logs per tenant are no closed set.
CHAINS: Final = ("all",)
CLAIMS: Final[Closed] = WORDS

PROCESSES: Final = (*WORKERS, SUPERVISOR)
SUPERVISED: Final[Closed] = (*WORKERS, "console", *process_roles.SERVERS, "prometheus", "other")
