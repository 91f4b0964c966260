"""What runs as the database's owner, and ends: the migration, and the task that applies a configuration."""

from typing import Any, Final

from ops.kubernetes.pods import KEYS, Fields, labels, pod
from ops.process_roles import Login

_OWNER: Final = Login("owner", "waxseal", "")
_CONFIGURATION: Final = "/run/secrets/configuration"
_NEVER: Final = "0 0 31 2 *"
_KEPT: Final = 3600  # seconds after its end; then the next version's task may have its name


def tasks() -> list[Fields]:
    """The Job that migrates, and a CronJob that never runs by itself: one makes a Job from it to apply a configuration."""
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": _named("migrate"),
            "spec": _job("migrate", ["migrate"], _migration()),
        },
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": _named("configure"),
            "spec": {
                "schedule": _NEVER,
                "suspend": True,
                "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": _job("configure", ["apply", f"{_CONFIGURATION}/waxseal.yaml"], _configuration())},
            },
        },
    ]


def _named(name: str) -> Fields:
    return {"name": name, "labels": labels(name)}


def _job(name: str, args: list[str], spec: Fields) -> Fields:
    spec["containers"][0]["args"] = args
    return {
        "backoffLimit": 20,
        "ttlSecondsAfterFinished": _KEPT,
        "template": {"metadata": {"labels": labels(name)}, "spec": spec},
    }


def _container() -> dict[str, Any]:
    return {"name": "waxseal", "args": []}


def _migration() -> Fields:
    return pod(_container(), _OWNER, (), {}, restartPolicy="OnFailure")


def _configuration() -> Fields:
    """It is given the configuration with the files that it names, and the variables that it names as env:NAME."""
    spec = pod(_container(), _OWNER, (KEYS,), {}, restartPolicy="Never")
    (container,) = spec["containers"]
    container["envFrom"].append({"secretRef": {"name": "waxseal-environment", "optional": True}})
    container["volumeMounts"].append({"name": "configuration", "mountPath": _CONFIGURATION, "readOnly": True})
    secret = {"secretName": "waxseal-configuration", "defaultMode": 0o440, "optional": True}
    spec["volumes"].append({"name": "configuration", "secret": secret})
    return spec
