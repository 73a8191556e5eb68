"""Rules and dashboard, checked and tried with the real promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helm.chart import CHART, find, render
from tests.helm.metrics import series

_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_NAME = re.compile(r"\b(?:posegate|nv|container|kube)_[a-z0-9_]+\b")


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = find(render("production"), "PrometheusRule", "rel-posegate")["spec"]
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def dashboard() -> list[str]:
    """The expressions of its panels."""
    panels = json.loads((CHART / "files" / "dashboard.json").read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_rules_are_valid(promtool: Path, rules: Path) -> None:
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 rules found" in done.stdout


def test_alerts_come_when_they_should_and_say_what_to_do(promtool: Path, rules: Path) -> None:
    shutil.copy(Path(__file__).with_name("rules_test.yaml"), rules.parent)
    done = subprocess.run(
        [promtool, "test", "rules", "rules_test.yaml"],
        cwd=rules.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_asks_valid_questions(promtool: Path, tmp_path: Path) -> None:
    filled = [text.replace("$__rate_interval", "5m").replace("$", "") for text in dashboard()]
    assert len(filled) > 15
    group = {
        "name": "dashboard",
        "rules": [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(filled)],
    }
    path = tmp_path / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_metrics_that_exist_are_asked_for(rules: Path) -> None:
    groups = yaml.safe_load(rules.read_text("utf-8"))["groups"]
    query = find(render("production"), "ScaledObject", "rel-posegate-triton")["spec"]["triggers"][0][
        "metadata"
    ]["query"]
    expressions = [*dashboard(), query, *(rule["expr"] for group in groups for rule in group["rules"])]
    asked = {name for text in expressions for name in _NAME.findall(_STRING.sub('""', text))}
    assert asked <= series(), asked - series()


def test_what_is_recorded_is_used() -> None:
    rendered = render("production")
    groups = find(rendered, "PrometheusRule", "rel-posegate")["spec"]["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    used = {
        name
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
        for name in re.findall(
            r"posegate:[a-z_0-9]+:[a-z_0-9]+", rule["expr"] + rule["annotations"]["description"]
        )
    }
    assert recorded - used == {"posegate:triton_batch:avg_5m"}


def test_the_dashboard_is_in_its_config_map() -> None:
    data = find(render("production"), "ConfigMap", "rel-posegate-dashboard")["data"]
    assert json.loads(data["posegate.json"])["uid"] == "posegate"
