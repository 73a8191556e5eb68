"""The Envoy of the chart: its configuration in the real Envoy, called with curl as JSON and as gRPC-Web."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from grpc_health.v1 import health_pb2

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from scripts.ports import free_port
from scripts.tools import path_of
from tests.fakes import candidate, rows
from tests.helm.chart import find, names, render
from tests.pictures import jpeg
from tests.running import Service, running

ROOT = Path(__file__).resolve().parents[2]
_CURL = ("curl", "--silent", "--show-error", "--max-time", "60", "--dump-header", "/dev/stderr")


def write(folder: Path, values: str = "object-store", *sets: str) -> tuple[Path, dict[str, Any]]:
    """What the chart mounts at /etc/envoy, in `folder`; the path of its configuration and what it says."""
    objects = render(values, *sets)
    [name] = [name for name in names(objects, "ConfigMap") if name.endswith("-envoy")]
    content = find(objects, "ConfigMap", name)
    (folder / "posegate.binpb").write_bytes(base64.b64decode(content["binaryData"]["posegate.binpb"]))
    config = yaml.safe_load(content["data"]["envoy.yaml"].replace("/etc/envoy/", f"{folder}/"))
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path, config


@pytest.mark.parametrize("values", ["object-store", "everything"])
def test_the_configuration_is_valid(values: str, tmp_path: Path) -> None:
    path, _ = write(tmp_path, values)
    if values == "everything":  # its certificates are read while it is validated
        make_certificates(tmp_path / "tls")
    done = subprocess.run(
        [path_of("envoy"), "--mode", "validate", "-c", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@dataclass(frozen=True)
class Proxy:
    """A running Envoy before a running gateway."""

    service: Service
    address: str
    probes: str

    async def curl(
        self, path: str, *arguments: str, probes: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        address = self.probes if probes else self.address
        process = await asyncio.create_subprocess_exec(
            *_CURL,
            *arguments,
            f"http://{address}{path}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        body, head = await process.communicate()
        lines = head.decode().split("\r\n")
        statuses = [line for line in lines if line.startswith("HTTP/")] or ["HTTP/- 0 no connection"]
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        return int(statuses[-1].split()[1]), headers, body

    async def post(self, method: str, body: object, folder: Path) -> tuple[int, dict[str, str], Any]:
        """Call as JSON; the body is too long for a command line."""
        file = folder / "request.json"
        file.write_text(json.dumps(body), encoding="utf-8")
        status, headers, answer = await self.curl(
            method, "--header", "content-type: application/json", "--data-binary", f"@{file}"
        )
        is_json = headers.get("content-type") == "application/json"
        return status, headers, json.loads(answer) if is_json else answer


@asynccontextmanager
async def proxy(folder: Path, *sets: str) -> AsyncIterator[Proxy]:
    async with running() as service:
        service.triton.answer = rows(candidate((100, 100, 300, 400), 0.9))
        await service.health.set("posegate.v1.PoseService", health_pb2.HealthCheckResponse.SERVING)
        path, config = write(folder, "object-store", *sets)
        ports = [free_port() for _ in range(3)]
        resources = config["static_resources"]
        for listener, port in zip(resources["listeners"], ports, strict=False):
            listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        admin = {"address": "127.0.0.1", "port_value": ports[2]}
        config["admin"]["address"]["socket_address"] = admin
        host, _, port_text = service.address.rpartition(":")
        for cluster, address in zip(
            resources["clusters"], ({"address": host, "port_value": int(port_text)}, admin), strict=True
        ):
            [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            endpoint["endpoint"]["address"]["socket_address"] = address
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        log = folder / "envoy.log"
        command = [
            path_of("envoy"),
            "-c",
            path,
            "--log-level",
            "warning",
            "--log-path",
            log,
            "--disable-hot-restart",
            "--concurrency",
            "1",
        ]
        process = await asyncio.create_subprocess_exec(*map(str, command), stderr=asyncio.subprocess.DEVNULL)
        try:
            here = Proxy(service, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
            ended = time.monotonic() + 120
            while (await here.curl("/ready", probes=True))[0] != 200:
                if process.returncode is not None or time.monotonic() > ended:
                    raise AssertionError(log.read_text("utf-8")[-2000:])
                await asyncio.sleep(0.05)
            yield here
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def test_json_gets_the_answer_that_grpc_gets(tmp_path: Path) -> None:
    picture = jpeg((640, 480))
    async with proxy(tmp_path) as envoy:
        request = {"image": {"content": base64.b64encode(picture).decode()}}
        status, headers, answer = await envoy.post("/posegate.v1.PoseService/DetectPoses", request, tmp_path)
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert headers["x-request-id"]
        told = await envoy.service.detect(picture)
        assert len(answer["persons"]) == len(told.persons) > 0
        assert answer["persons"][0]["score"] == pytest.approx(told.persons[0].score)
        assert len(answer["persons"][0]["keypoints"]) == 17
        assert answer["model"] == told.model


async def test_the_example_of_the_readme_sends_an_image_that_no_command_line_holds(tmp_path: Path) -> None:
    image = tmp_path / "large.jpg"
    image.write_bytes(jpeg((640, 480)) + b"\0" * 4_000_000)
    async with proxy(tmp_path) as envoy:
        process = await asyncio.create_subprocess_exec(
            ROOT / "protos" / "examples" / "curl" / "detect.sh",
            image,
            envoy.address,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        assert len(json.loads(printed)["persons"]) == 1


async def test_json_gets_the_errors_of_the_contract(tmp_path: Path) -> None:
    async with proxy(tmp_path) as envoy:
        status, headers, answer = await envoy.post(
            "/posegate.v1.PoseService/DetectPoses", {"image": {"content": "AAEC"}}, tmp_path
        )
        assert (status, answer and answer["code"]) == (400, 3), headers
        assert "IMAGE_UNDECODABLE" in json.dumps(answer["details"])
        status, _, _ = await envoy.curl("/posegate.v1.PoseService/Nonsense", "--data", "{}")
        assert status == 404
        status, _, _ = await envoy.curl("/server_info")
        assert status == 404, "the admin interface is nobody's"
        status, _, body = await envoy.curl("/stats/prometheus", probes=True)
        assert status == 200
        assert b"envoy_cluster_grpc" in body
        status, _, _ = await envoy.curl("/quitquitquit", "--request", "POST", probes=True)
        assert status == 404


async def test_a_request_above_the_limit_is_refused(tmp_path: Path) -> None:
    async with proxy(tmp_path, "envoy.maxRequestBytes=1048576") as envoy:
        body = {"image": {"content": "A" * 6_000_000}}
        (tmp_path / "large.json").write_text(json.dumps(body), encoding="utf-8")
        status, _, said = await envoy.curl(
            "/posegate.v1.PoseService/DetectPoses", "--header", "content-type: application/json",
            "--data-binary", f"@{tmp_path}/large.json",
        )  # fmt: skip
        assert (status, said) == (413, b"Payload Too Large")


async def test_the_largest_picture_passes_as_json(tmp_path: Path) -> None:
    async with proxy(tmp_path) as envoy:
        body = {"image": {"content": base64.b64encode(b"\xff" * 25_000_000).decode()}}
        status, _, answer = await envoy.post("/posegate.v1.PoseService/DetectPoses", body, tmp_path)
        assert (status, answer["code"]) == (400, 3), "the gateway says what it thinks of it, not Envoy"


async def test_grpc_web_is_understood_and_only_named_pages_may_use_it(tmp_path: Path) -> None:
    async with proxy(tmp_path, "envoy.allowedOrigins[0]=https://app.example.com") as envoy:
        message = pb.DetectPosesRequest(image=types_pb2.Image(content=jpeg((640, 480)))).SerializeToString()
        (tmp_path / "frame").write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        status, headers, body = await envoy.curl(
            "/posegate.v1.PoseService/DetectPoses", "--header", "content-type: application/grpc-web+proto",
            "--header", "x-grpc-web: 1", "--header", "origin: https://app.example.com",
            "--data-binary", f"@{tmp_path}/frame",
        )  # fmt: skip
        assert status == 200
        assert headers["access-control-allow-origin"] == "https://app.example.com"
        size = struct.unpack(">I", body[1:5])[0]
        assert pb.DetectPosesResponse.FromString(body[5 : 5 + size]).persons
        assert b"grpc-status:0" in body[5 + size :]
        preflight = (
            "--request", "OPTIONS", "--header", "access-control-request-method: POST", "--header"
        )  # fmt: skip
        path = "/posegate.v1.PoseService/DetectPoses"
        _, headers, _ = await envoy.curl(path, *preflight, "origin: https://app.example.com")
        assert headers["access-control-allow-origin"] == "https://app.example.com"
        _, headers, _ = await envoy.curl(path, *preflight, "origin: https://other.example.com")
        assert "access-control-allow-origin" not in headers


async def test_a_gateway_that_drains_gets_no_calls(tmp_path: Path) -> None:
    async with proxy(tmp_path) as envoy:
        await envoy.service.health.set("posegate.v1.PoseService", health_pb2.HealthCheckResponse.NOT_SERVING)
        async with asyncio.timeout(120):
            while (await envoy.post("/posegate.v1.PoseService/GetServerInfo", {}, tmp_path))[0] != 503:  # noqa: ASYNC110 - Envoy's
                await asyncio.sleep(0.1)


def make_certificates(folder: Path) -> None:
    """A certificate of its own authority."""
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "1",
         "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
