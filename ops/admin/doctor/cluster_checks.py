"""Checks of RabbitMQ as a cluster, by what `rabbitmqctl` says on one of its nodes: AMQP tells nothing of it."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ops.admin.doctor.finding import Finding, note, ok, wrong
from ops.errors import one_line

MEMBERS: Final = 3  # that a quorum queue has in a cluster of that size or larger
ASK_ALL: Final = (3, 12, 5)  # from then on a channel asks all members of a queue
TICK: Final = 6  # seconds; a quarter more is less than the 10 s after which our consumers leave a silent node
WITHHELD: Final = 1000  # milliseconds; less than it takes to consume elsewhere
# The second is of RabbitMQ 4.3 and newer.
_PARAMETERS: Final = """{case net_kernel:get_net_ticktime() of N when is_integer(N) -> N; _ -> 0 end,
application:get_env(rabbit, consumer_disconnected_timeout, 0)}."""
_JSON: Final = ("--formatter", "json", "--silent")
_SECONDS: Final = 60.0
_OURS: Final = "waxseal."


@dataclass(frozen=True, slots=True)
class Queue:
    """A quorum queue: on how many nodes it is, and how many of these are there at the moment."""

    members: int
    online: int


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The nodes of the cluster, those that run, and from which others each of them saw itself cut off."""

    nodes: Sequence[str]
    running: Sequence[str]
    partitions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)  # of the nodes that run
    tick: int = 0  # `net_ticktime`, seconds
    withheld: int = 0  # `consumer_disconnected_timeout`, milliseconds; 0 where RabbitMQ does not know it


def inspect_cluster(rabbitmqctl: str, vhost: str) -> ClusterFacts:
    """What the command says, for example `sudo rabbitmqctl`. Raises `OSError` or `ValueError` when it does not answer."""
    status = json.loads(_said(rabbitmqctl, "cluster_status", *_JSON))
    queues = json.loads(_said(rabbitmqctl, "list_queues", "-p", vhost, "name", "type", "members", "online", *_JSON))
    tick, withheld = map(int, re.findall(r"\d+", _said(rabbitmqctl, "eval", _PARAMETERS, "--silent")))
    quorum = [each for each in queues if each["name"].startswith(_OURS) and each["type"] in ("quorum", "rabbit_quorum_queue")]
    return ClusterFacts(
        nodes=[*status["disk_nodes"], *status.get("ram_nodes", ())],
        running=status["running_nodes"],
        partitions=status["partitions"] or {},
        queues={each["name"]: Queue(len(each["members"] or ()), len(each["online"] or ())) for each in quorum},
        versions={node: each["rabbitmq_version"] for node, each in status["versions"].items() if "rabbitmq_version" in each},
        tick=tick,
        withheld=withheld,
    )


def heard_cluster(rabbitmqctl: str, vhost: str) -> Iterator[Finding]:
    """Every check, or that the command did not answer."""
    try:
        facts = inspect_cluster(rabbitmqctl, vhost)
    except (OSError, ValueError, KeyError, TypeError) as error:
        mend = "give a command that runs rabbitmqctl on a node, with the rights of its user"
        yield wrong("broker cluster", f"{rabbitmqctl}: {one_line(error)}", mend)
        return
    yield from check_cluster(facts)


def check_cluster(facts: ClusterFacts) -> Iterator[Finding]:
    """Whether all nodes run and see each other, and each quorum queue is on enough of them."""
    down = sorted(set(facts.nodes) - set(facts.running))
    for node, others in facts.partitions.items():
        mend = "see that the nodes reach each other, then `rabbitmqctl stop_app` and `start_app` on the smaller part"
        yield wrong("broker cluster", f"{node} was cut off from {', '.join(others)}: it holds an old state", mend)
    if down:
        mend = "start it; for good, `rabbitmqctl forget_cluster_node` and another node in its place"
        yield wrong("broker cluster", f"{', '.join(down)} of {len(facts.nodes)} nodes: not running", mend)
    elif len(facts.nodes) == 1:
        yield note("broker cluster", "one node: while it is away nothing is accepted", "add two nodes, if it must not be")
    elif not facts.partitions:
        yield ok("broker cluster", f"{len(facts.nodes)} nodes run and see each other")
    yield from _queues(facts)
    if len(facts.nodes) > 1:
        yield from _channels(facts.versions)
        yield from _order(facts)


def _channels(versions: Mapping[str, str]) -> Iterator[Finding]:
    """A channel asks the leader of a quorum queue at its first message, and before 3.12.5 no other member if it is away."""
    old = {each for each in versions.values() if tuple(map(int, re.findall(r"\d+", each)[:3])) < ASK_ALL}
    if old:
        what = f"RabbitMQ {', '.join(sorted(old))} refuses what comes on a channel that was opened while a queue had no leader"
        mend = (
            "upgrade to 3.12.5 or newer. Until then it ends when the node that led the queue is back; our processes open "
            "another channel, and publishers of upstream systems have to"
        )
        yield note("broker channels", what, mend)


def _order(facts: ClusterFacts) -> Iterator[Finding]:
    """Whether what a consumer on a lost node had is given out again before the consumer asks for more elsewhere."""
    settings = {"net_ticktime": (facts.tick, TICK, TICK), "consumer_disconnected_timeout": (facts.withheld, WITHHELD, 1)}
    for name, (value, most, better) in settings.items():
        if value > most:
            what = f"{name} is {value}: when a node is lost, events may be recorded late, after later ones of their subject"
            yield wrong("event order", what, f"rabbitmq.conf of each node: {name} = {better}; then restart them one by one")


def _queues(facts: ClusterFacts) -> Iterator[Finding]:
    wanted = min(MEMBERS, len(facts.nodes))
    few = {name: each for name, each in facts.queues.items() if each.members < wanted}
    away = {name: each for name, each in facts.queues.items() if name not in few and each.online < wanted}
    for name, each in few.items():
        mend = f"rabbitmq-queues grow NODE all --queue-pattern '^{name}$', for each node that has no member"
        yield wrong("queue members", f"{name} is on {each.members} of {len(facts.nodes)} nodes", mend)
    for name, each in away.items():
        mend = "start the nodes that are away: a queue takes messages while more than half of its members are there"
        yield wrong("queue members", f"{name}: {each.online} of {each.members} members are there", mend)
    if not few and not away and facts.queues:
        yield ok("queue members", f"{len(facts.queues)} quorum queues have all of their {wanted} members")


def _said(rabbitmqctl: str, *command: str) -> str:
    asked = [*shlex.split(rabbitmqctl), *command]
    try:
        ended = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise OSError(f"no answer within {_SECONDS:.0f} s") from None
    if ended.returncode != 0:
        raise OSError(f"exited with {ended.returncode}: {' '.join((ended.stderr or ended.stdout).split())[:300]}")
    return ended.stdout
