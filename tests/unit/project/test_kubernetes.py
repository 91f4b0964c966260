"""The manifests name roles, settings, images and metrics that exist, give no rights, and are what the program writes."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from ops.config.settings_page import TRACING
from ops.kubernetes.written import written
from ops.process_roles import INGRESS, LOGIN_OF, LOGINS
from ops.prometheus import RULES
from ops.runtime.redact import is_secret_name
from ops.settings import Settings, described
from ops.telemetry import table  # noqa: F401 - importing it registers the metrics
from ops.telemetry.metric_kinds import TABLE
from support.deploying.manifests import FOLDER, container, environment, kustomizations, manifests, of_kind, ours, pods, secrets
from support.pages import commands, unknown_words
from support.paths import ROOT

COMPOSE = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
VARIABLES = {name for name, _, _ in (*described(), *TRACING)}
#: Of obstore, which reads the usual ones.
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}
KINDS = {
    "v1": {"Namespace", "ServiceAccount", "Service"},
    "apps/v1": {"Deployment"},
    "batch/v1": {"Job", "CronJob"},
    "policy/v1": {"PodDisruptionBudget"},
    "networking.k8s.io/v1": {"NetworkPolicy", "Ingress"},
    "monitoring.coreos.com/v1": {"PodMonitor", "PrometheusRule"},
    "keda.sh/v1alpha1": {"ScaledObject"},
    "postgresql.cnpg.io/v1": {"Cluster"},
    "rabbitmq.com/v1beta1": {"RabbitmqCluster"},
}
PAGE = "ops/docs/kubernetes.md"
COMPONENT = "app.kubernetes.io/component"


def own_settings(folder: str) -> dict[str, str]:
    (settings,) = kustomizations()[FOLDER / folder]["configMapGenerator"]
    return dict(each.split("=", 1) for each in settings["literals"])


def allowed_to(policy: str) -> set[str]:
    (roles,) = of_kind("NetworkPolicy")[policy]["spec"]["podSelector"]["matchExpressions"]
    assert (COMPONENT, "In") == (roles["key"], roles["operator"])
    return set(roles["values"])


def test_the_files_that_the_program_writes_are_as_it_writes_them() -> None:
    assert {} == {name: text for name, text in written().items() if text != (FOLDER / name).read_text(encoding="utf-8")}


def test_every_manifest_is_of_a_known_kind_and_there_once() -> None:
    named = [(each["kind"], each["metadata"]["name"]) for each in manifests()]

    assert [] == [each["kind"] for each in manifests() if each["kind"] not in KINDS.get(each["apiVersion"], ())]
    assert len(named) == len(set(named))


def test_kustomize_is_told_of_every_file_and_of_none_else() -> None:
    def parts(folder: Path, told: dict[str, list[str]]) -> list[Path]:
        return [folder / each for each in (*told.get("resources", []), *told.get("components", []))]

    told = {path.resolve() for folder, one in kustomizations().items() for path in parts(folder, one)}
    files = {path for path in FOLDER.rglob("*.yaml") if path.stem != "kustomization"}
    dashboards = [name for each in kustomizations()[ROOT / "ops/grafana"]["configMapGenerator"] for name in each["files"]]

    assert files | (kustomizations().keys() - {FOLDER / "small"}) == told
    assert sorted(path.name for path in (ROOT / "ops/grafana").glob("*.json")) == dashboards


def test_every_process_has_a_deployment_that_runs_its_command() -> None:
    started = {name: container(pod)["args"] for name, pod in ours().items()}

    assert {role: [role] for role in LOGIN_OF} == {
        name: args for name, args in started.items() if name in of_kind("Deployment")
    }
    assert [] == [args for args in started.values() if unknown_words(args[:1])]


def test_images_are_those_of_the_compose_file() -> None:
    postgres, compose = of_kind("Cluster")["postgres"]["spec"]["imageName"], {one["image"] for one in COMPOSE.values()}

    assert {container(pod)["image"] for pod in pods().values()} <= compose
    assert of_kind("RabbitmqCluster")["rabbitmq"]["spec"]["image"] in compose
    assert COMPOSE["postgres"]["image"].partition(":")[2] == postgres.partition(":")[2].partition("-")[0]
    (ours,) = kustomizations()[FOLDER / "small"]["images"]
    assert f"{ours['name']}:{ours['newTag']}" in compose


@pytest.mark.parametrize("name", ours())
def test_a_process_is_given_only_settings_that_exist_and_no_secret_in_the_clear(name: str) -> None:
    given = environment(ours()[name])
    literals = own_settings("base") | own_settings("small")

    assert set() == (given.keys() | literals.keys()) - VARIABLES - AWS
    assert [] == [
        variable
        for variable, value in (given | literals).items()
        if is_secret_name(variable) and value is not None and not value.startswith("/run/secrets/")
    ]
    assert [] == [value for value in given.values() if value and urlsplit(value).password]


@pytest.mark.parametrize("name", ours())
def test_a_file_that_a_setting_names_is_mounted(name: str) -> None:
    pod = ours()[name]
    keys = {each["name"]: each["secret"]["items"] for each in pod["spec"]["volumes"] if each.get("secret", {}).get("items")}
    mounts = {each["name"]: each["mountPath"] for each in container(pod)["volumeMounts"]}
    files = {f"{mounts[name]}/{item['path']}" for name, items in keys.items() for item in items}
    url = environment(pod)["WAXSEAL_DATABASE_URL"]
    named = {value for variable, value in environment(pod).items() if variable.endswith("_FILE")}

    assert files == named | {url.partition("sslrootcert=")[2]}
    assert mounts.keys() == {each["name"] for each in pod["spec"]["volumes"]}


@pytest.mark.parametrize("name", pods())
def test_a_pod_has_no_rights(name: str) -> None:
    spec = pods()[name]["spec"]

    assert (True, "RuntimeDefault") == (
        spec["securityContext"]["runAsNonRoot"],
        spec["securityContext"]["seccompProfile"]["type"],
    )
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["automountServiceAccountToken"] is False
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == container(pods()[name])["securityContext"]
    assert {"memory", "ephemeral-storage"} == container(pods()[name])["resources"]["limits"].keys()


def test_the_user_is_the_one_of_the_image() -> None:
    (user,) = re.findall(r"^USER (\d+):\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert {int(user)} == {pod["spec"]["securityContext"]["runAsUser"] for pod in ours().values()}


@pytest.mark.parametrize("role", LOGIN_OF)
def test_a_process_is_watched_spread_and_given_more_time_to_stop_than_a_lease_lasts(role: str) -> None:
    spec, process = ours()[role]["spec"], container(ours()[role])
    port = environment(ours()[role])["WAXSEAL_INGRESS_PORT" if role == INGRESS else "WAXSEAL_METRICS_PORT"]

    assert spec["terminationGracePeriodSeconds"] > Settings.model_fields["lease"].default
    assert {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} == {
        each["topologyKey"] for each in spec["topologySpreadConstraints"]
    }
    assert int(port) == {each["name"]: each["containerPort"] for each in process["ports"]}["probes"]
    probes = [process[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert [("/livez", "probes"), ("/livez", "probes"), ("/readyz", "probes")] == [
        (each["path"], each["port"]) for each in probes
    ]


def test_what_clients_connect_to_goes_on_for_a_while_and_its_service_leads_there() -> None:
    services = {name: one["spec"] for name, one in of_kind("Service").items()}

    assert {name for name, pod in ours().items() if "lifecycle" in container(pod)} == services.keys()
    for name, service in services.items():
        labels, ports = ours()[name]["metadata"]["labels"], {each["name"] for each in container(ours()[name])["ports"]}
        assert labels == service["selector"]
        assert {each["targetPort"] for each in service["ports"]} <= ports


def test_what_runs_more_than_once_has_a_budget_and_the_ingress_knows_how_often_it_runs() -> None:
    several = {name for name in LOGIN_OF if of_kind("Deployment")[name]["spec"].get("replicas", 2) > 1}

    assert several | {"rabbitmq"} == of_kind("PodDisruptionBudget").keys()
    assert str(of_kind("Deployment")[INGRESS]["spec"]["replicas"]) == environment(ours()[INGRESS])["WAXSEAL_INGRESS_PROCESSES"]


def test_nothing_is_reached_unless_a_policy_says_so_and_what_is_needed_is() -> None:
    deny = of_kind("NetworkPolicy")["default-deny"]["spec"]
    reaches = {name: environment(pod).keys() for name, pod in ours().items() if name in LOGIN_OF}

    assert ({}, ["Ingress", "Egress"]) == (deny["podSelector"], deny["policyTypes"])
    assert {name for name, given in reaches.items() if "WAXSEAL_AMQP_URL" in given} == allowed_to("to-rabbitmq")
    assert {name for name, given in reaches.items() if "AWS_ACCESS_KEY_ID" in given} | {"mail-idle"} == allowed_to("to-https")
    assert of_kind("Service").keys() == allowed_to("from-outside")


def test_addresses_on_the_internet_are_no_private_ones() -> None:
    blocks = [
        peer["ipBlock"]
        for policy in of_kind("NetworkPolicy").values()
        for rule in policy["spec"].get("egress", [])
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "100.64.0.0/10"}

    assert {"0.0.0.0/0", "2000::/3"} == {each["cidr"] for each in blocks}
    assert [] == [each for each in blocks if each["cidr"] == "0.0.0.0/0" and not private <= set(each["except"])]


def test_the_rules_are_those_that_compose_mounts() -> None:
    groups = [group for path in RULES for group in YAML(typ="safe").load(path)["groups"]]

    assert groups == of_kind("PrometheusRule")["waxseal"]["spec"]["groups"]


def test_monitoring_calls_jobs_and_roles_as_prometheus_does_elsewhere() -> None:
    jobs = {job["job_name"] for job in YAML(typ="safe").load(ROOT / "ops/prometheus/prometheus.yml")["scrape_configs"]}
    (relabel,) = of_kind("PodMonitor")["waxseal"]["spec"]["podMetricsEndpoints"][0]["relabelings"]

    assert jobs == of_kind("PodMonitor").keys()
    assert ("role", "__meta_kubernetes_pod_label_app_kubernetes_io_component") == (
        relabel["targetLabel"],
        *relabel["sourceLabels"],
    )
    for name, monitor in of_kind("PodMonitor").items():
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        named = {each["replacement"] for each in endpoint.get("relabelings", []) if each["targetLabel"] == "job"}
        if not named:
            assert "app.kubernetes.io/name" == monitor["spec"]["jobLabel"]
            named = {monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]}
        assert {name} == named


def test_what_is_scaled_is_scaled_by_the_age_of_a_stage_and_has_no_number_of_its_own() -> None:
    ages = TABLE["waxseal_stage_oldest_age_seconds"].labels["stage"]
    for name, scaled in of_kind("ScaledObject").items():
        (trigger,) = scaled["spec"]["triggers"]
        (stage,) = re.fullmatch(
            r'max\(waxseal_stage_oldest_age_seconds\{stage="(\w+)"\}\)', trigger["metadata"]["query"]
        ).groups()

        assert stage in ages
        assert "replicas" not in of_kind("Deployment")[name]["spec"]
        assert scaled["spec"]["minReplicaCount"] > 0, "the processes themselves tell the ages"
    assert {name for name in LOGIN_OF if "replicas" not in of_kind("Deployment")[name]["spec"]} == of_kind(
        "ScaledObject"
    ).keys()


def test_every_login_is_made_a_member_of_its_role_and_of_no_other() -> None:
    made = {each["name"]: each for each in of_kind("Cluster")["postgres"]["spec"]["managed"]["roles"]}
    members = {name: one["inRoles"] for name, one in made.items() if "inRoles" in one}

    assert {one.name: [one.member_of] for one in LOGINS} | {"waxseal_monitor": ["pg_monitor"]} == members
    assert {one.member_of for one in LOGINS} == {name for name, one in made.items() if not one["login"]}
    assert [] == [name for name, one in made.items() if one.get("superuser") or (one.get("createrole") and name != "waxseal")]
    assert {one.name: f"postgres-{one.key}" for one in LOGINS}.items() <= {
        name: one["passwordSecret"]["name"] for name, one in made.items() if one["login"]
    }.items()


def test_what_was_acknowledged_is_on_two_machines() -> None:
    postgres, rabbitmq = of_kind("Cluster")["postgres"]["spec"], of_kind("RabbitmqCluster")["rabbitmq"]["spec"]

    assert {"method": "any", "number": 1, "dataDurability": "required"} == postgres["postgresql"]["synchronous"]
    assert (3, 3) == (postgres["instances"], rabbitmq["replicas"])
    assert "default_queue_type = quorum\n" in rabbitmq["rabbitmq"]["additionalConfig"]


def test_the_page_makes_every_secret_that_must_exist_and_names_the_others() -> None:
    made = {words[3]: words for words in commands("kubectl") if words[:3] == ["create", "secret", "generic"]}
    needed = {(name, key) for name, key, must in secrets() if must and name != "postgres-ca"}
    files = [(name, word.split("=", 1)[1]) for name, words in made.items() for word in words if word.startswith("--from-file=")]
    keys = {(name, file.partition("=")[0] if "=" in file else Path(file).name) for name, file in files}

    assert needed <= keys
    assert {"postgres-owner", "rabbitmq-definitions"} <= made.keys()
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert [] == [name for name, _, must in secrets() if not must and f"`{name}`" not in page and name not in made]
