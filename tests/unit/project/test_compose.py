import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from ops.config.settings_page import TRACING
from ops.runtime.redact import is_secret_name
from ops.settings import described

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
PROMETHEUS = ROOT / "ops" / "prometheus" / "prometheus.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()

Service = dict[str, Any]


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = YAML(typ="safe").load(path)
    return document


FILE = load(COMPOSE)
SERVICES: dict[str, Service] = FILE["services"]
WATCHING = {name: one for name, one in SERVICES.items() if one.get("profiles") == ["observability"]}
LONG_RUNNING = {name: one for name, one in SERVICES.items() if name != "migrate"}
OURS = {name: one for name, one in SERVICES.items() if "build" in one}


@pytest.mark.parametrize(
    ("schema", "path"), [("vendor.compose-spec", COMPOSE), ("vendor.github-workflows", WORKFLOW)], ids=["compose", "ci"]
)
def test_the_file_is_valid_by_its_public_schema(schema: str, path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert 0 == checked.returncode, checked.stdout


def test_every_process_of_the_system_is_there() -> None:
    ours = {"migrate", "ingress", "ingest", "relay", "deliver", "mail-pull", "mail-idle"}
    ours |= {"sequencer", "sealer", "eraser", "verifier", "console"}
    assert {"postgres", "rabbitmq"} | ours == SERVICES.keys() - WATCHING
    assert {"prometheus", "alertmanager", "grafana", "postgres-exporter"} == WATCHING.keys()
    assert [] == [name for name, one in OURS.items() if one["command"] != [name]]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w.]+)?", SERVICES[name]["image"])


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_is_watched_bounded_and_restarted(name: str) -> None:
    service = LONG_RUNNING[name]

    assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])
    assert {"memory", "cpus"} == set(service["deploy"]["resources"]["limits"])
    assert "unless-stopped" == service["restart"]
    assert "stop_grace_period" in service
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])


def test_the_migration_runs_once_and_before_everything_of_ours() -> None:
    waits = {name: one["depends_on"].get("migrate", {}).get("condition") for name, one in OURS.items()}

    assert "no" == SERVICES["migrate"]["restart"]
    assert {"service_completed_successfully"} == {condition for name, condition in waits.items() if name != "migrate"}


def test_every_dependency_has_a_condition_and_exists() -> None:
    dependencies = [(other, how) for one in SERVICES.values() for other, how in one.get("depends_on", {}).items()]

    assert [] == [other for other, how in dependencies if other not in SERVICES or "condition" not in how]


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port for one in SERVICES.values() for port in one.get("ports", [])]

    assert [] == [port for port in ports if not port.startswith("127.0.0.1:")]


def test_no_secret_is_written_down() -> None:
    values = [(name, str(value)) for one in SERVICES.values() for name, value in one.get("environment", {}).items()]
    named = [name for name, value in values if is_secret_name(name) and not value.startswith(("${", "/run/secrets/"))]
    in_urls = re.findall(r"://[^\s:/@]+:(?!\$\{\w+:\?)[^@\s]*@", COMPOSE.read_text())

    assert [] == named + in_urls
    assert [] == [name for name, secret in FILE["secrets"].items() if set(secret) != {"environment"}]


def test_a_missing_secret_is_asked_for_by_name() -> None:
    asked = re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE.read_text())

    assert [] == [name for name, rest in asked if is_secret_name(name) and not rest.startswith(":?put it into")]


def test_every_volume_secret_and_config_is_declared() -> None:
    mounted = {volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", [])}
    volumes = {each for each in mounted if not each.startswith("./")}
    secrets = {secret for one in SERVICES.values() for secret in one.get("secrets", [])}
    configs = {config["source"] for one in SERVICES.values() for config in one.get("configs", [])}

    assert (set(FILE["volumes"]), set(FILE["secrets"]), set(FILE["configs"])) == (volumes, secrets, configs)


def test_what_watches_can_write_to_none_of_our_files_and_has_no_rights() -> None:
    folders = [volume for one in WATCHING.values() for volume in one.get("volumes", []) if volume.startswith("./")]

    assert folders
    assert [] == [folder for folder in folders if not (ROOT / folder.split(":")[0]).is_dir()]
    assert [] == [folder for folder in folders if not re.fullmatch(r"\./ops/\w+(/\w+)?:/etc/[\w/]+:ro", folder)]
    assert [(["ALL"], ["no-new-privileges:true"])] * 4 == [(one["cap_drop"], one["security_opt"]) for one in WATCHING.values()]


def test_prometheus_asks_every_process_at_its_port_and_both_servers() -> None:
    config = load(PROMETHEUS)
    asked = {job["job_name"]: job for job in config["scrape_configs"]}
    found = {(name, each["port"]) for each in asked["waxseal"]["dns_sd_configs"] for name in each["names"]}
    ports = {
        (name, int(one["environment"].get("WAXSEAL_INGRESS_PORT", one["environment"]["WAXSEAL_METRICS_PORT"])))
        for name, one in OURS.items()
        if name != "migrate"
    }
    targets = {target for job in asked.values() for each in job.get("static_configs", []) for target in each["targets"]}

    assert ports == found
    assert {"rabbitmq:15692", "postgres-exporter:9187"} == targets
    assert "rabbitmq_prometheus" in FILE["configs"]["broker_plugins"]["content"]
    assert {"source": "broker_plugins", "target": "/etc/rabbitmq/enabled_plugins"} in SERVICES["rabbitmq"]["configs"]
    assert "CREATE ROLE waxseal_monitor LOGIN PASSWORD :'monitor' IN ROLE pg_monitor;" in FILE["configs"]["logins"]["content"]
    (alertmanagers,) = config["alerting"]["alertmanagers"]
    assert [{"targets": ["alertmanager:9093"]}] == alertmanagers["static_configs"]


@pytest.mark.parametrize("name", OURS)
def test_a_process_is_given_only_settings_that_exist(name: str) -> None:
    assert set() == set(OURS[name]["environment"]) - {variable for variable, _, _ in (*described(), *TRACING)}


@pytest.mark.parametrize("name", OURS)
def test_a_process_gets_its_keys_from_a_file_and_no_rights(name: str) -> None:
    process = OURS[name]

    assert "/run/secrets/keys" == process["environment"]["WAXSEAL_KEYS_FILE"]
    assert (["ALL"], ["no-new-privileges:true"]) == (process["cap_drop"], process["security_opt"])


def test_only_the_migration_logs_in_as_the_owner() -> None:
    logins = {
        name: (
            one["environment"]["WAXSEAL_DATABASE_URL"],
            one["environment"]["WAXSEAL_DATABASE_PASSWORD_FILE"],
            *one["secrets"],
        )
        for name, one in OURS.items()
    }

    assert ["migrate"] == [name for name, login in logins.items() if "//waxseal@" in login[0]]
    assert ["migrate"] == [name for name, login in logins.items() if "owner_password" in str(login)]


@pytest.mark.parametrize("name", OURS)
def test_no_password_is_part_of_a_url_or_of_an_environment(name: str) -> None:
    environment = OURS[name]["environment"]
    files = [value for variable, value in environment.items() if variable.endswith("_FILE")]

    assert [None, None] == [urlsplit(environment[f"WAXSEAL_{server}_URL"]).password for server in ("DATABASE", "AMQP")]
    assert set(OURS[name]["secrets"]) == {value.removeprefix("/run/secrets/") for value in files}


def test_the_broker_is_given_a_user_for_the_processes_and_one_that_may_only_publish() -> None:
    users = json.loads(re.sub(r"\$\{(\w+):\?[^}]*\}", r"\1", FILE["configs"]["broker_users"]["content"]).replace("$$", "$"))

    assert "load_definitions = /etc/rabbitmq/waxseal-users.json" in FILE["configs"]["broker"]["content"]
    assert {"source": "broker_users", "target": "/etc/rabbitmq/waxseal-users.json"} in SERVICES["rabbitmq"]["configs"]
    assert {"waxseal": "WAXSEAL_AMQP_PASSWORD", "upstream": "WAXSEAL_UPSTREAM_PASSWORD"} == {
        user["name"]: user["password"] for user in users["users"]
    }
    rights = {one["user"]: (one["configure"], one["write"], one["read"]) for one in users["permissions"]}
    assert {"waxseal": (".*", ".*", ".*"), "upstream": ("^$", r"^waxseal\.in$", "^$")} == rights


def test_the_ingress_can_be_scaled_over_a_range_of_ports() -> None:
    ingress = SERVICES["ingress"]

    assert ["127.0.0.1:${WAXSEAL_INGRESS_PORTS:-8420}:8420"] == ingress["ports"]
    assert "${WAXSEAL_INGRESS_PROCESSES:-1}" == ingress["environment"]["WAXSEAL_INGRESS_PROCESSES"]


def test_a_health_check_asks_the_port_that_the_process_listens_on() -> None:
    for name, one in OURS.items():
        port = one["environment"].get("WAXSEAL_INGRESS_PORT", one["environment"]["WAXSEAL_METRICS_PORT"])

        assert name == "migrate" or f":{port}/readyz" in one["healthcheck"]["test"][-1]


def test_the_image_is_built_from_the_locks_on_a_pinned_base() -> None:
    assert re.search(r"^ARG PYTHON=python:3\.1[1-3]\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert [] == [
        line
        for line in DOCKERFILE.splitlines()
        if line.startswith("FROM") and "$" not in line.split("AS")[0] and "dependencies" not in line
    ]
    assert 2 == DOCKERFILE.count("--require-hashes")


def test_the_image_runs_without_root_and_without_tools_to_build() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]

    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["waxseal"]' in last
    assert [] == re.findall(r"RUN|pip|apt|build", last)


def test_the_files_that_the_image_copies_get_past_the_ignore_list() -> None:
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)

    assert kept == {name for line in copied for name in line.split()}


def test_the_workflow_runs_the_projects_own_check_with_least_rights() -> None:
    workflow = load(WORKFLOW)
    (job,) = workflow["jobs"].values()
    actions = [step["uses"] for step in job["steps"] if "uses" in step]

    assert {"contents": "read"} == workflow["permissions"]
    assert ["3.11", "3.13"] == job["strategy"]["matrix"]["python"]
    assert [] == [action for action in actions if not re.fullmatch(r"[\w./-]+@v\d+\.\d+\.\d+", action)]
    assert [".ci/run"] == [step["run"] for step in job["steps"] if "run" in step]
    assert 0 < job["timeout-minutes"] <= 60
    assert workflow["concurrency"]["cancel-in-progress"]


def test_what_runs_before_a_commit_is_what_make_lint_runs() -> None:
    (local,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]

    assert "local" == local["repo"]
    assert re.findall(r"^\t@\$\(BIN\)/(.+)$", recipe, re.MULTILINE) == [
        hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]
    ]
    assert [("system", False)] * 3 == [(hook["language"], hook["pass_filenames"]) for hook in local["hooks"]]
