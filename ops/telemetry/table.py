"""The table of metrics: name, meaning, the processes that feed it, and the values of each label.

The page ops/docs/metrics.md is generated from it; `ops.telemetry.metrics` has the functions that workers call with their facts.
A message is counted in `ingest_messages_total` once: by the ingress when it rejects it, else by ingest after COMMIT.
"""

from ops.process_roles import DELIVER, ERASER, INGEST, INGRESS, MAIL_IDLE, MAIL_PULL, RELAY, SUPERVISOR, WORKERS
from ops.telemetry import archive_table, ledger_table, search_table  # noqa: F401 - their metrics are part of the table
from ops.telemetry import label_sets as sets
from ops.telemetry.label_sets import PROCESSES
from ops.telemetry.metric_kinds import (
    ATTEMPTS,
    BATCH_SIZES,
    JOURNEY_SECONDS,
    MESSAGE_BYTES,
    WORK_SECONDS,
    counter,
    gauge,
    histogram,
)

# --- Ingest: the ingress and the ingest workers

INGEST_MESSAGES = counter(
    "ingest_messages_total",
    "Messages whose outcome was decided, by outcome.",
    (INGRESS, INGEST),
    source=sets.SOURCES,
    outcome=sets.OUTCOMES,
)
INGEST_REJECTIONS = counter(
    "ingest_rejections_total",
    "Messages that were not admitted, by reason.",
    (INGRESS, INGEST),
    source=sets.SOURCES,
    reason=sets.REJECTIONS,
)
INGEST_SECONDS = histogram(
    "ingest_duration_seconds",
    "From a message's arrival to the answer to its sender.",
    (INGRESS,),
    WORK_SECONDS,
    source=sets.SOURCES,
)
INGEST_BYTES = histogram("ingest_message_bytes", "Size of a message's body.", (INGRESS,), MESSAGE_BYTES, source=sets.SOURCES)
INGRESS_RESPONSES = counter(
    "ingress_responses_total", "Answers of the HTTP ingress, by status.", (INGRESS,), status=sets.STATUSES
)
UNROUTED_MESSAGES = counter(
    "unrouted_messages_total",
    "Messages that came out of waxseal.unrouted, because the inbox queue had been deleted.",
    (INGEST,),
)

BATCH_MESSAGES = histogram("dedupe_batch_messages", "Messages in one batch of the ingest worker.", (INGEST,), BATCH_SIZES)
BATCH_SECONDS = histogram(
    "dedupe_batch_duration_seconds", "One batch, from its first message to COMMIT.", (INGEST,), WORK_SECONDS
)
DEDUPE_MESSAGES = counter(
    "dedupe_messages_total", "Messages looked up in the ledger, by result.", (INGEST,), result=("new", "duplicate")
)
CONFLICTS = counter(
    "dedupe_conflicts_total",
    "Duplicates whose content is not what was recorded under their identity.",
    (INGEST,),
    source=sets.SOURCES,
)

# --- The ledger

CHAIN_APPEND_SECONDS = histogram("chain_append_duration_seconds", "Extending the chains of one batch.", (INGEST,), WORK_SECONDS)
CHAIN_LOCK_SECONDS = histogram(
    "chain_lock_wait_seconds",
    "Waiting for the heads of one batch whose chains all exist, with the look-ups in the same round trip.",
    (INGEST,),
    WORK_SECONDS,
)
CHAIN_HEAD = gauge(
    "chain_head_sequence", "Entries in the ledger; estimated when there are many chains.", (RELAY,), chain=sets.CHAINS
)
CHAIN_VERIFIED = gauge(
    "chain_verified_sequence", "Entries that the last verification of the whole ledger has read.", (RELAY,), chain=sets.CHAINS
)
CHAIN_BROKEN = gauge(
    "chain_broken_links", "Faults that the last verification of the whole ledger has found.", (RELAY,), chain=sets.CHAINS
)
CHAIN_VERIFIED_AT = gauge(
    "chain_verify_last_success_timestamp_seconds", "When the whole ledger was last found intact; 0 if it never was.", (RELAY,)
)

# --- Delivery

ATTEMPTS_MADE = counter(
    "delivery_attempts_total",
    "Attempts to deliver, by outcome, and by whose fault a failure was.",
    (DELIVER,),
    transport=sets.TRANSPORTS,
    outcome=("delivered", "failed"),
    fault=sets.FAULTS,
)
ATTEMPT_SECONDS = histogram(
    "delivery_attempt_duration_seconds",
    "One attempt, from the look-up of the address to the end of the response.",
    (DELIVER,),
    WORK_SECONDS,
    transport=sets.TRANSPORTS,
)
DELIVERIES = counter(
    "deliveries_total",
    "Deliveries that ended, by result; cancelled: their endpoint was removed, or their content erased, before that.",
    (DELIVER, RELAY, ERASER),
    transport=sets.TRANSPORTS,
    result=("delivered", "dead_lettered", "cancelled"),
)
FIRST_ATTEMPT_SECONDS = histogram(
    "delivery_first_attempt_delay_seconds",
    "From the transaction that planned it to a delivery's first attempt.",
    (DELIVER,),
    JOURNEY_SECONDS,
    transport=sets.TRANSPORTS,
)
END_TO_END_SECONDS = histogram(
    "delivery_end_to_end_seconds",
    "From the transaction that recorded the event to the end of the attempt that delivered it.",
    (DELIVER,),
    JOURNEY_SECONDS,
    transport=sets.TRANSPORTS,
)
ATTEMPTS_TO_SUCCESS = histogram("delivery_attempts_to_success", "Attempts that a delivery took.", (DELIVER,), ATTEMPTS)
HTTP_CONNECTIONS = counter(
    "delivery_connections_total",
    "Connections used to deliver, by whether one was reused.",
    (DELIVER,),
    reused=("true", "false"),
)
DESTINATIONS = gauge("destinations", "Endpoints, by state.", (RELAY,), state=sets.DESTINATION_CONDITIONS)
BREAKER_TRANSITIONS = counter("breaker_transitions_total", "State changes of circuit breakers.", (DELIVER,), to=sets.BREAKERS)
ENDPOINTS_DISABLED = counter(
    "endpoints_disabled_total",
    "Endpoints disabled because they asked for it, or because every attempt failed for days.",
    (DELIVER,),
)

# --- Actors

ACTOR_MESSAGES = counter(
    "actor_messages_total",
    "Messages that an actor has finished.",
    (DELIVER, MAIL_PULL),
    queue=(),
    actor=(),
    outcome=sets.ACTOR_OUTCOMES,
)
ACTOR_SECONDS = histogram(
    "actor_duration_seconds", "One run of an actor.", (DELIVER, MAIL_PULL), WORK_SECONDS, queue=(), actor=()
)
ACTOR_WAIT_SECONDS = histogram(
    "actor_queue_wait_seconds", "From enqueueing to an actor's start.", (DELIVER, MAIL_PULL), WORK_SECONDS, pool=()
)
ACTOR_IN_PROGRESS = gauge("actor_in_progress", "Messages that actors are working on.", (DELIVER, MAIL_PULL), pool=())
WORKER_THREADS = gauge("worker_threads", "Threads that can run an actor.", (DELIVER, MAIL_PULL), pool=())

# --- What waits, and for how long

QUEUE_MESSAGES = gauge(
    "queue_messages",
    "Messages in a queue: ready ones, and unacked ones that this process holds. The sum over all processes is the whole.",
    (RELAY, INGEST, DELIVER, MAIL_PULL),
    queue=(),
    state=("ready", "unacked"),
)
QUEUE_CONSUMERS = gauge("queue_consumers", "Consumers of a queue.", (RELAY,), queue=())
QUEUE_OLDEST_SECONDS = gauge(
    "queue_oldest_message_age_seconds",
    "Age of the oldest that waits in the inbox, or for a try of its delivery.",
    (RELAY, INGEST),
    queue=(),
)
OLDEST_SECONDS = gauge(
    "stage_oldest_age_seconds",
    "How long the oldest has waited at a stage, 0 if none waits; of several processes' figures the largest counts.",
    (RELAY, INGEST),
    stage=sets.WAITING,
)
RETRIES_DUE = gauge(
    "retries_due", "Deliveries that wait for a try, the first one too, by when it is due.", (RELAY,), when=("overdue", "future")
)
DEAD_LETTERS = gauge(
    "dead_letters", "Dead letters that wait for a decision, by the stage that buried them.", (RELAY,), queue=sets.STAGES
)
DEAD_LETTER_OLDEST_SECONDS = gauge(
    "dead_letter_oldest_age_seconds", "Age of the oldest dead letter.", (RELAY,), queue=sets.STAGES
)
DEAD_LETTERS_MADE = counter(
    "dead_letters_total", "Dead letters, by stage and reason.", (INGEST, DELIVER), stage=sets.STAGES, reason=sets.BURIALS
)
DEAD_LETTER_REPLAYS = counter(
    "dead_letter_replays_total", "Dead letters decided upon, by result.", (RELAY,), result=("replayed", "discarded")
)
COLLECTOR_UP = gauge(
    "collector_up", "Whether the last collection succeeded (1) or not (0).", (RELAY,), collector=sets.COLLECTORS
)
COLLECTOR_LAST_SUCCESS = gauge(
    "collector_last_success_timestamp_seconds", "When a collection last succeeded.", (RELAY,), collector=sets.COLLECTORS
)

# --- Mailboxes

PULLS = counter(
    "mail_pulls_total",
    "Batches of mailboxes, by outcome.",
    (MAIL_PULL,),
    kind=sets.KINDS_OF_MAILBOX,
    outcome=sets.MAIL_OUTCOMES,
)
PULL_SECONDS = histogram(
    "mail_pull_duration_seconds", "One batch of one mailbox.", (MAIL_PULL,), WORK_SECONDS, kind=sets.KINDS_OF_MAILBOX
)
FETCHED = counter(
    "mail_fetched_total",
    "Mails fetched and published, by whether they were there before.",
    (MAIL_PULL,),
    kind=sets.KINDS_OF_MAILBOX,
    lane=sets.MAIL_LANES,
)
MISSING = counter(
    "mail_missing_total", "Mails that a server listed but did not return.", (MAIL_PULL,), kind=sets.KINDS_OF_MAILBOX
)
RESYNCS = counter("mail_resyncs_total", "Times that a cursor was no longer valid.", (MAIL_PULL,), kind=sets.KINDS_OF_MAILBOX)
REAUTHORIZATIONS = counter(
    "mail_reauthorizations_needed_total",
    "Mailboxes suspended because their credentials were refused.",
    (MAIL_PULL,),
    kind=sets.KINDS_OF_MAILBOX,
)
MAIL_TOKEN_REFRESHES = counter(
    "mail_token_refreshes_total",
    "Requests for access tokens of mailboxes, by result; refused: a person has to authorise the mailbox again.",
    (MAIL_PULL, MAIL_IDLE),
    kind=(*sets.KINDS_OF_MAILBOX, "other"),
    outcome=("refreshed", "refused", "failed"),
)
IDLE_CONNECTIONS = gauge("mail_idle_connections", "Connections that watch folders of mailboxes by IDLE.", (MAIL_IDLE,))
MAILBOXES = gauge("mailboxes", "Mailboxes, by state.", (RELAY,), state=sets.MAILBOX_CONDITIONS)
LAST_SUCCESS = gauge(
    "ingest_last_success_timestamp_seconds",
    "When a connector last read its source successfully.",
    (MAIL_PULL,),
    connector=("mail",),
)

# --- What the processes stand on

POOL_CONNECTIONS = gauge(
    "db_pool_connections", "Connections of the process's pools, by state.", WORKERS, state=("idle", "checked_out")
)
POOL_SIZE = gauge("db_pool_size", "Connections that the process's pools may hold.", WORKERS)
POOL_WAIT_SECONDS = histogram(
    "db_pool_wait_seconds", "Waiting for a connection of a pool, and for connecting if the pool grows.", WORKERS, WORK_SECONDS
)
SERVER_LAST_ANSWER = gauge(
    "server_last_answer_timestamp_seconds",
    "When Postgres or RabbitMQ last answered, where this process asks it.",
    WORKERS,
    server=sets.SERVERS,
)
BROKER_RECONNECTS = counter(
    "broker_reconnects_total",
    "Times a broker connection was made anew.",
    (INGRESS, INGEST, RELAY, DELIVER, MAIL_PULL),
    connection=sets.CONNECTIONS,
)
BROKER_ALARM = gauge(
    "broker_alarm",
    "Is 1 while RabbitMQ blocks this process's publisher for want of it, else 0.",
    (INGRESS, RELAY, MAIL_PULL),
    resource=sets.RESOURCES,
)
BLOB_OPERATIONS = counter(
    "blob_operations_total",
    "Calls to the blob store; away: it could not be reached, refused, or took too long.",
    (INGRESS, INGEST, RELAY, DELIVER, MAIL_PULL, ERASER),
    operation=sets.BLOB_CALLS,
    outcome=sets.BLOB_OUTCOMES,
)
DISK_FREE = gauge(
    "disk_free_bytes",
    "Bytes free on the disk of the data folder, or of a blob store that is a folder.",
    (RELAY, SUPERVISOR),
    disk=sets.DISKS,
)
DISK_SIZE = gauge("disk_size_bytes", "The size of that disk.", (RELAY, SUPERVISOR), disk=sets.DISKS)
PROCESS_RESTARTS = counter(
    "process_restarts_total", "Processes the supervisor started again.", (SUPERVISOR,), process=sets.SUPERVISED
)
BUILD_INFO = gauge("build_info", "Always 1; what is running.", PROCESSES, version=(), python=())
