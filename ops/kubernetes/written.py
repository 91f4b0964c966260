"""The files that are written by the program, as text."""

from collections.abc import Sequence
from io import StringIO
from typing import Any, Final

from ruamel.yaml import YAML

from ops.kubernetes.budgets import budgets
from ops.kubernetes.deployments import deployments
from ops.kubernetes.migration import tasks
from ops.prometheus import RULES

HEAD: Final = "# Written by `python -m ops.kubernetes`: change that, not this file.\n"

Manifest = dict[str, Any]


def written() -> dict[str, str]:
    """The text of each file by its path in this package."""
    return {
        "base/processes.yaml": _text(deployments()),
        "base/tasks.yaml": _text(tasks()),
        "base/disruption.yaml": _text(budgets()),
        "monitoring/rules.yaml": _text([_rules()]),
    }


def _rules() -> Manifest:
    """The rules that Prometheus is given everywhere else, for its operator."""
    groups = [group for path in RULES for group in YAML(typ="safe").load(path)["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "waxseal", "labels": {"app.kubernetes.io/name": "waxseal"}},
        "spec": {"groups": groups},
    }


def _text(manifests: Sequence[Manifest]) -> str:
    yaml, out = YAML(), StringIO()
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump_all(manifests, out)
    return HEAD + out.getvalue()
