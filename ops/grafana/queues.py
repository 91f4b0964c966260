"""Queues and dead letters: what waits, since when, whether it drains, and what was given up."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from ops.grafana.frame import framed
from ops.grafana.panels import Limits, Text, bars, lines, number, rows
from ops.grafana.promql import age, increase, largest, ours, quantile, rate, total

QUEUE: Final = 'queue=~"$queue"'
READY: Final = 'state="ready"'
DAY: Final = 86_400

_INTAKE: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Answers of the ingress",
            "Answers per second, by status: 202 is a message that was taken in.",
            "5xx are ours: see RabbitMQ; 4xx are the sender's: the rejections beside say why",
            "WaxsealIngestBudgetBurn",
        ),
        {"{{status}}": rate("ingress_responses_total", by="status")},
        "reqps",
        size=(6, 8),
        stacked=True,
    ),
    lines(
        Text(
            "Time to answer",
            "From a webhook's arrival to the answer. The strictest sender gives up after 3 s.",
            "see RabbitMQ: the ingress answers when the broker has confirmed the message",
            "WaxsealIngestBudgetBurn",
        ),
        {f"p{percent}": quantile(percent / 100, "ingest_duration_seconds") for percent in (50, 95, 99)},
        "s",
        Limits(0.5, 1),
        size=(6, 8),
    ),
    lines(
        Text(
            "Rejections",
            "Messages per second that were not admitted, by reason.",
            "`signature` after a change of secrets means that one side has the old one; see `waxseal dead list` for the others",
            "WaxsealDeadLettersArriving",
        ),
        {"{{reason}}": rate("ingest_rejections_total", by="reason")},
        "mps",
        size=(6, 8),
    ),
    lines(
        Text(
            "Size of messages",
            "Size of the bodies that the ingress took in.",
            "large ones go to the blob store: see its size, and the limit of the source",
            "WaxsealBlobStoreAway",
        ),
        {f"p{percent}": quantile(percent / 100, "ingest_message_bytes") for percent in (50, 95, 99)},
        "bytes",
        size=(6, 8),
    ),
)

_READY: Final = ours("queue_messages", QUEUE, READY)
_INBOX: Final = ours("queue_messages", 'queue="waxseal.ingest"', READY)
_GROWTH: Final = f"sum by (queue) (deriv({_READY}[10m]))"
_QUEUES: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Depth",
            "Messages in each queue: ready ones wait, unacked ones are being worked on.",
            "if ready ones grow, see whether the queue has consumers, then whether they are slow: the dashboard Workers",
            "WaxsealBacklogGrowing",
        ),
        {"{{queue}} {{state}}": total("queue_messages", QUEUE, by="queue, state")},
        "short",
    ),
    lines(
        Text(
            "Age of the oldest by stage",
            "How long the oldest has waited at each stage. The axis is logarithmic.",
            "act on the first stage of the route that is red: inbox, unclaimed, in_flight, retries",
            "WaxsealOldestTooOld",
        ),
        {"{{stage}}": largest("stage_oldest_age_seconds", 'stage!="dead_letters"', by="stage")},
        "s",
        Limits(60, 300),
        log=True,
    ),
    lines(
        Text(
            "Age of the oldest by queue",
            "How long the oldest has waited in the inbox, or for a try of its delivery. The axis is logarithmic.",
            "see whether the queue has consumers, then whether Postgres answers",
            "WaxsealInboxTooOld",
        ),
        {"{{queue}}": largest("queue_oldest_message_age_seconds", QUEUE, by="queue")},
        "s",
        Limits(60, 300),
        size=(8, 8),
        log=True,
    ),
    bars(
        Text(
            "Time until drained",
            "How long the queue needs to drain at the pace of the last ten minutes; very long if it grows.",
            "add processes that consume the queue, as long as Postgres has CPU to spare",
            "WaxsealBacklogGrowing",
        ),
        {"{{queue}}": f"{total('queue_messages', QUEUE, READY, by='queue')} / clamp_min(-{_GROWTH}, 0.001)"},
        "s",
        Limits(600, 3600),
    ),
    bars(
        Text(
            "Consumers",
            "Consumers of the queues that always need one: without it, nothing takes messages out.",
            "start the process that consumes it: `waxseal status` shows which one is away",
            "WaxsealNoConsumer",
        ),
        {"{{queue}}": largest("queue_consumers", QUEUE, 'queue=~"waxseal[.](ingest|deliver)"', by="queue")},
        "short",
        Limits(1, 1, falling=True),
    ),
    lines(
        Text(
            "In and out of the inbox",
            "Messages per second that ingest takes out, and by how many the inbox grows: in is their sum.",
            "if it grows while ingest is busy, start another `ingest`; if ingest does nothing, read its log",
            "WaxsealQueueStalled",
        ),
        {
            "out: ingested": rate("dedupe_messages_total"),
            "growth": f"sum(deriv({_INBOX}[10m]))",
        },
        "mps",
    ),
    lines(
        Text(
            "Unrouted messages",
            "Messages that arrived while the inbox queue did not exist, within an hour. None is lost.",
            "find out who deleted the queue `waxseal.ingest`: nothing of Waxseal does",
            "WaxsealMessagesUnrouted",
        ),
        {"unrouted": increase("unrouted_messages_total", "1h")},
        "short",
        Limits(1, 1),
        size=(6, 8),
    ),
    lines(
        Text(
            "Duplicates with other content",
            "Messages under an id that was recorded with other content, within an hour.",
            "run `waxseal events` for the source: its sender uses one id twice, or messages are forged",
            "WaxsealConflictingDuplicates",
        ),
        {"{{source}}": increase("dedupe_conflicts_total", "1h", by="source")},
        "short",
        Limits(1, 10),
        size=(6, 8),
    ),
)

_DEAD_LETTERS: Final[tuple[Panel, ...]] = (
    bars(
        Text(
            "Waiting dead letters",
            "Dead letters that wait for a decision, by the stage that buried them.",
            "run `waxseal dead list`, mend the cause, then `waxseal dead replay`",
            "WaxsealDeadLettersForgotten",
        ),
        {"{{queue}}": largest("dead_letters", by="queue")},
        "short",
        Limits(1, 100),
        size=(6, 8),
    ),
    bars(
        Text(
            "Oldest dead letter",
            "How long the oldest dead letter of each stage has waited for a decision. Waxseal keeps them all.",
            "decide on it: `waxseal dead replay` or `waxseal dead discard`",
            "WaxsealDeadLettersForgotten",
        ),
        {"{{queue}}": largest("dead_letter_oldest_age_seconds", by="queue")},
        "s",
        Limits(DAY, 5 * DAY),
        size=(6, 8),
    ),
    rows(
        Text(
            "Dead letters by stage and reason",
            "Dead letters made within the dashboard's time range.",
            "run `waxseal dead list` with the reason in the first line",
            "WaxsealDeadLettersArriving",
        ),
        f"{increase('dead_letters_total', '$__range', by='stage, reason')} > 0",
        "short",
        Limits(1, 10),
        value="dead letters",
    ),
    lines(
        Text(
            "Dead letters arriving",
            "Dead letters per second, by reason.",
            "see the table above for the stage, and mend the cause before replaying",
            "WaxsealDeadLettersArriving",
        ),
        {"{{reason}}": rate("dead_letters_total", by="reason")},
        "mps",
        stacked=True,
    ),
    lines(
        Text(
            "Decisions",
            "Dead letters that were replayed or discarded within an hour.",
            "see `waxseal audit`: it says who decided",
            "WaxsealDeadLettersForgotten",
        ),
        {"{{result}}": increase("dead_letter_replays_total", "1h", by="result")},
        "short",
    ),
)

_COLLECTORS: Final[tuple[Panel, ...]] = (
    number(
        Text(
            "Collectors",
            "1 while the elected relay can read the backlog from Postgres and RabbitMQ; 0 if its figures are old.",
            "see which server does not answer; until then trust no depth and no age on any dashboard",
            "WaxsealCollectorBlind",
        ),
        f"min({largest('collector_up', by='collector')})",
        "none",
        Limits(1, 1, falling=True),
        size=(6, 6),
    ),
    bars(
        Text(
            "Age of the figures",
            "Seconds since each collection last succeeded.",
            "see that a `relay` runs: one of them is elected to read the backlog every 15 s",
            "WaxsealCollectorBlind",
        ),
        {"{{collector}}": age("collector_last_success_timestamp_seconds", by="collector")},
        "s",
        Limits(60, 120),
        size=(18, 6),
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    return framed(
        "waxseal-queues",
        "Waxseal / Queues and dead letters",
        "What comes in, what waits and since when, and does it drain? What was given up, and why?",
        {"Intake": _INTAKE, "Queues": _QUEUES, "Dead letters": _DEAD_LETTERS, "Are these figures right?": _COLLECTORS},
        choices={"queue": "queue_messages"},
    )
