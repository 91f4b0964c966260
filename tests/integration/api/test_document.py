"""The API is as its document says: asked by schemathesis, which makes requests of it, valid ones and others, and by a client
that a generator makes of it."""

import gc
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import schemathesis
from anyio import CapacityLimiter
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as trials
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from starlette.applications import Starlette

from ops.admin.access import tokens
from ops.runtime.db import make_engine
from support.console.in_process import InProcess
from support.console.running import running_console
from support.console.world import fill, settings_of
from workers.console.access.principals import Authentication
from workers.console.api.operations import OPERATIONS
from workers.console.app import make_app
from workers.console.call import Console

MORE = int(os.environ.get("WAXSEAL_TEST_FUZZ", "1"))
SHARE = (18, 4, 8)  # cases of an operation: on what is there, on what may be, and what is not as described
EACH = 5  # of so many cases one is asked by somebody with fewer rights, too
#: Of whoever asks.
AS_DOCUMENTED = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
CHECKS = [
    *AS_DOCUMENTED,
    checks.negative_data_rejection,
    checks.positive_data_acceptance,
    checks.missing_required_header,
]
#: A cursor that we did not make, or a name of nothing, is as described all the same.
CONFIG = {
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", 400, 404, 409, 412, 413, 422, 428]},
        "negative_data_rejection": {"expected-statuses": [400, 401, 404, 405, 409, 412, 413, 415, 422, 428, 429]},
    }
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def world(shared_database, folder) -> Any:
    fill(shared_database, folder)
    shared_database.run("UPDATE endpoint SET url = 'https://127.0.0.1:9/'")  # where a test is not sent, without asking DNS
    return shared_database


@pytest.fixture(scope="module")
def settings(world, folder) -> Any:
    return settings_of(world, folder)


@pytest.fixture(scope="module")
def token(world) -> str:
    engine = make_engine(world.console_url, pool_size=1)
    _, secret = tokens.new(engine, who="fuzz", role="admin", tenant=None, lasts=timedelta(hours=1), by="test")
    engine.dispose()
    return secret


@pytest.fixture(scope="module")
def others(world) -> list[str]:
    """Tokens of those who may do less: in another role, for one tenant, or for another one."""
    engine = make_engine(world.console_url, pool_size=1)
    lasts, made = timedelta(hours=1), []
    for role, tenant in (("viewer", None), ("operator", "acme"), ("admin", "zoo"), ("viewer", "acme")):
        made.append(tokens.new(engine, who="fuzz", role=role, tenant=tenant, lasts=lasts, by="test")[1])
    engine.dispose()
    return made


@pytest.fixture(scope="module")
def app(settings) -> Iterator[Starlette]:
    acts = make_engine(settings.database_url, pool_size=4)
    reads = make_engine(settings.database_url, pool_size=4, statement_timeout=10, reads_as="waxseal_reader")
    threads = CapacityLimiter(4)
    yield make_app(Console(settings, reads, acts, threads, Authentication(settings, acts, threads)))
    for engine in (acts, reads):
        engine.dispose()


@pytest.fixture(scope="module")
def schema(app, token) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    config = schemathesis.Config.from_dict(CONFIG)
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, config=config, headers=headers)


def there(path: str, world: Any) -> dict[str, Any]:
    """Values of the parameters of a path that name something."""
    ((chain,),) = world.rows("SELECT chain_id FROM chain WHERE tenant = 'acme' AND subject = 'order-1'")
    of = "job" if "/jobs/" in path else "delivery" if "/deliveries/" in path else "dead_letter"
    ((id,),) = world.rows(f"SELECT min(id) FROM {of} WHERE tenant = 'acme'")
    name = "support" if "/mailboxes/" in path else "billing"
    values = {"tenant": "acme", "name": name, "chain": chain.hex, "seq": 0, "id": id, "key": "none"}
    return {each: value for each, value in values.items() if f"{{{each}}}" in path}


def test_the_document_is_valid(schema) -> None:
    schema.validate()

    assert "3.1.0" == schema.raw_schema["openapi"]
    assert len({each.id for each in OPERATIONS}) == len(OPERATIONS)
    assert all(each.summary for each in OPERATIONS)


def tried(strategy: Any, cases: int, ask: Callable[[Any], None]) -> None:
    """Asks so many of the strategy's cases; the same each time, unless more are asked for."""

    @given(case=strategy)
    @trials(
        max_examples=cases * MORE,
        derandomize=MORE == 1,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def attempt(case: Any) -> None:
        ask(case)

    attempt()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_request_is_answered_by_an_error_of_ours_or_in_a_way_that_is_not_documented(
    app, schema, world, token, others
) -> None:
    """Each is asked by who may do everything, some by one who may not. `make fuzz-api` tries more, and others each time."""
    answered: Counter[int] = Counter()
    wrong: list[str] = []
    session, lesser = InProcess(app), cycle(others)
    cases: list[str] = []

    def ask(case: Any) -> None:
        cases.append(case.operation.label)
        others_too = [(next(lesser), AS_DOCUMENTED)] if len(cases) % EACH == 0 else []
        for who, expected in ((token, CHECKS), *others_too):
            response = case.call(headers={"Authorization": f"Bearer {who}"}, session=session)
            answered[response.status_code] += 1
            try:
                case.validate_response(response, checks=expected)
            except FailureGroup as found:
                wrong.extend(f"{case.operation.label} {case.query} {case.body!r:.200}: {each}" for each in found.exceptions)

    gc.freeze()  # what pytest and schemathesis hold is not looked through again for each thousand objects of a case
    for each in schema.get_all_operations():
        operation = each.ok()
        tried(operation.as_strategy(path_parameters=there(operation.path, world)), SHARE[0], ask)
        tried(operation.as_strategy(), SHARE[1], ask)
        tried(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), SHARE[2], ask)
    session.close()
    print(f"{len(cases)} cases of {len({*cases})} operations, answered: {dict(sorted(answered.items()))}")  # noqa: T201
    assert not wrong, "\n".join(wrong)
    assert len({*cases}) == len(OPERATIONS) - 1  # it leaves out the one that gives the document
    assert len(cases) >= 2000
    assert answered[200] > len(OPERATIONS)
    assert not [status for status in answered if status >= 500]


@pytest.fixture(scope="module")
def client(app, schema, tmp_path_factory) -> Iterator[ModuleType]:
    """A client that a generator made of the document."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(schema.raw_schema))
    tools = Path(sys.executable).parent
    made = subprocess.run(
        [
            tools / "openapi-python-client",
            "generate",
            "--path",
            "openapi.json",
            "--meta",
            "none",
            "--output-path",
            "waxseal_api",
        ],
        cwd=folder,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == made.returncode, made.stdout + made.stderr
    said = made.stdout + made.stderr
    warned = [line for line in said.splitlines() if line.startswith(("WARNING", "Unsupported"))]
    assert [  # of YAML it takes the other type; lines of JSON are for streaming clients
        "WARNING parsing GET /api/v1/audit/export within audit.",
        "WARNING parsing PUT /api/v1/configuration within configuration.",
        "Unsupported content type application/yaml",
    ] == warned, said
    sys.path.insert(0, str(folder))
    import waxseal_api

    yield waxseal_api
    sys.path.remove(str(folder))


def test_a_client_that_a_generator_made_reads_counts_and_acts(client, world, settings, token) -> None:
    from waxseal_api.api.dead_letters import discard_dead_letters, list_dead_letters
    from waxseal_api.api.jobs import show_job
    from waxseal_api.models import Decision, Job, Preview

    with running_console(settings) as url:
        api = client.AuthenticatedClient(base_url=url, token=token)
        page = list_dead_letters.sync("acme", client=api, limit=1)
        wanted = Decision(reason="missing_id")
        counted = discard_dead_letters.sync("acme", client=api, body=wanted, dry_run=True, idempotency_key="client-1")
        began = discard_dead_letters.sync("acme", client=api, body=wanted, idempotency_key="client-2")
        assert isinstance(began, Job)
        job = show_job.sync(began.id, client=api)

    assert (1, "acme") == (len(page.data), page.data[0].tenant)
    assert isinstance(page.data[0].last_at, type(job.created_at))
    assert isinstance(counted, Preview)
    assert (counted.count, "queued") == (job.total, str(job.state))
