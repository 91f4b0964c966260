"""Every command on the pages of documentation is run, on one system for all pages.

A few cannot be run here and are checked in another way: `rabbitmqctl` and the publisher in test_broker_users.py; `openssl` in
test_restored_log.py, which has a time-stamping authority; targets of `make` against the Makefile; Docker's commands against the
Compose file; those of Kubernetes and systemd against our manifests and units; commands that start servers by their arguments.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pika
import psycopg
import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY
from ruamel.yaml import YAML

from ops.cli import main
from ops.servers.binaries import find_postgres
from ops.settings import PREFIX, described, environment
from ops.telemetry import table  # noqa: F401 - importing it registers the metrics
from support.deploying.manifests import of_kind
from support.net.shell_commands import shell_commands
from support.pages import PAGES, README, Block, blocks, commands, quoted, section, unknown_words
from support.paths import ROOT
from support.stack import nothing_runs_on
from support.waiting import wait_for

MAIL = b"From: Ann <ann@b.example>\nTo: support@acme.example\nSubject: hi\nMessage-ID: <1@b.example>\n\nhello\n"
#: waxseal commands that start servers of their own or call a provider, each with the tests that run it.
ELSEWHERE = {
    "up": "acceptance/test_stack.py",
    "log serve": "integration/ledger/test_restored_log.py",
    "bench ingest": "integration/bench/test_bench_ingest.py",
    "bench delivery": "integration/bench/test_bench_delivery.py",
    "bench ingress": "integration/bench/test_bench_ingress.py",
    "bench capacity": "integration/bench/test_bench_capacity.py",
    "bench claims": "integration/bench/test_bench_claims.py",
    "bench mail": "integration/bench/test_bench_mail.py",
    "tenant move": "integration/admin/test_moving.py",
    "tenant forward": "integration/admin/test_moving.py",
    "mailbox reauthorize": "integration/mail/test_mail_consent.py",
}
#: Commands that change nothing and look at the whole system: run where they first stand on a page, not a dozen times.
LOOKS = ("waxseal status", "waxseal doctor")
#: A line of `waxseal deliveries` whose first try failed, as nothing listens on the endpoint's port.
TRIED = re.compile(r"\tbilling\tevt-1\torder-7\t0\t(pending|leased)\t[1-9]\d*\t.*Connect call failed")
SHELL = re.compile(r"[|&;<>$`*()\n]|^\w+=")


@dataclass
class System:
    """The system that all pages use, and the folder in which their commands run."""

    folder: Path
    env: dict[str, str]
    said: dict[str, str] = field(default_factory=dict)  # output of the README's commands, by their names
    made: set[str] = field(default_factory=set)  # in the folder, by the README's commands
    swaps: dict[str, str] = field(default_factory=dict)  # text on a page -> the value in this run
    looked: set[str] = field(default_factory=set)  # the commands among LOOKS that were run

    def run(self, command: str) -> str:
        """Runs a command; returns its standard output. Fails when the command does."""
        code, said, complained = self.answer(command)
        assert 0 == code, f"{command}: {said}{complained}"
        return said

    def answer(self, command: str) -> tuple[int, str, str]:
        """Runs a command; returns exit code, standard output and standard error."""
        for written, real in self.swaps.items():
            command = command.replace(written, real)
        ours = command.startswith("waxseal ") and not SHELL.search(re.sub(r"\s+#.*$", "", command))
        return self._ours(command) if ours else self.shell(command)

    def shell(self, command: str) -> tuple[int, str, str]:
        """As `answer`, in a shell and to the letter."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT if "-m pytest" in command else self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def _ours(self, command: str) -> tuple[int, str, str]:
        """Runs a waxseal command in this process: starting another takes longer than most commands."""
        with chdir(self.folder):
            words = shlex.split(command.replace(" ~/", f" {self.folder}/"), comments=True)
            done = CliRunner(env=self.env).invoke(main, words[1:], prog_name="waxseal")
        return done.exit_code, done.stdout, done.stderr

    @property
    def stack(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / ".waxseal" / "stack.json").read_text())
        return found

    def recorded(self, subject: str) -> bool:
        return bool(self.answer(f"waxseal timeline acme {subject} --json")[1])


def first(language: str, page: str) -> str:
    return blocks(language, page)[0].text


def the_readmes_walk() -> list[str]:
    (walk,) = (list(block.commands()) for block in blocks("sh", README) if "waxseal up" in block.text)
    return walk


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, module_folder: Path) -> Iterator[System]:
    """A system started by the README's commands; the last of them, `waxseal down`, runs after all pages."""
    folder = tmp_path_factory.mktemp("pages")
    path = os.pathsep.join([str(Path(sys.executable).parent), str(find_postgres().parent), environment()["PATH"]])
    system = System(folder, environment() | {"PATH": path, "HOME": str(folder), "SUPPORT_PASSWORD": "p"})
    system.env[f"{PREFIX}WAL_ARCHIVE"] = str(module_folder / "archives")  # which the page on backups presupposes
    (folder / "waxseal.yaml").write_text(first("yaml", README), encoding="utf-8")
    *walk, last = the_readmes_walk()
    assert "waxseal down" == last
    try:
        for command in walk:
            if command.startswith("sleep "):  # long enough for a reader, not for a machine that runs other tests too
                wait_for(lambda: TRIED.search(system.answer("waxseal deliveries acme")[1]), 60)
                continue
            system.said[command.split()[1]] = system.run(command)
            system.swaps |= {
                "http://127.0.0.1:8420": system.stack["ingress_url"],
                "http://127.0.0.1:8430": system.stack["console_url"],
            }
        system.made = {path.name for path in folder.iterdir()}
        furnish(system)
        with shell_commands(module_folder) as programs:
            system.env["PATH"] = os.pathsep.join([str(programs), path])
            yield system
    finally:
        ended = system.shell(last)
        running = not nothing_runs_on(folder / ".waxseal")
        deleted = system.shell(f"{last} --delete-data --yes")  # some of it is outside the folder, when root runs this
    assert ((0, False), 0) == ((ended[0], running), deleted[0]), (ended, deleted)


def furnish(system: System) -> None:
    """Creates what the pages' commands refer to: a mailbox, mail files, a dead letter, an operator's variables."""
    system.env |= {f"{PREFIX}DATABASE_URL": system.stack["database_url"], f"{PREFIX}BLOBS": system.stack["blobs"]}
    system.env[f"{PREFIX}LOG_FILES"] = system.stack["log_files"]
    with (system.folder / "waxseal.yaml").open("a", encoding="utf-8") as config:
        config.write(first("yaml", "ops/docs/mailboxes.md"))
    system.run("waxseal apply waxseal.yaml")
    (system.folder / "order.json").write_text('{"id": "evt-3", "type": "order.sent", "order": "order-8"}')
    (system.folder / "archive.mbox").write_bytes(b"From ann@b.example Sat Jan  3 01:05:34 1996\n" + MAIL + b"\n")
    (system.folder / "mails").mkdir()
    (system.folder / "mails" / "1.eml").write_bytes(MAIL)
    for name in ("cur", "new", "tmp"):
        (system.folder / "Maildir" / name).mkdir(parents=True)
    with pika.BlockingConnection(pika.URLParameters(system.stack["amqp_url"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("waxseal.in", "acme.nobody", b"{}")
    wait_for(lambda: system.run("waxseal dead list --json"), 60)
    letter = json.loads(system.run("waxseal dead list --json").splitlines()[0])["id"]
    token = json.loads(system.run("waxseal token new --json"))["id"]
    system.swaps |= {"token revoke 7Hq2LmPz": f"token revoke {token}", "http://127.0.0.1:8430": system.stack["console_url"]}
    system.swaps |= {"dead show 17": f"dead show {letter}", "sha256:3f2a…": f"sha256:{sha256(MAIL).hexdigest()}"}


def run_block(system: System, block: Block) -> None:
    for command in block.commands():
        words = shlex.split(command.partition("\n")[0], comments=True)
        if (bare := shlex.join(words)) in LOOKS:
            if bare in system.looked:
                continue
            system.looked.add(bare)
        if words[0] == "waxseal" and (tests := ELSEWHERE.get(words[1], ELSEWHERE.get(" ".join(words[1:3])))):
            assert [] == unknown_words(words[1:]), command
            assert words[-1 if words[1] == "bench" else 1] in (ROOT / "tests" / tests).read_text(encoding="utf-8")
        elif (check := checks_of(command)) is not None:
            check(command)
        elif words[:2] == ["waxseal", "doctor"]:  # the pages' mailbox is at a name that has no address
            code, _, complained = system.answer(command)
            assert (code, complained) in ((0, ""), (1, "")), command
        elif words[:2] == ["waxseal", "prove"]:  # a log is published some seconds after it grew
            wait_for(lambda: system.answer(command)[0] == 0, 60)  # noqa: B023
        else:
            system.run(command.replace(".venv/bin/", f"{Path(sys.executable).parent}/"))
            if command.startswith("waxseal mail import") and "--dry-run" not in command:
                wait_for(lambda: "hello" in system.answer("waxseal mail show acme sha256:3f2a… --json")[1], 60)


def checks_of(command: str) -> Callable[[str], None] | None:
    """The check for a command that is not run here; None for one that is."""
    words = [word for word in command.split() if "=" not in word.partition("'")[0]]
    if "sudo" in words:
        return suits_the_units
    elsewhere = dict.fromkeys(("rabbitmqctl", "openssl"), is_run_elsewhere)
    known = {"make": is_a_target, "docker": suits_the_compose_file, "kubectl": suits_the_manifests, **elsewhere}
    return known.get(words[0] if words else "")


def is_a_target(command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


def is_run_elsewhere(command: str) -> None:
    """The command is among those that `commands` finds, and test_broker_users.py or test_restored_log.py runs them."""
    program, *words = shlex.split(command)
    assert words in commands(program)


def suits_the_compose_file(command: str) -> None:
    """Its variables and services are in the Compose file, and it runs a valid waxseal command in a service."""
    services: Mapping[str, Mapping[str, object]] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    words = shlex.split(command)
    while "=" in words[0]:
        assert "${" + words.pop(0).partition("=")[0] in (ROOT / "docker-compose.yml").read_text(), command
    assert words[:2] == ["docker", "compose"]
    if words[2] == "--profile":
        assert [words[3]] in [service.get("profiles") for service in services.values()], command
        del words[2:4]
    scaled = {word.partition("=")[0] for before, word in pairwise(words) if before == "--scale"}
    assert scaled <= services.keys()
    if words[2] == "up":
        return
    service = next(at for at, word in enumerate(words) if word in services)
    assert words[2] in ("exec", "run")
    inside = words[service + 1 :]
    inside = inside[: inside.index("<")] if "<" in inside else inside
    assert [] == unknown_words(inside if words[2] == "run" else inside[1:]), command
    assert words[2] == "run" or inside[0] == "waxseal"


def suits_the_manifests(command: str) -> None:
    """Its files are there, what it names is in the manifests or made on the page, and it runs a valid waxseal command."""
    words = shlex.split(command)[1:]
    made = {f"job/{each[2]}" for each in commands("kubectl") if each[:2] == ["create", "job"]}
    known = made | {f"{kind.lower()}/{name}" for kind in ("Deployment", "Job", "CronJob") for name in of_kind(kind)}
    for before, word in pairwise(words):
        assert before not in ("-f", "-k") or (ROOT / word / ("kustomization.yaml" if before == "-k" else "")).exists(), command
    named = {word.removeprefix("--from=") for word in words}
    assert {each for each in named if each.startswith(("deployment/", "job/", "cronjob/"))} <= known, command
    if words[0] == "exec":
        program, *inside = words[words.index("--") + 1 :]
        assert ("waxseal", []) == (program, unknown_words(inside)), command


def suits_the_units(command: str) -> None:
    """What it copies is there, and the units that it names are ours."""
    program, *words = shlex.split(command.partition("\n")[0].partition("sudo ")[2].partition("|")[0])
    named = [word for word in words if not word.startswith("-")]
    if program == "systemctl":
        units = {path.name.removesuffix(".service") for path in (ROOT / "ops/systemd/system").iterdir()}
        assert {re.sub(r"@\d+$", "@", unit) for unit in named[1:]} <= units, command
    elif program == "cp":
        assert [] == [path for path in named[:-1] if not (ROOT / path).exists()], command
    elif program == "waxseal":
        assert [] == unknown_words(words), command
    else:
        assert program in {
            "chmod",
            "ln",
            "tee",
            "python3",
            "/opt/waxseal-1/bin/pip",
            "/opt/waxseal-2/bin/pip",
            "systemd-sysusers",
            "systemd-tmpfiles",
            "systemd-ask-password",
        }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_command_of_the_readme_does_what_it_says(system: System) -> None:
    assert "evt-1" in system.said["timeline"]
    assert TRIED.search(system.said["deliveries"])
    assert (system.folder / "acme.jsonl").exists()


@pytest.mark.slow
def test_git_ignores_what_the_readme_makes_in_a_clone(system: System) -> None:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}

    assert {"waxseal.yaml", ".waxseal", "acme.jsonl"} <= system.made <= ignored


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_can_be_run_as_it_stands_there(system: System, page: str) -> None:
    for block in blocks("sh", page):
        if page != README or "waxseal up" not in block.text:
            run_block(system, block)


@pytest.mark.slow
def test_the_file_for_compose_has_every_value_that_compose_asks_for(system: System) -> None:
    run_block(system, blocks("sh", "ops/docs/containers.md")[0])
    given = dict(line.split("=", 1) for line in (system.folder / ".env").read_text().splitlines())

    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    secrets = {secret["environment"] for secret in YAML(typ="safe").load(compose)["secrets"].values()}

    assert secrets | set(re.findall(r"\$\{(\w+):\?", compose)) == given.keys()
    assert "" not in given.values()


@pytest.mark.slow
def test_the_secrets_for_kubernetes_are_all_made_and_the_brokers_users_may_what_the_page_on_operating_says(
    system: System,
) -> None:
    run_block(system, blocks("sh", "ops/docs/kubernetes.md")[0])
    files = {word.rpartition("=")[2] for words in commands("kubectl") for word in words if word.startswith("--from-file=")}
    definitions = json.loads((system.folder / "secrets" / "definitions.json").read_text())
    rights = {each["user"]: (each["configure"], each["write"], each["read"]) for each in definitions["permissions"]}
    ((_, _, _, *shown),) = {
        tuple(words[1:]) for words in commands("rabbitmqctl") if words[0] == "set_permissions" and "waxseal-worker" in words
    }

    assert {"secrets/keys", "secrets/definitions.json"} <= files - {"waxseal.yaml"}
    assert [] == [name for name in files if not (system.folder / name).read_text().strip()]
    assert [each.replace("\\.", "[.]") for each in shown] == list(rights["waxseal"])
    assert ("^$", "^waxseal[.]in$", "^$") == rights["upstream"]
    assert (system.folder / "secrets" / "rabbitmq").read_text() == definitions["users"][0]["password"]
    assert "quorum" == definitions["vhosts"][0]["default_queue_type"]


@pytest.mark.slow
def test_a_head_that_was_moved_is_mended_as_the_page_on_operating_says(system: System) -> None:
    (mending,) = (block.text for block in blocks("sql", "ops/docs/operating.md") if "UPDATE chain" in block.text)
    (system.folder / "mend.sql").write_text(mending.replace("order-7", "order-9"), encoding="utf-8")
    (system.folder / "order-9.json").write_text('{"id": "evt-9", "type": "order.sent", "order": "order-9"}')
    system.run("waxseal send acme shop --body order-9.json")
    wait_for(lambda: system.recorded("order-9"), 60)

    mended_by_the_page(system)
    system.run("waxseal erase acme order-9 --reason 'request 9' --by dpo --yes")
    mended_by_the_page(system)


def mended_by_the_page(system: System) -> None:
    """Moves the head of order-9, and follows the page, in psql."""
    verify = "waxseal verify --tenant acme --subject order-9"
    url = system.stack["database_url"]
    head = "SELECT seq, hash, chain_id FROM chain WHERE subject = 'order-9'"
    with psycopg.connect(url, autocommit=True) as owner:
        before = owner.execute(head).fetchone()
        owner.execute("ALTER TABLE chain DISABLE TRIGGER forward_only")
        owner.execute("UPDATE chain SET seq = -1, hash = NULL WHERE subject = 'order-9'")
        code, said, _ = system.shell(verify)
        assert (1, True) == (code, "head" in said)

        done = system.shell(f"psql '{url}' --no-psqlrc --set=ON_ERROR_STOP=1 --file=mend.sql")

        assert (0, ["BEGIN", "ALTER TABLE", "UPDATE 1", "ALTER TABLE", "COMMIT"]) == (done[0], done[1].splitlines()), done
        assert before == owner.execute(head).fetchone()
    assert "intact" in system.run(verify), "which looks at the triggers, too"


def test_every_block_is_of_a_kind_that_a_test_looks_at() -> None:
    assert {"sh", "yaml", "python", "sql", "text", "ini"} >= {block.language for block in blocks()}
    programs = {command.split()[0] for block in blocks("sh") for command in block.commands()}
    shown = [
        line for block in blocks("text") for line in block.text.splitlines() if line.split()[:1] and line.split()[0] in programs
    ]
    assert [] == shown


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_that_a_page_names_exists(page: str) -> None:
    named = [each.removeprefix("waxseal ") for each in quoted(page) if re.match(r"waxseal [a-z]", each)]

    assert [] == [each for each in named if unknown_words(each.replace("|", " ").split()[: each.count(" | ") or None])]


def test_every_target_that_a_page_names_is_in_the_makefile() -> None:
    assert {"demo", "test"} <= {words[0] for words in commands("make")}
    for page in PAGES:
        for each in quoted(page):
            if each.startswith("make "):
                is_a_target(each)


@pytest.mark.parametrize("page", PAGES)
def test_every_metric_and_variable_that_a_page_names_exists(page: str) -> None:
    described_metrics = {metric.name: metric.type for metric in REGISTRY.collect()}
    known = {f"{name}_total" if type_ == "counter" else name for name, type_ in described_metrics.items()}
    variables = {name for name, _, _ in described()} | set(
        re.findall(r"WAXSEAL_\w+", (ROOT / "docker-compose.yml").read_text())
    )

    assert set() == set(re.findall(r"\bwaxseal_[a-z_]+(?:_total|_seconds|_messages|_consumers|_up)\b", PAGES[page])) - known
    assert set() == set(re.findall(r"\bWAXSEAL_[A-Z_]+[A-Z]\b", PAGES[page])) - variables


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_page_and_a_heading(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, target


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    paths = [
        each for each in quoted(page) if re.fullmatch(r"(workers|ops|pipeline|schemas|tests|\.ci|\.github)/[\w./{},*-]*", each)
    ]

    assert [] == [each for each in paths if not list(ROOT.glob(re.sub("NAME|NNNN_name", "*", each)))]


def test_every_page_is_in_the_table_of_the_readme() -> None:
    listed = set(re.findall(r"\]\(([^)#]+)\)", section(README, "Pages")))

    assert set(PAGES) - {README} == listed
    assert {path.name for path in (ROOT / "ops/docs").glob("*.md")} == {Path(each).name for each in listed if "docs" in each}
    assert PAGES[README].count("\n") <= 200
