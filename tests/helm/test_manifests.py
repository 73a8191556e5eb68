"""What an operator would look for in the manifests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts.runtime import STATE
from service.accounts.plans import load_plans
from service.server.health import LIVENESS, SERVICES
from tests.helm.chart import ROOT, VALUES, Object, find, names, pods, render, selects

SETS = list(VALUES)
GPU = ("triton.gpu.product=NVIDIA-L4", "engines.build=job", "engines.models[0].name=m")


@pytest.fixture(scope="module", params=SETS)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return render(request.param)


def test_no_container_may_do_more_than_it_needs(objects: list[Object]) -> None:
    for pod in pods(objects):
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] >= (1000 if "triton" in pod.owner or "Job/" in pod.owner else 10000)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, container["name"]


def test_no_pod_gets_a_token_it_does_not_need(objects: list[Object]) -> None:
    tokens = {pod.owner for pod in pods(objects) if pod.spec["automountServiceAccountToken"]}
    reads_a_bucket = any(
        "s3://" in argument for pod in pods(objects) for c in pod.containers for argument in c.get("args", [])
    )
    assert tokens == ({"Deployment/rel-posegate-triton"} if reads_a_bucket else set())


def test_every_container_says_what_it_needs_and_at_most_takes(objects: list[Object]) -> None:
    for pod in pods(objects):
        for container in pod.containers:
            assert container["resources"]["requests"], container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]
            assert re.fullmatch(r"\S+(:[\w.-]+|@sha256:[0-9a-f]{64})", container["image"])
            assert not container["image"].endswith(":latest")


def test_what_is_mounted_is_there_and_what_is_there_is_mounted(objects: list[Object]) -> None:
    for pod in pods(objects):
        there = {volume["name"] for volume in pod.spec.get("volumes", [])}
        mounted = {
            mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])
        }
        assert there == mounted, pod.owner
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], "a volume without a limit fills the node"
            if "configMap" in volume and volume["name"] != "skeletons":  # which is the operator's own
                assert volume["configMap"]["name"] in names(objects, "ConfigMap")


def test_every_service_has_pods_with_its_ports(objects: list[Object]) -> None:
    for service in (item for item in objects if item["kind"] == "Service"):
        [pod] = [pod for pod in pods(objects) if selects(service["spec"]["selector"], pod.labels)]
        ports = {port["name"] for container in pod.containers for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        assert not ({"metrics", "grpc"} <= {port["name"] for port in service["spec"]["ports"]})


def test_policies_budgets_and_monitors_match_what_is_there(objects: list[Object]) -> None:
    def matched(selector: Object) -> bool:
        return any(selects(selector["matchLabels"], pod.labels) for pod in pods(objects))

    services = [item for item in objects if item["kind"] == "Service"]
    for item in objects:
        if item["kind"] == "NetworkPolicy":
            assert matched(item["spec"]["podSelector"]), item["metadata"]["name"]
            for rule in [*(item["spec"].get("ingress") or []), *(item["spec"].get("egress") or [])]:
                assert rule.get("from", [1]) != [], "an empty list of peers is everybody"
        elif item["kind"] == "PodDisruptionBudget":
            assert matched(item["spec"]["selector"])
            assert item["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        elif item["kind"] == "ServiceMonitor":
            [service] = [
                service for service in services
                if selects(item["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
            ]  # fmt: skip
            assert item["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
        elif item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            target = find(objects, "Deployment", item["spec"]["scaleTargetRef"]["name"])
            assert "replicas" not in target["spec"], "a rollout would undo what the autoscaler did"


def test_pods_are_found_by_one_workload_only(objects: list[Object]) -> None:
    workloads = [item for item in objects if item["kind"] == "Deployment"]
    for workload in workloads:
        selected = [
            pod.owner
            for pod in pods(objects)
            if selects(workload["spec"]["selector"]["matchLabels"], pod.labels)
        ]
        assert selected == [f"Deployment/{workload['metadata']['name']}"]


def test_stopping_has_the_time_that_it_takes(objects: list[Object]) -> None:
    for item in objects:
        if item["kind"] == "Deployment":
            pod = item["spec"]["template"]["spec"]
            pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pause > 0
            assert pod["terminationGracePeriodSeconds"] > pause


def test_the_probes_of_the_gateway_ask_for_services_that_there_are() -> None:
    [container] = find(render(), "Deployment", "rel-posegate")["spec"]["template"]["spec"]["containers"]
    ports = {port["containerPort"]: port["name"] for port in container["ports"]}
    probes = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "liveness", "readiness")}
    assert {ports[probe["port"]] for probe in probes.values()} == {"health"}
    assert probes["liveness"]["service"] == probes["startup"]["service"] == LIVENESS
    assert probes["readiness"]["service"] in SERVICES
    assert LIVENESS not in SERVICES, "what liveness asks for must not depend on Triton"


def test_the_gateway_is_told_what_the_values_say() -> None:
    objects = render("everything")
    environment = find(objects, "ConfigMap", "rel-pose")["data"]
    assert environment == {
        "POSEGATE_LISTEN": "[::]:50051",
        "POSEGATE_HEALTH_LISTEN": "[::]:50052",
        "POSEGATE_METRICS_LISTEN": "[::]:9090",
        "POSEGATE_TRITON_URL": "dns:///rel-pose-triton.vision.svc.cluster.local:8001",
        "POSEGATE_TRITON_SHARED_MEMORY": "off",
        "POSEGATE_DEFAULT_MODEL": "yolov8m_pose",
        "POSEGATE_VIDEO_SPOOL": "/var/spool/posegate",
        "POSEGATE_MAX_SPOOL_BYTES": str(int(0.95 * 16 * 2**30)),
        "POSEGATE_MAX_MEMORY": str(int(0.9 * 6 * 2**30)),
        "POSEGATE_SKELETONS": "/etc/posegate/skeletons",
        "POSEGATE_AUTH": "keys",
        "POSEGATE_AUTH_PLAINTEXT": "refuse",
        "POSEGATE_PLANS": "/etc/posegate/plans/plans.toml",
        "POSEGATE_UNREAD_S": "90",
        "POSEGATE_DRAIN_GRACE_S": "25",
        "POSEGATE_TLS_CERT": "/etc/posegate/tls/tls.crt",
        "POSEGATE_TLS_KEY": "/etc/posegate/tls/tls.key",
        "POSEGATE_TLS_CLIENT_CA": "/etc/posegate/tls/ca.crt",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel.monitoring:4317",
        "OTEL_SERVICE_NAME": "rel-pose",
        "POSEGATE_MAX_IN_FLIGHT_BYTES": "1073741824",
        "POSEGATE_LOG_LEVEL": "debug",
        "POSEGATE_URI_HOSTS": "images.example.com",
        "POSEGATE_DRAIN_DELAY_S": "1.5",
        "POSEGATE_REFLECTION": "false",
        "POSEGATE_ANGLES__MIN_SCORE": "0.4",
    }
    headless = find(objects, "Service", "rel-pose-triton")
    assert headless["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ((), None),
        (("envoy.enabled=true", "envoy.timeoutSeconds=50"), "80"),
        (("envoy.enabled=true", "gateway.settings.UNREAD_S=45"), "45"),
    ],
    ids=["no proxy", "behind Envoy", "as the operator says"],
)
def test_a_connection_that_callers_share_outlives_a_call_whose_answer_is_not_taken(
    sets: tuple[str, ...], expected: str | None
) -> None:
    assert environment(render("minimal", *sets), "rel-posegate").get("POSEGATE_UNREAD_S") == expected


def test_the_gateway_writes_to_volumes_only_and_never_fills_one() -> None:
    objects = render("cpu")
    pod = find(objects, "Deployment", "rel-posegate")["spec"]["template"]["spec"]
    mounted = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    sizes = {v["name"]: v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if "emptyDir" in v}
    environment = find(objects, "ConfigMap", "rel-posegate")["data"]
    assert sizes[mounted[environment["POSEGATE_VIDEO_SPOOL"]]] == "8Gi"
    assert int(environment["POSEGATE_MAX_SPOOL_BYTES"]) < 8 * 2**30
    assert "sqlite:////var/lib/posegate/" in environment["POSEGATE_DATABASE_URL"]
    assert {"/tmp", "/var/lib/posegate"} <= set(mounted)  # noqa: S108 - in the container


def test_only_the_gateway_reaches_triton() -> None:
    objects = render("production")
    policy = find(objects, "NetworkPolicy", "rel-posegate-triton")["spec"]
    by_port = {port["port"]: rule["from"] for rule in policy["ingress"] for port in rule["ports"]}
    assert set(by_port) == {8001, 8002}
    [peer] = by_port[8001]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert policy["egress"] == []
    deny = find(objects, "NetworkPolicy", "rel-posegate-default-deny")["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert all(selects(deny["podSelector"]["matchLabels"], pod.labels) for pod in pods(objects))


def test_engines_are_built_on_the_nodes_that_run_them_by_a_job_that_is_never_changed() -> None:
    def job(*sets: str) -> Object:
        sha = "engines.models[0].sha256=" + "a" * 64
        [found] = [item for item in render("defaults", *GPU, sha, *sets) if item["kind"] == "Job"]
        return found

    first = job()
    pod = first["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["containers"][0]["args"] == ["models", "build", "m", "--repository=/models"]
    keys = {first["metadata"]["name"]}
    for change in (
        f"engines.models[0].sha256={'b' * 64}",
        "engines.tensorrt=10.14.1.48",
        "triton.gpu.product=NVIDIA-A10",
        "engines.arguments[0]=--fleet",
    ):
        keys.add(job(change)["metadata"]["name"])
    assert len(keys) == 5
    assert job("gateway.replicas=5") == first
    assert job("engines.resources.limits.memory=32Gi")["metadata"]["name"] not in keys, (
        "a Job cannot be changed"
    )
    assert all(re.fullmatch(r"rel-posegate-engines-[0-9a-f]{12}", key) for key in keys)


def test_new_engines_mean_new_triton_pods_that_wait_for_them() -> None:
    objects = render("production")
    template = find(objects, "Deployment", "rel-posegate-triton")["spec"]["template"]
    other = find(render("production", "engines.tensorrt=10.14.1.48"), "Deployment", "rel-posegate-triton")
    same = find(render("production", "engines.image.tag=9.9.9"), "Deployment", "rel-posegate-triton")
    assert other["spec"]["template"] != template
    assert same["spec"]["template"] == template, "a newer builder does not restart Triton"
    code, verify = template["spec"]["initContainers"]
    assert code["image"].startswith("registry.example.com/posegate:")
    assert verify["image"].startswith("nvcr.io/nvidia/tritonserver:"), (
        "the TensorRT that Triton loads is asked"
    )
    assert verify["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "0" * 64 in verify["args"][2]


def test_the_wait_for_engines_ends_when_they_are_there_and_fails_when_they_are_not(tmp_path: Path) -> None:
    """The script of the init container, with a stand-in for the check."""
    objects = render("production", "engines.waitSeconds=0")
    template = find(objects, "Deployment", "rel-posegate-triton")["spec"]["template"]
    script = template["spec"]["initContainers"][1]["args"][2].replace("/models/", f"{tmp_path}/models/")
    (tmp_path / "bin").mkdir()
    check = tmp_path / "bin" / "python3"
    check.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    check.chmod(0o755)
    manifest = tmp_path / "models" / "gpu" / "yolov8m_pose" / "1" / "manifest.json"
    manifest.parent.mkdir(parents=True)

    def code(onnx_sha256: str) -> int:
        manifest.write_text(json.dumps({"onnx_sha256": onnx_sha256}), encoding="utf-8")
        environment = {"PATH": f"{check.parent}:{os.environ['PATH']}"}
        return subprocess.run(["sh", "-euc", script], env=environment, timeout=60, check=False).returncode

    assert code("1" * 64) == 1, "an engine of the model before"
    assert code("0" * 64) == 0


def test_the_builder_and_the_check_know_the_arguments_that_the_chart_gives() -> None:
    pytest.importorskip("service.models.verify", reason="the builder of engines is not here yet")
    objects = render("everything")
    [job] = [item for item in objects if item["kind"] == "Job"]
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[:4] == ["models", "build", "yolov8m_pose", "rtmw3d_x"]
    command = [sys.executable, "-m", "service", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # 2 is for options that it does not have
    assert done.stderr.startswith("error: "), "there is no TensorRT here"


def test_without_a_gpu_there_is_one_kind_of_pod() -> None:
    objects = render("cpu")
    assert names(objects, "Deployment") == ["rel-posegate"]
    [container] = find(objects, "Deployment", "rel-posegate")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["up"]
    assert "POSEGATE_TRITON_URL" not in find(objects, "ConfigMap", "rel-posegate")["data"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted >= {"/dev/shm", "/opt/posegate/home/cache"}  # noqa: S108 - in the container
    assert "nvidia" not in yaml.safe_dump(objects)


def test_the_bundled_triton_knows_every_option_that_the_chart_gives() -> None:
    server = STATE / "triton" / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    libraries = STATE / "triton" / "nvidia_pytriton.libs"
    said = subprocess.run(
        [str(server), "--help"],
        capture_output=True,
        text=True,
        env={"LD_LIBRARY_PATH": str(libraries)},
        check=False,
    )
    known = set(re.findall(r"^  (--[a-z0-9-]+)", said.stdout + said.stderr, re.MULTILINE))
    assert known
    for values in ("defaults", "everything", "object-store"):
        objects = render(values)
        [name] = [name for name in names(objects, "Deployment") if name.endswith("-triton")]
        arguments = find(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]["args"]
        assert arguments[0] == "tritonserver"
        for argument in arguments[1:]:
            assert argument.partition("=")[0] in known, argument


def test_secrets_are_never_in_the_manifests() -> None:
    assert not [item for values in SETS for item in render(values) if item["kind"] == "Secret"]


def environment(objects: list[Object], name: str) -> dict[str, str]:
    found: dict[str, str] = find(objects, "ConfigMap", name)["data"]
    return found


def test_keys_are_on_in_production_and_it_is_said_what_encrypts_them() -> None:
    production = environment(render("production"), "rel-posegate")
    assert (production["POSEGATE_AUTH"], production["POSEGATE_AUTH_PLAINTEXT"]) == ("keys", "refuse")
    assert "POSEGATE_AUTH" not in environment(render("defaults"), "rel-posegate")
    mesh = ("gateway.auth.mode=keys", "gateway.auth.encryption=mesh", "gateway.database.secretName=a")
    assert environment(render("defaults", *mesh), "rel-posegate")["POSEGATE_AUTH_PLAINTEXT"] == "allow"


def test_plans_of_ones_own_are_where_the_gateway_looks_and_can_be_used(tmp_path: Path) -> None:
    objects = render("everything")
    (plans,) = [item for item in objects if item["metadata"]["name"].endswith("-plans")]
    file = tmp_path / "plans.toml"
    file.write_text(plans["data"]["plans.toml"], encoding="utf-8")
    assert list(load_plans(file)) == ["team"]
    (gateway,) = [pod for pod in pods(objects) if pod.owner == "Deployment/rel-pose"]
    volume = next(one for one in gateway.spec["volumes"] if one["name"] == "plans")
    assert volume["configMap"]["name"] == plans["metadata"]["name"]
    config = environment(objects, "rel-pose")
    mount = next(one for one in gateway.containers[0]["volumeMounts"] if one["name"] == "plans")
    assert config["POSEGATE_PLANS"] == f"{mount['mountPath']}/plans.toml"
