import ast
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from ops.system.roles import IMPORTED

ROOT = Path(__file__).parents[3]
LAYERS = ("schemas", "pipeline", "ops", "workers")  # each imports itself and those before it

# The steps of a message's route: `pipeline/` itself holds nothing else, so that its listing shows the system.
ROUTE = {"receive", "admit", "dedupe", "chain", "fanout", "append", "claim", "deliver", "settle", "bury", "errors"}

# The order of folders inside each package: each imports itself and those before it in its package. A file that is listed
# has a place of its own, apart from its folder.
ORDER = (
    "schemas",
    "schemas/config",
    "schemas/ledger",
    "pipeline/errors.py",
    "pipeline/formats",
    "pipeline/sources",
    "pipeline/store",
    "pipeline/store/ledger",
    "pipeline/store/log",
    "pipeline/store/admin",
    "pipeline/store/access",
    "pipeline/store/search",
    "pipeline/store/deliveries",
    "pipeline/store/dead_letters",
    "pipeline/store/config",
    "pipeline/store/mail",
    "pipeline/store/log",
    "pipeline/store/moving",
    "pipeline/delivery",
    "pipeline/mail",
    "pipeline",
    "pipeline/ledger",
    "pipeline/ledger/verifying",
    "pipeline/ledger/bundles",
    "ops/errors.py",
    "ops/console_settings.py",
    "ops/keeping_settings.py",
    "ops/server_urls.py",
    "ops/server_settings.py",
    "ops/settings.py",
    "ops/process_roles.py",
    "ops/plain_structlog.py",
    "ops/migrations",
    "ops/migrations/versions",
    "ops/runtime/driver",
    "ops/runtime",
    "ops/telemetry",
    "ops/telemetry/tracing",
    "ops/prometheus",
    "ops/servers",
    "ops",
    "ops/config",
    "ops/system",
    "ops/admin",
    "ops/admin/configured",
    "ops/admin/access",
    "ops/admin/verifying",
    "ops/admin/log",
    "ops/admin/backup",
    "ops/admin/erasure",
    "ops/admin/status",
    "ops/admin/doctor",
    "ops/admin/search",
    "ops/admin/figures.py",
    "ops/admin/configuring",
    "ops/admin/jobs",
    "ops/admin/moving",
    "ops/demo",
    "ops/bench/mailserver",
    "ops/bench/measuring",
    "ops/bench",
    "ops/bench/console",
    "ops/bench/distance",
    "ops/bench/growth",
    "ops/cli/terminal",
    "ops/cli/mail",
    "ops/cli/log",
    "ops/cli/erasure",
    "ops/cli/backup",
    "ops/cli/moving",
    "ops/cli",
    "ops/grafana",
    "ops/kubernetes",
    "workers",
    "workers/net",
    "workers/amqp",
    "workers/documents",
    "workers/transports",
    "workers/delivery",
    "workers/relay",
    "workers/eraser",
    "workers/verifier",
    "workers/ingest",
    "workers/ingress",
    "workers/mail",
    "workers/mail/imap",
    "workers/mail/api",
    "workers/mail/oauth",
    "workers/mail/pull",
    "workers/mail/idle",
    "workers/sequencer",
    "workers/sealer",
    "workers/commands",
    "workers/console/middleware.py",
    "workers/console/pace.py",
    "workers/console/call.py",
    "workers/console/ledger_job_child.py",
    "workers/console/job_runner.py",
    "workers/console/rendering",
    "workers/console/api",
    "workers/console/api/nouns",
    "workers/console/api/operations.py",
    "workers/console/pages",
    "workers/console/access",
    "workers/console",
)

# Folders whose files are named after a noun: an endpoint has a schema, statements, acts and commands. Other file names are
# unique, except those in OF_EVERY_PACKAGE.
BY_NOUN = (
    "schemas",
    "schemas/config",
    "schemas/ledger",
    "pipeline/store",
    "pipeline/store/",
    "ops/admin",
    "ops/admin/access",
    "ops/bench",
    "ops/cli",
    "ops/cli/mail",
    "ops/grafana",
    "workers/console/api/nouns",
)
OF_EVERY_PACKAGE = {"errors"}
MOST_FILES = 20

# Writes files with libraries of development, so no process and no command may load it.
GENERATOR = "ops/grafana/"

# library: where it may be imported; benchmarks may import the libraries of the peers that they run
HOMES = {
    "pika": ("workers/",),
    "dramatiq": ("workers/",),
    "celery": (),
    "imapclient": ("workers/",),
    "imaplib": ("workers/",),
    "apscheduler": ("workers/",),
    "sqlalchemy": ("pipeline/", "ops/"),
    "psycopg": ("pipeline/", "ops/"),
    "alembic": ("ops/",),
    "structlog": ("ops/", "workers/"),
    "logging": ("ops/", "workers/"),
    "prometheus_client": ("ops/",),
    "obstore": ("ops/runtime/blobs.py", "ops/runtime/places.py"),
    "opentelemetry": ("ops/telemetry/tracing/spans.py",),
    "grafana_foundation_sdk": (GENERATOR,),
}
# Workers pass connections on and catch their errors; only the pipeline makes statements.
HANDLES = ("sqlalchemy.Connection", "sqlalchemy.Engine", "sqlalchemy.exc.")
BENCH = "ops/bench"
LAZY = ("ops/cli", BENCH)  # may import a worker, inside a function

# What makes a statement; any module may pass a connection on.
STATEMENTS = {f"sqlalchemy.{name}" for name in ("text", "select", "insert", "update", "delete", "Table", "MetaData")}
# Statements of private servers before there is a schema: the database, the workers' login. Alembic runs the migrations.
BEFORE_THE_SCHEMA = ("ops/servers/postgres.py", "ops/system/prepare.py", "ops/migrations/")

ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.putenv"}
CLOCKS = {
    *(f"datetime.{name}" for name in ("now", "utcnow", "today")),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    *(f"time.{name}" for name in ("time", "time_ns", "monotonic", "perf_counter", "sleep")),
    "date.today",
}


@dataclass(frozen=True)
class Module:
    path: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]  # of the tree, in the order of `ast.walk`
    lines: int

    @property
    def layer(self) -> str:
        return self.path.split("/")[0]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def place(self) -> str:
        """The module's place in ORDER."""
        return self.path if self.path in ORDER else self.folder


@dataclass(frozen=True)
class Import:
    module: Module
    name: str
    lazy: bool


@cache
def modules() -> tuple[Module, ...]:
    return tuple(module(path) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py")))


def module(path: Path) -> Module:
    text = path.read_text()
    tree = ast.parse(text, path)
    return Module(path.relative_to(ROOT).as_posix(), tree, tuple(ast.walk(tree)), text.count("\n"))


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in module.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def for_types(module: Module) -> Iterator[ast.If]:
    """The blocks under TYPE_CHECKING, whose imports do not happen at run time."""
    return (node for node in module.nodes if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING")


@cache
def imports() -> tuple[Import, ...]:
    return tuple(_imports())


def _imports() -> Iterator[Import]:
    for module in modules():
        blocks = [*functions(module), *for_types(module)]
        inside = {id(node) for block in blocks for node in ast.walk(block)}
        for node in module.nodes:
            if isinstance(node, ast.Import):
                yield from (Import(module, alias.name, id(node) in inside) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module.path}: a relative import"
                yield from (Import(module, f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def uses(module: Module, names: set[str]) -> list[str]:
    attributes = (dotted(node) for node in module.nodes if isinstance(node, ast.Attribute))
    from_imports = (
        f"{node.module}.{alias.name}" for node in module.nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    )
    return [f"{module.path}: {name}" for name in (*attributes, *from_imports) if name in names]


def calls(module: Module, *methods: str, of_others: tuple[str, ...] = ()) -> list[str]:
    """Calls of methods with these names, except on `of_others`, whose methods mean something else."""
    return [
        f"{module.path}:{node.lineno}: .{node.func.attr}()"
        for node in module.nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in methods
        and dotted(node.func.value) not in of_others
    ]


@cache
def by_name() -> dict[str, Module]:
    """Modules and packages by their import names."""
    return {module.path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): module for module in modules()}


def arrows() -> Iterator[tuple[Module, Module]]:
    """Imports inside a package as (importer, imported), including those in functions and under TYPE_CHECKING."""
    for one in imports():
        target = by_name().get(one.name) or by_name().get(one.name.rpartition(".")[0])
        if target is not None and target.layer == one.module.layer:
            yield one.module, target


def test_there_is_something_to_look_at() -> None:
    assert set(LAYERS) == {module.layer for module in modules()}


def test_imports_run_one_way() -> None:
    wrong = [
        f"{one.module.path} imports {one.name}"
        for one in imports()
        if (target := one.name.split(".")[0]) in LAYERS
        and LAYERS.index(target) > LAYERS.index(one.module.layer)
        and not (one.lazy and target == "workers" and one.module.path.startswith(LAZY))
    ]

    assert [] == wrong


def test_commands_read_and_act_through_the_acts_of_operators() -> None:
    """What a command needs of the database is in ops/admin, so that a console can call the same."""
    assert [] == [
        f"{one.module.path} imports {one.name}"
        for one in imports()
        if one.module.path.startswith("ops/cli/") and one.name.startswith("pipeline.store")
    ]


def test_every_folder_has_its_place_in_the_order() -> None:
    assert {module.place for module in modules()} == set(ORDER)


def test_imports_inside_a_package_run_one_way() -> None:
    wrong = [
        f"{here.path} imports {there.path}" for here, there in arrows() if ORDER.index(there.place) > ORDER.index(here.place)
    ]

    assert [] == wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    needs = defaultdict(set)
    for here, there in arrows():
        if not there.path.endswith("__init__.py") and here != there:
            needs[here.path].add(there.path)
    left = set(needs)
    while free := {path for path in left if not needs[path] & left}:
        left -= free

    assert set() == left


def test_the_folder_of_the_pipeline_lists_the_route_and_nothing_else() -> None:
    assert ROUTE == {path.stem for path in (ROOT / "pipeline").glob("*.py")} - {"__init__"}


def test_a_folder_holds_no_more_than_can_be_looked_over() -> None:
    """Migrations are one file a version, for ever."""
    counted = Counter(module.folder for module in modules() if module.folder != "ops/migrations/versions")

    counted.update(str(path.parent) for path in (ROOT / "tests").rglob("*.py"))

    assert {} == {folder: count for folder, count in counted.items() if count > MOST_FILES}


def test_a_name_of_a_file_is_given_once_but_where_the_folder_makes_it_plain() -> None:
    places = defaultdict(list)
    for module in modules():
        places[Path(module.path).stem].append(module.folder)
    for each in ("__init__", "__main__", "worker", *OF_EVERY_PACKAGE):
        places.pop(each, None)
    twice = {name: folders for name, folders in places.items() if len(folders) > 1}

    assert {} == {name: found for name, found in twice.items() if sum(not is_by_noun(folder) for folder in found) > 1}


def is_by_noun(folder: str) -> bool:
    return folder in BY_NOUN or folder.startswith("pipeline/store/")


def test_every_process_has_a_folder_whose_entrance_is_its_worker() -> None:
    entrances = {
        module.folder for module in modules() if module.path.startswith("workers/") and module.path.endswith("/worker.py")
    }
    processes = {
        "console",
        "delivery",
        "eraser",
        "ingest",
        "ingress",
        "mail/idle",
        "mail/pull",
        "relay",
        "sealer",
        "sequencer",
        "verifier",
    }

    assert {f"workers/{each}" for each in processes} == entrances
    assert {each.replace("/", ".") + ".worker" for each in entrances} == {
        each for each in IMPORTED if each.startswith("workers.")
    }


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_only_where_it_is_at_home(library: str) -> None:
    elsewhere = {
        f"{one.module.path} imports {one.name}"
        for one in imports()
        if one.name.split(".")[0] == library
        and not one.module.path.startswith((*HOMES[library], BENCH))
        and not (one.module.layer == "workers" and one.name.startswith(HANDLES))
    }

    assert set() == elsewhere


def test_nothing_that_runs_imports_the_generator_of_dashboards() -> None:
    importers = {
        one.module.path for one in imports() if one.name.startswith("ops.grafana") and not one.module.path.startswith(GENERATOR)
    }

    assert set() == importers


def test_statements_are_made_in_the_store_only() -> None:
    elsewhere = [
        f"{one.module.path} imports {one.name}"
        for one in imports()
        if (one.name in STATEMENTS or one.name.startswith("psycopg.sql"))
        and not one.module.path.startswith(("pipeline/store/", BENCH, *BEFORE_THE_SCHEMA))
    ]

    assert [] == elsewhere


def test_only_the_settings_read_the_environment() -> None:
    may = {"ops/settings.py", "ops/bootstrap.py"}  # the latter runs before what the former imports is installed
    readers = [use for module in modules() for use in uses(module, ENVIRONMENT) if module.path not in may]

    assert [] == readers


def test_only_one_place_commits() -> None:
    committers = [
        call
        for module in modules()
        if module.path != "ops/runtime/db.py" and not module.path.startswith(BENCH)
        for call in calls(module, "commit", "begin", of_others=("self._session", "mail_leases", "lookup"))
    ]

    assert [] == committers


def test_the_pipeline_reads_no_clock_and_prints_nothing() -> None:
    pipeline = [module for module in modules() if module.layer == "pipeline"]
    printers = [
        module.path
        for module in pipeline
        for node in module.nodes
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]

    assert [] == [use for module in pipeline for use in uses(module, CLOCKS)] + printers


def test_a_process_does_not_load_what_only_others_use() -> None:
    """Mails are read in a process of their own, and IMAP needs no HTTP client.

    Each library costs time at every start, and memory in every process.
    """
    program = """
import sys
import workers.delivery.worker, workers.ingest.worker, workers.ingress.worker, workers.relay.worker
import workers.mail.idle.worker, workers.mail.pull.worker, workers.sealer.worker, workers.sequencer.worker
import workers.eraser.worker, workers.verifier.worker
print({"aiohttp", "alembic", "dkim", "inscriptis", "lxml", "opentelemetry", "requests", "tnefparse"} & set(sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)

    assert "set()\n" == ended.stdout


def test_modules_are_small() -> None:
    lines = {module.path: module.lines for module in modules() if not module.path.endswith("__init__.py")}

    assert {} == {path: count for path, count in lines.items() if count > 300}
    assert statistics.median(lines.values()) <= 110


def test_functions_are_small() -> None:
    long = [
        f"{module.path}: {function.name} has {length} lines"
        for module in modules()
        for function in functions(module)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > 50
    ]

    assert [] == long


def test_every_package_is_typed_and_says_what_it_is() -> None:
    assert [] == [layer for layer in LAYERS if not (ROOT / layer / "py.typed").exists()]
    assert [] == [module.path for module in modules() if ast.get_docstring(module.tree) is None]


def test_every_folder_is_a_package_that_says_what_lives_there() -> None:
    said = {module.folder for module in modules() if module.path.endswith("__init__.py")}

    assert {"ops/migrations/versions"} == {module.folder for module in modules()} - said


def test_no_folder_of_tests_is_named_like_a_package() -> None:
    assert [] == [path for path in (ROOT / "tests").rglob("*") if path.is_dir() and path.name in LAYERS]
