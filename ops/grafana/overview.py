"""The overview: the route of a message in its order, on one screen."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from ops.grafana.frame import framed
from ops.grafana.panels import Limits, Text, bars, lines, number
from ops.grafana.promql import age, increase, largest, or_zero, rate, series, total
from ops.grafana.slo import OBJECTIVES, budget_left

STAGES = {
    "inbox": "1 inbox",
    "sequencing": "log",
    "unclaimed": "2 unclaimed",
    "in_flight": "3 in flight",
    "retries": "4 retries",
    "mail": "mail",
}

_NUMBERS: Final[tuple[Panel, ...]] = (
    number(
        Text(
            "Accepted",
            "Events recorded per second.",
            "look at the route below: the first line that falls names the stage",
            "WaxsealQueueStalled",
        ),
        rate("ingest_messages_total", 'outcome="accepted"'),
        "mps",
    ),
    number(
        Text(
            "Delivered",
            "Deliveries per second that their endpoint took.",
            "open the dashboard Delivery: it says whether endpoints or Waxseal fail",
            "WaxsealDeliveryBudgetBurn",
        ),
        rate("deliveries_total", 'result="delivered"'),
        "ops",
    ),
    *(budget_left(objective) for objective in OBJECTIVES),
    number(
        Text(
            "Oldest waits",
            "Age of the oldest that waits to be recorded, or to be claimed for its first try.",
            "see the ages by stage below, then open the dashboard Queues",
            "WaxsealInboxTooOld",
        ),
        largest("stage_oldest_age_seconds", 'stage=~"inbox|unclaimed"'),
        "s",
        Limits(60, 300),
    ),
    number(
        Text(
            "Dead letters",
            "Dead letters that wait for a decision.",
            "run `waxseal dead list`, mend the cause, then `waxseal dead replay`",
            "WaxsealDeadLettersForgotten",
        ),
        f"sum({largest('dead_letters', by='queue')})",
        "short",
        Limits(1, 100),
    ),
    number(
        Text(
            "Chain",
            "Faults that the last verification found, and chains set aside within a day.",
            "run `waxseal verify`: it names the chain and the entry; change nothing in the ledger before",
            "WaxsealChainBroken",
        ),
        or_zero(largest("chain_broken_links")) + " + " + or_zero(increase("dead_letters_total", "1d", 'reason="chain_broken"')),
        "short",
        Limits(1, 1),
    ),
)

_TAKEN: Final = or_zero(rate("ingress_responses_total", 'status="202"'))
_FETCHED: Final = or_zero(rate("mail_fetched_total"))
_ROUTE: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "The route of events",
            "Events per second at each stage up to the ledger. The first two lines agree while ingest keeps up.",
            "compare line by line: 2 below 1 means ingest or the broker is slow, 4 below 3 means duplicates",
            "WaxsealQueueStalled",
        ),
        {
            "1 received over HTTP and mail": f"{_TAKEN} + {_FETCHED}",
            "2 ingested of these": rate("ingest_messages_total", 'outcome=~"accepted|duplicate"', 'source!="amqp"'),
            "3 ingested, with AMQP": rate("ingest_messages_total", 'outcome=~"accepted|duplicate"'),
            "4 recorded in the chain": rate("dedupe_messages_total", 'result="new"'),
            "rejected": rate("ingest_messages_total", 'outcome="rejected"'),
        },
        "mps",
        size=(12, 10),
    ),
    lines(
        Text(
            "The route of deliveries",
            "Deliveries per second at each stage after the ledger: one event makes a delivery for each subscriber.",
            "compare line by line: 6 above 5 means retries, 7 below 6 means failing attempts: open Delivery",
            "WaxsealDeliveryBudgetBurn",
        ),
        {
            "5 first attempts": rate("delivery_first_attempt_delay_seconds_count"),
            "6 attempts": rate("delivery_attempts_total"),
            "7 delivered": rate("deliveries_total", 'result="delivered"'),
            "dead-lettered": rate("dead_letters_total"),
        },
        "mps",
        size=(12, 10),
    ),
)

_WAITING: Final[tuple[Panel, ...]] = (
    bars(
        Text(
            "Oldest at each stage",
            "How long the oldest has waited, in the order of the route.",
            "act on the first red stage: the later ones wait for it",
            "WaxsealOldestTooOld",
        ),
        {legend: largest("stage_oldest_age_seconds", f'stage="{stage}"') for stage, legend in STAGES.items()},
        "s",
        Limits(60, 300),
        apart={"3 in flight": Limits(300, 900), "4 retries": Limits(300, 900), "mail": Limits(900, 3600)},
    ),
    lines(
        Text(
            "Backlog",
            "Messages in the inbox, and deliveries that are overdue; those behind an open breaker are, too.",
            "open Queues: it shows for each queue whether it drains, and when it will be empty",
            "WaxsealBacklogGrowing",
        ),
        {
            "inbox": total("queue_messages", 'queue="waxseal.ingest"', 'state="ready"'),
            "deliveries overdue": largest("retries_due", 'when="overdue"'),
        },
        "short",
        size=(8, 8),
    ),
    bars(
        Text(
            "Servers",
            "Seconds since Postgres and RabbitMQ last answered any process.",
            "see that the server runs and answers; the processes continue by themselves when it does",
            "WaxsealServerSilent",
        ),
        {"{{server}}": age("server_last_answer_timestamp_seconds", by="server")},
        "s",
        Limits(10, 30),
        size=(5, 8),
    ),
    number(
        Text(
            "Processes away",
            "Processes that Prometheus cannot read.",
            "run `waxseal status`, and read the log of the process that is not there",
            "WaxsealProcessDown",
        ),
        f"count({series('up')}) - sum({series('up')})",
        "short",
        Limits(1, 1),
        size=(3, 8),
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    return framed(
        "waxseal-overview",
        "Waxseal / Overview",
        "Is anything wrong, and where on the route? Where the lines part is the fault.",
        {"": [*_NUMBERS, *_ROUTE, *_WAITING]},
    )
