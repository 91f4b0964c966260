"""What every pod of ours has: its account, its rights, its secrets as files, and the settings of its login."""

from collections.abc import Collection
from typing import Any, Final

from ops.process_roles import Login
from ops.settings import PREFIX

#: The version that docker-compose.yml builds, too.
IMAGE: Final = "waxseal:0.1.0"
USER: Final = 10001  # that the image runs as

#: Names of what a process may need besides Postgres; each is a secret, or a part of one.
BROKER: Final = "broker"
KEYS: Final = "keys"
BUCKET: Final = "bucket"
PROXY: Final = "proxy"
OPENID: Final = "openid"

#: No limit of CPU: a process that is slowed down answers late, and may then lose its leases while it works.
RESOURCES: Final = {
    "requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
    "limits": {"memory": "512Mi", "ephemeral-storage": "512Mi"},
}

_SECRETS: Final = "/run/secrets"
_TLS: Final = f"sslmode=verify-full&sslrootcert={_SECRETS}/postgres-ca/ca.crt"

Fields = dict[str, Any]


def labels(role: str) -> Fields:
    """What selects the pods of a role; monitoring calls its series by it."""
    return {"app.kubernetes.io/name": "waxseal", "app.kubernetes.io/component": role}


def pod(container: Fields, login: Login, needs: Collection[str], env: Fields, **more: Any) -> Fields:
    """The spec of a pod with one container of ours, which logs in to Postgres as `login` and is given what it `needs`."""
    secrets = _secret_files(login, needs)
    container |= {
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [*({"name": name, "value": value} for name, value in env.items()), *_environment(login, needs)],
        "resources": RESOURCES,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}, *_mounts(secrets)],  # noqa: S108 - a volume of the pod's own
    }
    return {
        "serviceAccountName": "waxseal",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # so that what a killed child leaves behind is reaped
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **more,
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "256Mi"}}, *(_volume(*each) for each in secrets)],
    }


def _secret_files(login: Login, needs: Collection[str]) -> list[tuple[str, str, str]]:
    """The secrets that become files: the volume's name, the secret, and the one of its keys that the pod sees."""
    broker = [("broker", "rabbitmq-waxseal", "password")] if BROKER in needs else []
    keys = [("keys", "waxseal-keys", "keys")] if KEYS in needs else []
    return [("postgres-ca", "postgres-ca", "ca.crt"), ("database", f"postgres-{login.key}", "password"), *broker, *keys]


def _volume(name: str, secret: str, key: str) -> Fields:
    items = [{"key": key, "path": key}]
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}


def _mounts(secrets: list[tuple[str, str, str]]) -> list[Fields]:
    return [{"name": name, "mountPath": f"{_SECRETS}/{name}", "readOnly": True} for name, _, _ in secrets]


def _environment(login: Login, needs: Collection[str]) -> list[Fields]:
    url = f"postgresql://{login.name}@postgres-rw:5432/waxseal?{_TLS}"
    values = {f"{PREFIX}DATABASE_URL": url, f"{PREFIX}DATABASE_PASSWORD_FILE": f"{_SECRETS}/database/password"}
    if BROKER in needs:
        values |= {f"{PREFIX}AMQP_URL": "amqp://waxseal@rabbitmq:5672/"}
        values |= {f"{PREFIX}AMQP_PASSWORD_FILE": f"{_SECRETS}/broker/password"}
    if KEYS in needs:
        values |= {f"{PREFIX}KEYS_FILE": f"{_SECRETS}/keys/keys"}
    plain = [{"name": name, "value": value} for name, value in values.items()]
    return plain + [_secret_value(*each) for each in _SECRET_VALUES if each[0] in needs]


#: Secrets that can be given in the environment only: the need, the variable, the secret and its key. None must exist.
_SECRET_VALUES: Final = (
    (BUCKET, "AWS_ACCESS_KEY_ID", "waxseal-bucket", "access-key-id"),
    (BUCKET, "AWS_SECRET_ACCESS_KEY", "waxseal-bucket", "secret-access-key"),
    (PROXY, f"{PREFIX}PROXY", "waxseal-proxy", "url"),
    (OPENID, f"{PREFIX}OIDC_SECRET", "waxseal-openid", "secret"),
)


def _secret_value(_need: str, variable: str, secret: str, key: str) -> Fields:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
