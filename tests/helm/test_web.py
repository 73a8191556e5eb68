"""The HTTP door of the chart: off by default, a client of the gateway only."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from service.web.settings import WebSettings
from tests.fakes import candidate, rows
from tests.helm.chart import CHART, find, names, refusal, render
from tests.running import running
from tests.web.running import running_door

PICTURE = CHART / "files" / "person.jpg"
WEB = "web.enabled=true"


def environment(objects: list[dict[str, Any]], name: str) -> dict[str, str]:
    pod = find(objects, "Deployment", name)["spec"]["template"]["spec"]
    return {one["name"]: one["value"] for one in pod["containers"][0]["env"]}


def test_it_is_off_by_default() -> None:
    assert not [one for one in render() if one["metadata"]["name"].endswith(("-web", "-web-test"))]


@pytest.mark.parametrize("values", ["minimal", "everything"])
def test_the_door_takes_its_settings(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(values, WEB, "web.settings.MAX_VIDEO_BYTES=4000000000")
    [name] = [name for name in names(objects, "Deployment") if name.endswith("-web")]
    for variable, value in environment(objects, name).items():
        monkeypatch.setenv(variable, value)
    settings = WebSettings()
    assert settings.listen_port == 8080
    assert settings.gateway.startswith("dns:///")
    assert settings.gateway.endswith("-headless.vision.svc.cluster.local:50051")
    assert settings.max_video_bytes == 4_000_000_000
    assert settings.drain_grace_s == 30
    assert (settings.gateway_ca is not None) == (values == "everything")


def test_it_may_reach_the_gateway_and_nothing_else() -> None:
    objects = render("minimal", WEB, "networkPolicy.enabled=true")
    [name] = [name for name in names(objects, "NetworkPolicy") if name.endswith("-web")]
    policy = find(objects, "NetworkPolicy", name)["spec"]
    peers = [to for rule in policy["egress"] for to in rule.get("to", [])]
    components = [
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for peer in peers
        if "app.kubernetes.io/component" in peer.get("podSelector", {}).get("matchLabels", {})
    ]
    assert components == ["gateway"]
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert [50051] in ports
    assert all(port in (53, 50051) for group in ports for port in group)
    gateway = find(objects, "NetworkPolicy", name.removesuffix("-web"))["spec"]["ingress"][0]["from"]
    assert any(
        peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component") == "web"
        for peer in gateway
    )


def test_an_ingress_needs_a_host() -> None:
    assert "web.ingress.host" in refusal("minimal", WEB, "web.ingress.enabled=true")
    objects = render("minimal", WEB, "web.ingress.enabled=true", "web.ingress.host=pose.example.com")
    [name] = names(objects, "Ingress")
    assert find(objects, "Ingress", name)["spec"]["rules"][0]["host"] == "pose.example.com"


def test_an_unknown_setting_is_refused() -> None:
    assert "MAX_CALL" in refusal("minimal", WEB, "web.settings.MAX_CALL=1")


async def test_helm_test_calls_health_and_finds_the_one_person() -> None:
    objects = render("minimal", WEB, "tests.enabled=true")
    [name] = [name for name in names(objects, "Pod") if name.endswith("-web-test")]
    container = find(objects, "Pod", name)["spec"]["containers"][0]
    program = container["command"][-1]
    person = candidate((300, 200, 500, 600), 0.9)
    async with running() as service, running_door(service.address) as door:
        await service.health.set("", health_pb2.HealthCheckResponse.SERVING)
        given = {**os.environ, "URL": door.url, "TIMEOUT_S": "60", "PICTURE": str(PICTURE)}

        async def run() -> int:
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", program], env=given, check=False, timeout=300
            )
            return done.returncode

        assert await run() == 1, "nobody is found"
        service.triton.answer = rows(person)
        assert await run() == 0


def test_bodies_in_flight_must_fit_into_the_memory() -> None:
    assert "web.resources.limits.memory 1Gi is less than 1610612736" in refusal(
        "minimal", WEB, "web.resources.limits.memory=1Gi"
    )
    assert "web.settings" in refusal("minimal", WEB, "web.settings.MAX_IN_FLIGHT_BYTES=1073741824")
