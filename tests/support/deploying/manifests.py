"""The manifests in ops/kubernetes, parsed."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from support.paths import ROOT

Manifest = dict[str, Any]

FOLDER = ROOT / "ops" / "kubernetes"


@cache
def in_file(path: Path) -> list[Manifest]:
    """The manifests in a file."""
    return [each for each in YAML(typ="safe").load_all(path) if each]


@cache
def manifests() -> list[Manifest]:
    """All manifests, without the files that tell Kustomize which there are."""
    return [each for path in sorted(FOLDER.rglob("*.yaml")) if path.stem != "kustomization" for each in in_file(path)]


def kustomizations() -> dict[Path, Manifest]:
    """Each folder that Kustomize builds, with what it is told there."""
    files = [*FOLDER.rglob("kustomization.yaml"), ROOT / "ops" / "grafana" / "kustomization.yaml"]
    return {path.parent: in_file(path)[0] for path in files}


def of_kind(kind: str) -> dict[str, Manifest]:
    """The manifests of a kind, by name."""
    return {each["metadata"]["name"]: each for each in manifests() if each["kind"] == kind}


def pods() -> dict[str, Manifest]:
    """The pods that we describe ourselves, by what they are made for."""
    templates = {name: one["spec"]["template"] for kind in ("Deployment", "Job") for name, one in of_kind(kind).items()}
    planned = {name: one["spec"]["jobTemplate"]["spec"]["template"] for name, one in of_kind("CronJob").items()}
    return templates | planned


def ours() -> dict[str, Manifest]:
    """Those that run our program."""
    return {name: pod for name, pod in pods().items() if pod["metadata"]["labels"]["app.kubernetes.io/name"] == "waxseal"}


def container(pod: Manifest) -> Manifest:
    """The only one of a pod."""
    (found,) = pod["spec"]["containers"]
    named: Manifest = found
    return named


def environment(pod: Manifest) -> dict[str, Any]:
    """The variables of a pod's container: each with its value, or None if it comes from a secret."""
    return {each["name"]: each.get("value") for each in container(pod)["env"]}


def secrets() -> Iterator[tuple[str, str | None, bool]]:
    """Each use of a secret in a pod of ours: its name, the key or None for all, and whether it must exist."""
    for pod in pods().values():
        for each in container(pod)["env"]:
            if asked := each.get("valueFrom", {}).get("secretKeyRef"):
                yield asked["name"], asked["key"], not asked.get("optional", False)
        for source in container(pod).get("envFrom", []):
            if asked := source.get("secretRef"):
                yield asked["name"], None, not asked.get("optional", False)
        for volume in pod["spec"]["volumes"]:
            if asked := volume.get("secret"):
                for item in asked.get("items", [{"key": None}]):
                    yield asked["secretName"], item["key"], not asked.get("optional", False)
