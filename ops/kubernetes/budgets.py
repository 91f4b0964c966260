"""How many pods of a role may be taken away at once, when nodes are drained."""

from ops.kubernetes.deployments import SHAPES
from ops.kubernetes.pods import Fields, labels


def budgets() -> list[Fields]:
    """A PodDisruptionBudget for each role of which several run; one for a single pod would only stop the drain of its node."""
    return [_budget(role) for role, shape in SHAPES.items() if shape.replicas != 1]


def _budget(role: str) -> Fields:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": role, "labels": labels(role)},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels(role)},
        },
    }
