"""Renders the chart with the real helm and reads what comes out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.tools import TOOLS, path_of

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "posegate"
HELMS = ("helm3", "helm4")
KUBERNETES = tuple(f"1.{minor}" for minor in range(29, 38))
VALUES: Mapping[str, Path | None] = {
    "defaults": None,
    "cpu": CHART / "values-cpu.yaml",
    "production": CHART / "values-production.yaml",
    "permissive": CHART / "values-permissive.yaml",
    **{path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))},
}
OPTIONAL_APIS = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1")

Object = dict[str, Any]


def helm(*arguments: str | Path, version: str = "helm4", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run helm with nothing of the machine's own."""
    folders = {f"HELM_{name}_HOME": str(TOOLS / "helm") for name in ("CACHE", "CONFIG", "DATA")}
    return subprocess.run(
        [str(path_of(version)), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PATH": os.environ["PATH"], "HOME": str(TOOLS), **folders},
    )


def template(
    values: str = "defaults",
    *sets: str,
    kubernetes: str = "1.33",
    version: str = "helm4",
    more: str = "",
) -> subprocess.CompletedProcess[str]:
    """`helm template` with one of VALUES, `--set` of each of `sets`, and `more` values as YAML."""
    chosen = VALUES[values]
    files = ["-f", str(chosen)] if chosen else []
    settings = [argument for text in sets for argument in ("--set", text)]
    also = ["-f", "-"] if more else []
    given = ["-n", "vision", *files, *also, *settings, "--kube-version", f"{kubernetes}.0"]
    return helm("template", "rel", CHART, *given, version=version, stdin=more)


def render(values: str = "defaults", *sets: str, **options: str) -> list[Object]:
    """The objects; AssertionError with helm's words where it refuses."""
    done = template(values, *sets, **options)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(values: str = "defaults", *sets: str, **options: str) -> str:
    """What helm says against these values."""
    done = template(values, *sets, **options)
    assert done.returncode != 0, "these values were taken"
    return done.stderr


def find(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The one object of this kind and name."""
    [found] = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def names(objects: Sequence[Object], kind: str) -> list[str]:
    return sorted(item["metadata"]["name"] for item in objects if item["kind"] == kind)


@dataclass(frozen=True)
class Pod:
    """What one workload runs.

    Attributes:
        owner: kind/name.
        labels: of the pod.
        spec: of the pod.
    """

    owner: str
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """Those that start first, then the others."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(objects: Sequence[Object]) -> Iterator[Pod]:
    for item in objects:
        owner = f"{item['kind']}/{item['metadata']['name']}"
        if item["kind"] == "Pod":
            yield Pod(owner, item["metadata"]["labels"], item["spec"])
        elif item["kind"] in ("Deployment", "Job"):
            inner = item["spec"]["template"]
            yield Pod(owner, inner["metadata"]["labels"], inner["spec"])


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())
