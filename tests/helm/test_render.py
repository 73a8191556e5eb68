"""What the chart renders, held against Kubernetes' own schemas for a matrix of values and releases."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from scripts import chart as drift
from tests.helm.chart import CHART, HELMS, KUBERNETES, VALUES, Object, helm, names, render, template

CRDS = {
    schema["properties"]["kind"]["const"]: schema
    for schema in (json.loads(path.read_text("utf-8")) for path in Path(__file__).parent.glob("crds/*.json"))
}
NEEDS_131 = {"image"}  # image volumes


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("values", VALUES)
def test_lint_finds_nothing(version: str, values: str) -> None:
    chosen = VALUES[values]
    files = ["-f", str(chosen)] if chosen else []
    done = helm("lint", "--strict", CHART, *files, version=version)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES)
def test_both_helms_render_the_same(values: str) -> None:
    def objects(version: str) -> dict[str, Any]:
        rendered = render(values, version=version)
        return {f"{item['kind']}/{item['metadata']['name']}": item for item in rendered}

    assert objects("helm3") == objects("helm4")


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_every_object_keeps_the_schemas_of_the_release(
    kubernetes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without this every object parses the megabytes of a release anew.
    contents = functools.cache(kubernetes_validate.utils.schema_contents)
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", contents)
    unknown: dict[str, Counter[str]] = {values: Counter() for values in VALUES}
    seen: set[str] = set()
    for values in VALUES:
        if values in NEEDS_131 and kubernetes < "1.31":
            assert "image volumes" in template(values, kubernetes=kubernetes).stderr
            continue
        for item in render(values, kubernetes=kubernetes):
            where = f"{values} {item['kind']}/{item['metadata']['name']}"
            if item["kind"] in CRDS:
                unknown[values][item["kind"]] += 1
                jsonschema.Draft7Validator(CRDS[item["kind"]]).validate(item)
                continue
            digest = json.dumps(item, sort_keys=True)
            if digest in seen:
                continue
            seen.add(digest)
            try:  # a kind that nobody knows is an error here, not a warning
                kubernetes_validate.validate(item, kubernetes, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{where} {'.'.join(map(str, error.path))}: {error.message}")
    assert {values: dict(kinds) for values, kinds in unknown.items() if kinds} == {
        "everything": {"ServiceMonitor": 2, "PrometheusRule": 1, "ScaledObject": 1},
        "production": {"ServiceMonitor": 2, "PrometheusRule": 1, "ScaledObject": 1},
    }


def test_the_schemas_are_strict() -> None:
    [broken] = [item for item in render() if item["kind"] == "ServiceAccount"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**broken, "secretz": []}, "1.33", strict=True)


def test_what_is_optional_is_rendered_somewhere() -> None:
    kinds = {item["kind"] for values in VALUES for item in render(values)}
    assert kinds >= {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Job", "NetworkPolicy", "PersistentVolumeClaim",
        "Pod", "PodDisruptionBudget", "PrometheusRule", "ScaledObject", "Service", "ServiceAccount",
        "ServiceMonitor",
    }  # fmt: skip


def test_minimal_values_leave_only_what_is_needed() -> None:
    kinds = Counter(item["kind"] for item in render("minimal"))
    assert kinds == {"ConfigMap": 1, "Deployment": 2, "PersistentVolumeClaim": 1, "Service": 5}


@pytest.mark.parametrize("kubernetes", ["1.29", "1.30", "1.37"])
def test_the_pause_before_stopping_is_written_for_the_release(kubernetes: str) -> None:
    hooks = [
        container["lifecycle"]["preStop"]
        for item in render("production", kubernetes=kubernetes)
        if item["kind"] == "Deployment"
        for container in item["spec"]["template"]["spec"]["containers"]
    ]
    expected = "exec" if kubernetes == "1.29" else "sleep"
    assert [list(hook) for hook in hooks] == [[expected]] * 2


def test_a_release_before_the_oldest_is_refused() -> None:
    assert "incompatible with Kubernetes" in template(kubernetes="1.28").stderr


def test_long_names_still_fit() -> None:
    long = "a" * 53
    rendered = helm(
        "template", long, CHART, "-f", CHART / "values-production.yaml", "--set", "envoy.enabled=true",
        "--set", "envoy.upstreamTlsSecretName=x", "--set", "web.enabled=true",
    )  # fmt: skip
    objects: list[Object] = [item for item in yaml.safe_load_all(rendered.stdout) if item]
    assert objects
    assert max(len(item["metadata"]["name"]) for item in objects) <= 63


def test_the_package_holds_what_is_needed_and_no_more(tmp_path: Path) -> None:
    done = helm("package", CHART, "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    [package] = tmp_path.glob("*.tgz")
    assert package.stat().st_size < 200_000
    again = helm("template", "rel", package)
    assert again.returncode == 0
    assert names([item for item in yaml.safe_load_all(again.stdout) if item], "Deployment")


def test_the_chart_holds_the_contract_and_the_settings_of_the_code() -> None:
    assert drift.DESCRIPTOR.read_bytes() == drift.descriptor(), "run python -m scripts.chart"
    assert drift.SCHEMA.read_text("utf-8") == drift.schema(), "run python -m scripts.chart"


def test_every_value_is_in_the_schema_and_every_property_has_a_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#", (
        "helm 3 ignores newer drafts in silence"
    )
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

    def walk(where: str, node: Any, part: dict[str, Any]) -> None:
        part = schema["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        properties = part.get("properties")
        if not isinstance(node, dict) or properties is None or where in ("gateway.settings", "web.settings"):
            return
        assert part["additionalProperties"] is False, where
        optional = {"global", "requests", "limits"}
        assert set(node) <= set(properties), where
        assert set(properties) - set(node) <= optional, where
        for key, value in node.items():
            walk(f"{where}.{key}".strip("."), value, properties[key])

    walk("", values, schema)


@pytest.mark.parametrize("below", ["defaults", "production"])
def test_the_permissive_values_name_no_model_under_the_agpl(below: str) -> None:
    permissive = VALUES["permissive"]
    assert permissive is not None
    done = template(below, more=permissive.read_text("utf-8"))
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]
    settings = next(item["data"] for item in objects if "POSEGATE_DEFAULT_MODEL" in (item.get("data") or {}))
    assert settings["POSEGATE_DEFAULT_MODEL"] == "rtmo_l"
    (job,) = [item for item in objects if item["kind"] == "Job"]
    assert "rtmo_l" in json.dumps(job)
    assert "yolo" not in json.dumps(
        [item["spec"] for item in objects if item["kind"] in ("Job", "Deployment")]
    )
