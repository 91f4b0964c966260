"""One Deployment for each process of the system."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ops.kubernetes.pods import BROKER, BUCKET, KEYS, OPENID, PROXY, Fields, labels, pod
from ops.process_roles import (
    CONSOLE,
    DELIVER,
    ERASER,
    INGEST,
    INGRESS,
    LOGIN_OF,
    MAIL_IDLE,
    MAIL_PULL,
    RELAY,
    SEALER,
    SEQUENCER,
    VERIFIER,
)
from ops.settings import PREFIX, Settings

INGRESS_PORT: Final = 8420
CONSOLE_PORT: Final = 8430
METRICS_PORT: Final = 9000

#: Longer than the lease of a claimed delivery: what a process has begun when it is told to stop is either settled or due again.
STOPS_WITHIN: Final = int(Settings.model_fields["lease"].default) + 30
#: Seconds in which load balancers hear that a pod is going, before it stops to listen.
_GOES_AFTER: Final = 10


@dataclass(frozen=True)
class Shape:
    """What tells one role's Deployment from another's. No `replicas`: something else scales it."""

    needs: tuple[str, ...]
    replicas: int | None = 1
    alone: bool = False  # the old one ends before the new one starts
    entered: bool = False  # through a Service, by clients


SHAPES: Final[Mapping[str, Shape]] = {
    INGRESS: Shape((BROKER, KEYS, BUCKET), replicas=2, entered=True),
    INGEST: Shape((BROKER, KEYS, BUCKET), replicas=None),
    RELAY: Shape((BROKER, BUCKET), replicas=2),
    DELIVER: Shape((BROKER, KEYS, BUCKET, PROXY), replicas=None),
    MAIL_PULL: Shape((BROKER, KEYS, BUCKET, PROXY), replicas=None),
    MAIL_IDLE: Shape((KEYS, PROXY), alone=True),
    SEQUENCER: Shape((), replicas=2),
    SEALER: Shape((KEYS, BUCKET), replicas=2),
    ERASER: Shape((KEYS, BUCKET), alone=True),
    VERIFIER: Shape((KEYS, BUCKET), alone=True),
    CONSOLE: Shape((BROKER, KEYS, BUCKET, OPENID), replicas=2, entered=True),
}


def deployments() -> list[Fields]:
    """Every Deployment, in the order in which the processes are started elsewhere."""
    return [_deployment(role, SHAPES[role]) for role in LOGIN_OF]


def _deployment(role: str, shape: Shape) -> Fields:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    template = {"metadata": {"labels": labels(role)}, "spec": _pod(role, shape)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": role, "labels": labels(role)},
        "spec": {
            **({} if shape.replicas is None else {"replicas": shape.replicas}),
            "revisionHistoryLimit": 3,
            "strategy": {"type": "Recreate"} if shape.alone else rolling,
            "selector": {"matchLabels": labels(role)},
            "template": template,
        },
    }


def _pod(role: str, shape: Shape) -> Fields:
    container = {
        "name": "waxseal",
        "args": [role],
        "ports": _ports(role),
        "startupProbe": _probe("/livez", every=2, failures=60),
        "livenessProbe": _probe("/livez", every=10, failures=6),
        "readinessProbe": _probe("/readyz", every=5, failures=2),
        **({"lifecycle": {"preStop": {"sleep": {"seconds": _GOES_AFTER}}}} if shape.entered else {}),
    }
    return pod(
        container,
        LOGIN_OF[role],
        shape.needs,
        _own_settings(role, shape),
        terminationGracePeriodSeconds=STOPS_WITHIN,
        topologySpreadConstraints=[_spread("kubernetes.io/hostname", role), _spread("topology.kubernetes.io/zone", role)],
    )


def _ports(role: str) -> list[Fields]:
    """The ingress has its probes and metrics on the port that clients use."""
    probes = {"name": "probes", "containerPort": INGRESS_PORT if role == INGRESS else METRICS_PORT}
    return [probes, {"name": "pages", "containerPort": CONSOLE_PORT}] if role == CONSOLE else [probes]


def _probe(path: str, *, every: int, failures: int) -> Fields:
    asked: dict[str, Any] = {"path": path, "port": "probes"}
    return {"httpGet": asked, "periodSeconds": every, "timeoutSeconds": 9, "failureThreshold": failures}


def _own_settings(role: str, shape: Shape) -> dict[str, str]:
    if role == INGRESS:
        return {
            f"{PREFIX}INGRESS_HOST": "0.0.0.0",  # noqa: S104 - in a pod, behind a network policy
            f"{PREFIX}INGRESS_PORT": str(INGRESS_PORT),
            f"{PREFIX}INGRESS_PROCESSES": str(shape.replicas),
        }
    own = {f"{PREFIX}METRICS_HOST": "0.0.0.0", f"{PREFIX}METRICS_PORT": str(METRICS_PORT)}  # noqa: S104 - likewise
    if role == CONSOLE:
        own |= {f"{PREFIX}CONSOLE_HOST": "0.0.0.0", f"{PREFIX}CONSOLE_PORT": str(CONSOLE_PORT)}  # noqa: S104 - likewise
    return own


def _spread(key: str, role: str) -> Fields:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels(role)},
        "matchLabelKeys": ["pod-template-hash"],
    }
