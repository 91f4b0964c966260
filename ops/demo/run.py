"""Runs the demo: brings everything up, sends, waits, shows, verifies, stops."""

import base64
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from ops.admin.read_session import open_engine
from ops.admin.verifying.verify_ledger import Wanted, verification
from ops.demo.outcome import Outcome, look
from ops.demo.receivers import FAILURES, Sink
from ops.demo.traffic import CONFIG, ENDPOINTS, GITHUB, SHOP, Publish, Sent, traffic
from ops.errors import OpsError
from ops.servers.accounts import make_folder, own_file
from ops.settings import Settings, load_settings
from ops.system.detach import up_detached
from ops.system.down import down
from ops.system.stack_file import read_stack
from schemas.dead_letter import DeadLetterFilter
from schemas.ledger.fault import Fault

_SETTLED_SECONDS: Final = 30.0
_WIDTH: Final = 150  # characters, where there is no terminal

_ANSWERS: Final = {"202": "202 accepted", "401": "401 refused", "confirmed": "confirmed by RabbitMQ"}

_INTRO: Final = """\
Waxseal records every message once, in a ledger that shows tampering, and delivers it to everyone who subscribed.
This demo runs all of it, on a PostgreSQL and a RabbitMQ of its own in {data}.
"""
_SENDING: Final = """\
Tenant acme takes webhooks from its shop and from GitHub, and events from its orders system over AMQP.
Three endpoints subscribed: [b]works[/b] takes everything; [b]recovers[/b] takes orders, and fails {failures} times before it
accepts; [b]broken[/b] takes payments, and never accepts. Sending:
"""
_LATER: Final = """\
To look further, start it again on the same data:
{path}  waxseal up --data {data} --detach
  waxseal status --data {data}
  waxseal timeline acme {subject} --data {data}
  waxseal deliveries acme --state dead --data {data}
  waxseal dead list --data {data}
  waxseal export acme -o acme.jsonl --data {data} && waxseal verify-bundle acme.jsonl
  waxseal down --data {data}
"""


class DemoFailed(OpsError):
    """A message or the ledger is not as it must be."""


def demo(data: Path, publish: Publish) -> None:
    """Run the whole demo on `data`, which keeps its ledger. Raises `DemoFailed` with everything that is wrong.

    Nothing is left running, however it ends.
    """
    began = time.monotonic()
    console = Console(highlight=False, soft_wrap=True, width=None if Console().is_terminal else _WIDTH)
    console.print(_INTRO.format(data=data))
    run = f"{int(time.time()):x}"
    secrets = {name: "whsec_" + base64.b64encode(os.urandom(32)).decode() for name in ENDPOINTS}
    with Sink(secrets) as sink:
        config = CONFIG.format(url=sink.url, shop=SHOP, github=GITHUB, **secrets)
        with _running(data, config) as (settings, ingress, amqp):
            console.print(f"PostgreSQL, RabbitMQ and Waxseal are ready after {time.monotonic() - began:.0f} s.\n")
            console.print(_SENDING.format(failures=FAILURES))
            sent = traffic(run, ingress, amqp, publish)
            problems = [*_show(console, settings, sent), *_forgeries(console, sink), *_verify(console, settings)]
    if problems:
        raise DemoFailed("the demo did not come out as it must:\n  " + "\n  ".join(problems))
    console.print(_LATER.format(path=path_hint(), data=data, subject=sent[0].subject))
    console.print(f"Everything came out as it must, and nothing is left running. {time.monotonic() - began:.0f} s in all.")


def path_hint() -> str:
    """The line that puts `waxseal` on the PATH of a shell in this folder; empty when it is there."""
    if shutil.which("waxseal"):
        return ""
    folder = Path(sys.executable).parent
    written = '"$PWD/.venv/bin:$PATH"' if folder == Path.cwd() / ".venv" / "bin" else f'{shlex.quote(str(folder))}:"$PATH"'
    return f"  export PATH={written}\n"


@contextmanager
def _running(data: Path, config: str) -> Iterator[tuple[Settings, str, str]]:
    """Run the system on `data` while the block runs; gives its settings, whatever the environment says, and its URLs."""
    make_folder(data)
    down(data)  # an earlier demo that was killed
    file = data / "demo.yaml"
    own_file(file, config, None)
    try:
        up_detached(data, ["--config", str(file)])
        known = read_stack(data) or {}
        keys = {"keys_file": Path(known["keys_file"])} if known["keys_file"] else {}
        found = {"database_url": known["database_url"], "amqp_url": known["amqp_url"], **keys}
        yield load_settings().model_copy(update=found), known["ingress_url"], known["amqp_url"]
    finally:
        down(data)


def _show(console: Console, settings: Settings, sent: Sequence[Sent]) -> list[str]:
    """Send everything, wait until every message has settled, and show what became of it; returns what is wrong."""
    since = DeadLetterFilter(since=datetime.now(UTC))
    answers = [each.send() for each in sent]
    with open_engine(settings) as engine:
        deadline = time.monotonic() + _SETTLED_SECONDS
        while not (outcome := look(engine, settings, sent, since)).settled(sent):
            if time.monotonic() > deadline:
                problems = "\n  ".join(outcome.problems(sent, answers))
                raise DemoFailed(f"not settled after {_SETTLED_SECONDS:.0f} s:\n  {problems}")
            time.sleep(0.2)
    console.print(_table(sent, answers, outcome), soft_wrap=False)
    return list(outcome.problems(sent, answers))


def _table(sent: Sequence[Sent], answers: Sequence[str], outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("sent", "answer", "recorded as", *ENDPOINTS):
        table.add_column(title, overflow="fold")
    for each, answer in zip(sent, answers, strict=True):
        meaning = _ANSWERS.get(answer, answer)
        table.add_row(each.what, meaning, outcome.place(each), *(outcome.delivery(each, name) for name in ENDPOINTS))
    return table


def _forgeries(console: Console, sink: Sink) -> list[str]:
    console.print(f"\nThe receivers checked {sink.verified.total()} signatures; {sink.forged.total()} were wrong.")
    return ["an endpoint received something with a wrong signature"] if sink.forged else []


def _verify(console: Console, settings: Settings) -> list[str]:
    """Verify the whole ledger; returns its faults."""
    faults: list[Fault] = []
    with verification(settings, faults.append) as ledger:
        verified = ledger.all_of(Wanted(), lambda _done: None)
    console.print(
        f"The ledger is {verified.verdict}: {verified.entries} entries in {verified.chains} chains, every hash recomputed.\n"
    )
    return [f"ledger: {fault.kind} at {fault.subject} {fault.seq}: {fault.detail}" for fault in faults]
