"""The fire drill: damage is done to a running system, and a real Prometheus raises exactly the alerts that it should.

The rules are those of production, with every time in them divided by `QUICKER`. No limit of an age becomes less than `LEAST`,
because the processes ask their servers every two seconds.
"""

import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pika
import pytest
from ruamel.yaml import YAML

from ops.config.apply import apply_file
from ops.prometheus import FOLDER, RULES
from ops.servers.private import PrivateServers
from ops.servers.prometheus import Target, Watch
from ops.settings import Settings
from support.cli import Cli
from support.forked import Forked
from support.mail.imap_script import Answer, scripted
from support.net.freezing import frozen
from support.net.ports import free_port
from support.net.sink import Sink
from support.telemetry.shortened import Motion
from support.telemetry.stretched import Samples, named, series
from support.telemetry.tools import checked
from support.telemetry.watching import Labels, Told, Watched, alertmanager, shown, watching
from workers.amqp.queue_depths import QUEUES
from workers.amqp.topology import IN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

QUICKER = 60.0
LEAST = 5.0  # seconds
EVERY = 1  # second between two scrapes, and between two evaluations
DEADLINE = 60.0  # seconds within which an alert fires or goes quiet; a busy machine takes longer than the rules do

ROLES = ("ingress", "ingest", "relay", "deliver", "mail-pull", "sequencer", "sealer")
SETTINGS = {"collect_every": 1, "breaker_wait": 1, "breaker_longest_wait": 2, "confirm_timeout": 2}
REFUSED = b"%TAG% NO [AUTHENTICATIONFAILED] no\r\n"
LARGE = b"x" * 300_000  # kept in the blob store
FULL = 256 * 1024  # bytes that a process may write to a file: less than a large body


@dataclass(frozen=True)
class Damage:
    """What is told of a damage, and what fires too and is not told, because it follows from what is."""

    told: frozenset[str]
    implied: frozenset[str] = frozenset()
    possible: frozenset[str] = frozenset()  # follows too, but only if the damage lasts


DAMAGES = {
    "an endpoint that hangs": Damage(frozenset({"WaxsealBreakersOpen"})),
    "a poisoned inbox": Damage(frozenset({"WaxsealDeadLettersArriving(unknown_source, admit)"})),
    "a refused login": Damage(frozenset({"WaxsealMailboxNeedsSomebody"})),
    "a full blob store": Damage(frozenset({"WaxsealBlobStoreAway"})),
    "a tenant's log that is locked": Damage(
        frozenset({"WaxsealSequencingLate"}),
        possible=frozenset({"WaxsealPoolExhausted(sequencer)"}),  # it waits with all of its connections
    ),
    "ingest down": Damage(
        frozenset({"WaxsealRoleDown(ingest)"}),
        frozenset(
            {
                "WaxsealProcessDown(ingest)",  # that is how the role is down
                "WaxsealNoConsumer(waxseal.ingest)",  # nobody else consumes it
                "WaxsealQueueStalled(waxseal.ingest)",
                "WaxsealInboxTooOld",
            }
        ),
    ),
    "Postgres frozen": Damage(
        frozenset({"WaxsealServerSilent(postgres)"}),
        frozenset({"WaxsealCollectorBlind(database)", "WaxsealInboxTooOld"}),  # the relay cannot read; nothing is recorded
        # The relay waits for Postgres each time before it asks RabbitMQ.
        # Afterwards the first entry waits until the sequencer has connected again.
        frozenset({"WaxsealCollectorBlind(broker)", "WaxsealCollectorBlind(inbox)", "WaxsealSequencingLate"}),
    ),
    "RabbitMQ frozen": Damage(
        frozenset({"WaxsealServerSilent(rabbitmq)"}),
        frozenset({"WaxsealCollectorBlind(broker)", "WaxsealCollectorBlind(inbox)"}),
        # The relay waits for RabbitMQ each time before it reads again; connections without heartbeats are made anew afterwards.
        frozenset(
            {
                "WaxsealInboxTooOld",
                "WaxsealCollectorBlind(database)",
                "WaxsealNoConsumer(waxseal.ingest)",
                "WaxsealNoConsumer(waxseal.deliver)",
                "WaxsealNoConsumer(waxseal.mail)",
                "WaxsealNoConsumer(waxseal.mail.slow)",
            }
        ),
    ),
}


EVERY_RULE = [rule for path in RULES for group in YAML(typ="safe").load(path)["groups"] for rule in group["rules"]]

#: What this drill is too short for, or has too little traffic for: a cause, what it is about, and what follows from it.
FOLLOWS: list[tuple[str, Labels, str]] = [
    (
        "ServerSilent",
        {"server": "postgres"},
        "PoolExhausted BacklogGrowing QueueStalled MailNotRead OldestTooOld SequencingLate",
    ),
    ("ServerSilent", {"server": "rabbitmq"}, "IngestBudgetBurn NoConsumer CollectorBlind InboxTooOld"),
    ("BlobStoreAway", {}, "IngestBudgetBurn QueueStalled InboxTooOld BacklogGrowing"),
    ("BrokerAlarm", {"resource": "disk"}, "IngestBudgetBurn OldestTooOld MailNotRead CollectorBlind"),
    ("RoleDown", {"role": "ingest"}, "BacklogGrowing InboxTooOld"),
    ("SequencingLate", {}, "PoolExhausted"),
]


@dataclass
class Observed:
    """What was seen of some damages that were done at the same time."""

    damages: tuple[str, ...]
    began: float
    fired: Mapping[str, Labels] = field(default_factory=dict)  # from the first damage until all was quiet
    recorded: Samples = ()  # while the damages were done


class Drill:
    """The running system, and what watches it."""

    def __init__(self, servers: PrivateServers, database: Any, start: Callable[..., Forked], folder: Path) -> None:
        self.servers, self.database, self.folder = servers, database, folder
        self.ports = {role: free_port() for role in ROLES}
        self.processes: dict[str, Forked] = {}
        self.sink = Sink()
        self.accepts = True  # the mail server, the password
        self.seen: list[Observed] = []
        self.watched: Watched
        self._start = start

    def begin(self, role: str) -> None:
        port = self.ports[role]
        self.processes[role] = self._start(role, ingress_port=port, metrics_port=port, **SETTINGS)

    def post(self, source: str, body: bytes = b"{}", count: int = 1) -> list[int]:
        """Sends webhooks over one connection; returns the answers' status."""
        connection = HTTPConnection("127.0.0.1", self.ports["ingress"], timeout=60)
        answers = []
        for _ in range(count):
            connection.request("POST", f"/in/acme/{source}", body, {"idempotency-key": str(time.monotonic_ns())})
            answer = connection.getresponse()
            answer.read()
            answers.append(answer.status)
        connection.close()
        return answers

    def apply(self, mail_port: int, password: str) -> None:
        path = self.folder / "waxseal.yaml"
        path.write_text(f"""
tenants: [{{name: acme}}, {{name: other}}]
sources: [{{tenant: acme, name: open, kind: none}}, {{tenant: acme, name: slow, kind: none}}]
endpoints:
  - {{tenant: acme, name: takes, url: "{self.sink.url("/200")}", filter: {{exact: {{source: open}}}}}}
  - {{tenant: acme, name: hangs, url: "{self.sink.url("/hang")}", timeout: 1s, filter: {{exact: {{source: slow}}}}}}
mailboxes:
  - {{tenant: other, name: post, kind: imap, host: 127.0.0.1, port: {mail_port}, tls: false, username: us,
      password: {password}, poll: 1s}}
""")
        apply_file(path, Settings(database_url=self.database.url, keys=self.database.key))

    @contextmanager
    def observed(self, *damages: str) -> Iterator[Observed]:
        """Notes what fires from here on until, after the block, all is quiet."""
        observed = Observed(damages, time.time())
        self.seen.append(observed)
        yield observed
        self.wait_until(lambda: not self.watched.raised(), "quiet")
        observed.fired = self.watched.fired(observed.began)

    def wait_for_alerts(self, observed: Observed, *damages: str) -> None:
        """Waits until all alerts of these damages have fired."""
        expected = set().union(*(DAMAGES[each].told | DAMAGES[each].implied for each in damages))
        self.wait_until(lambda: expected <= self.watched.fired(observed.began).keys(), f"the alerts of {damages}")

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}; raised: {self.watched.raised()}"
            time.sleep(0.25)


@contextmanager
def full(pid: int) -> Iterator[None]:
    """A disk that is full, as far as this process can tell: the kernel refuses to let its files grow."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def locked(database: Any) -> Iterator[None]:
    """Another session holds the lock of the tenant's log."""
    with database.connect() as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('waxseal log acme', 0))")
        yield


@pytest.fixture(scope="module")
def drill(
    servers: PrivateServers, shared_database: Any, shared_start: Callable[..., Forked], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Drill]:
    folder = tmp_path_factory.mktemp("drill")
    drill = Drill(servers, shared_database, shared_start, folder)
    drill.sink.start()
    with scripted(mailbox_of(drill)) as (mailbox, _):
        empty_queues(servers.amqp_url)
        drill.apply(mailbox.port, "old")
        for role in ROLES:
            drill.begin(role)
        targets = [Target(role, f"http://127.0.0.1:{port}") for role, port in drill.ports.items()]
        rules = Motion(QUICKER, LEAST).files(RULES, folder)
        with watching(folder / "prometheus", Watch(targets, rules, EVERY)) as drill.watched:
            all_well(drill)
            run(drill, mailbox.port)
            yield drill
    drill.sink.stop()


def mailbox_of(drill: Drill) -> Mapping[bytes, Answer]:
    """What a mail server with an empty mailbox answers, and to a password only while the drill accepts it."""
    return {
        rb"AUTHENTICATE PLAIN": lambda _: b"+ \r\n" if drill.accepts else REFUSED,
        rb"LOGIN": lambda _: b"" if drill.accepts else REFUSED,
        rb"EXAMINE": b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 1] x\r\n",
    }


def empty_queues(amqp_url: str) -> None:
    """What other tests have left there would raise alerts."""
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        for queue in QUEUES:
            channel = connection.channel()
            try:
                channel.queue_purge(queue)
            except pika.exceptions.ChannelClosedByBroker:  # it does not exist
                continue


def all_well(drill: Drill) -> None:
    """Returns when every process is scraped, the collector reads, and nothing fires."""
    watched = drill.watched
    drill.wait_until(lambda: watched.value('sum(up{job="waxseal"})') == len(ROLES), "all processes are scraped")
    drill.wait_until(lambda: watched.value("sum(waxseal_collector_up)") == 3, "the collector reads")
    assert [202] == drill.post("open")
    drill.wait_until(lambda: drill.sink.requests, "the first is delivered")
    Cli(drill.database).owner.output("verify")
    drill.wait_until(lambda: watched.value("max(waxseal_chain_verify_last_success_timestamp_seconds)"), "it was verified")
    drill.wait_until(lambda: not watched.raised(), "nothing is raised")


def run(drill: Drill, mail_port: int) -> None:
    several = ("a poisoned inbox", "a refused login", "a full blob store", "a tenant's log that is locked")
    with drill.observed(*several, "ingest down", "an endpoint that hangs") as seen:
        with ExitStack() as damages:
            damages.enter_context(locked(drill.database))
            drill.post("slow", count=12)
            drill.accepts = False
            damages.enter_context(full(drill.processes["ingress"].pid))
            for _ in range(6):  # seconds: traffic goes on, and it takes the rules a few scrapes to see it
                poison(drill)
                assert [503] == drill.post("open", LARGE)
                time.sleep(1)
            drill.wait_for_alerts(seen, *several)
            drill.processes["ingest"].kill()
            drill.post("open", count=3)
            drill.wait_for_alerts(seen, "ingest down", "an endpoint that hangs")
            seen.recorded = drill.watched.samples(named(EVERY_RULE), seen.began)
        drill.sink.release()
        drill.begin("ingest")
        drill.accepts = True
        drill.apply(mail_port, "new")
        # All others may have been tried so often meanwhile that none is due, and then an open breaker has nothing to try.
        drill.post("slow")
    with drill.observed("Postgres frozen") as seen, frozen(drill.servers.postgres_pid):
        assert {202} == set(drill.post("open", count=3))
        drill.wait_for_alerts(seen, "Postgres frozen")
    with drill.observed("RabbitMQ frozen") as seen, frozen(drill.servers.rabbitmq_pid):
        assert {503} == set(drill.post("open", count=2))
        drill.wait_for_alerts(seen, "RabbitMQ frozen")


def poison(drill: Drill) -> None:
    with pika.BlockingConnection(pika.URLParameters(drill.servers.amqp_url)) as connection:
        channel = connection.channel()
        for number in range(5):
            channel.basic_publish(IN, "acme.nothing", b"x", pika.BasicProperties(message_id=f"{time.time_ns()}-{number}"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with alertmanager(tmp_path_factory.mktemp("alertmanager"), FOLDER / "alertmanager.yml") as told:
        yield told


def test_exactly_the_alerts_of_the_damages_fire_and_go_quiet_when_they_are_undone(drill: Drill) -> None:
    for seen in drill.seen:
        damages = [DAMAGES[each] for each in seen.damages]
        certain = set().union(*(each.told | each.implied for each in damages))
        assert certain == seen.fired.keys() - set().union(*(each.possible for each in damages))


def test_of_what_fires_together_somebody_is_told_the_cause_and_not_what_follows(drill: Drill, told: Told) -> None:
    for seen in drill.seen:
        for name in seen.damages:
            damage = DAMAGES[name]
            together = (damage.told | damage.implied | damage.possible) & seen.fired.keys()
            assert damage.told == told([seen.fired[each] for each in together]), name


def test_at_the_pace_of_production_the_rules_as_they_are_raise_the_same_alerts(drill: Drill, tmp_path: Path) -> None:
    seen = drill.seen[0]
    found, steps = series(seen.recorded, seen.began, QUICKER)
    damage = DAMAGES["ingest down"]
    beside = [DAMAGES[name] for name in seen.damages if name != "ingest down"]
    others = [alert.partition("(")[0] for each in beside for alert in each.told | each.possible]
    firing = [seen.fired[each] | {"alertstate": "firing"} for each in damage.told | damage.implied]
    samples = [f"ALERTS{{{','.join(f'{name}={json.dumps(value)}' for name, value in each.items())}}}" for each in firing]
    expected = {
        "expr": f'ALERTS{{alertstate="firing",alertname!~"{"|".join(others)}"}}',
        "eval_time": f"{steps - 1}m",
        "exp_samples": [{"labels": each, "value": 1} for each in samples],
    }
    test = {"interval": "1m", "input_series": found, "promql_expr_test": [expected]}
    rules = {"rule_files": [*map(str, RULES)], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "tests.yml").write_text(json.dumps(rules))

    checked("promtool", "test", "rules", str(tmp_path / "tests.yml"))


@pytest.mark.parametrize(("cause", "about", "follows"), FOLLOWS)
def test_what_follows_from_a_cause_that_lasts_or_meets_more_traffic_is_not_told_beside_it(
    told: Told, cause: str, about: Labels, follows: str
) -> None:
    together = [{"alertname": f"Waxseal{each}"} | about for each in (cause, *follows.split())]

    assert {shown(together[0])} == told(together)
