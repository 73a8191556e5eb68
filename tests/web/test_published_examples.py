"""The door called with the very shapes of the products' published examples: requests, Node's fetch, curl."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fakes import rows
from tests.pictures import jpeg
from tests.running import Service
from tests.servicers.test_measure_angles import FIGURE
from tests.web.running import FakeGateway, RunningDoor

PICTURE = jpeg((640, 640))
NODE = shutil.which("node")
CURL = shutil.which("curl")
needs_node = pytest.mark.skipif(NODE is None, reason="no node here")
needs_curl = pytest.mark.skipif(CURL is None, reason="no curl here")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(PICTURE)
    return path


async def ran(*command: str | Path, **environment: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


async def posted(door: RunningDoor, path: str, **options: Any) -> requests.Response:
    return await asyncio.to_thread(requests.post, door.url + path, timeout=30, **options)


async def test_pose_with_requests(service: Service, door: RunningDoor, picture: Path) -> None:
    service.triton.answer = rows(FIGURE)
    key = {"Authorization": "Bearer KEY"}
    with picture.open("rb") as file:
        answer = await posted(
            door, "/v1/pose", headers=key, files={"image": file}, data={"return_overlay": "true"}
        )
    assert answer.status_code == 200
    assert len(answer.json()["persons"][0]["keypoints"]) == 17
    for files in ({"image": PICTURE}, {"image": (None, PICTURE)}, {"image": ("", PICTURE)}):
        bare = await posted(door, "/v1/pose", headers=key, files=files)
        assert len(bare.json()["persons"]) == 1


async def test_pose_with_curl(service: Service, door: RunningDoor, picture: Path) -> None:
    if CURL is None:
        pytest.skip("no curl here")
    service.triton.answer = rows(FIGURE)
    url = f"{door.url}/v1/pose"
    for arguments in (
        ["-H", "Authorization: Bearer KEY", "-F", f"image=@{picture}", "-F", "return_overlay=true"],
        ["-H", "content-type: image/jpeg", "--data-binary", f"@{picture}"],
    ):
        found = json.loads(await ran(CURL, "-sf", url, *arguments))
        assert len(found["persons"]) == 1
        assert ("overlay" in found) == ("-F" in arguments)


async def test_detect_with_requests_by_file_and_by_base64(service: Service, door: RunningDoor) -> None:
    service.triton.answer = rows(FIGURE)
    key = {"X-API-Key": "KEY"}
    text = base64.b64encode(PICTURE).decode()
    data = {"measurement": "shoulder_abduction,splits", "side": "both"}
    answers = [
        await posted(door, "/detect", headers=key, files={"image": ("a.jpg", PICTURE)}, data=data),
        await posted(door, "/detect", headers=key, data={**data, "image": text}),
        await posted(door, "/detect", headers=key, json={**data, "image": text}),
        await posted(door, "/detect", headers=key, json={**data, "image": f"data:image/jpeg;base64,{text}"}),
    ]
    first = answers[0].json()
    assert first["status"] == "ok"
    assert [one["name"] for one in first["measurements"]] == ["shoulder_abduction", "splits"]
    for answer in answers[1:]:
        assert [one["value"] for one in answer.json()["measurements"]] == [
            one["value"] for one in first["measurements"]
        ]


FETCH_POSE = """
const fs = require("fs");
const form = new FormData();
form.append("return_overlay", "true");
form.append("image", new Blob([fs.readFileSync(process.env.PICTURE)], { type: "image/jpeg" }), "photo.jpg");
fetch(process.env.URL + "/v1/pose", { method: "POST", body: form, headers: { Authorization: "Bearer KEY" } })
  .then((answer) => answer.json())
  .then((found) => console.log(JSON.stringify([found.persons.length, found.overlay.slice(0, 22)])));
"""

FETCH_VIDEO = """
const fs = require("fs");
(async () => {
  const form = new FormData();
  form.append("file", new Blob([fs.readFileSync(process.env.PICTURE)]), "clip.mp4");
  const answer = await fetch(process.env.URL + "/infer/video", { method: "POST", body: form });
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  const types = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
    const parts = text.split("\\n\\n");
    text = parts.pop();
    for (const part of parts) types.push(JSON.parse(part.replace("data: ", "")).type);
  }
  console.log(JSON.stringify(types));
})();
"""


async def test_pose_with_nodes_fetch_and_a_form(service: Service, door: RunningDoor, picture: Path) -> None:
    if NODE is None:
        pytest.skip("no node here")
    service.triton.answer = rows(FIGURE)
    said = json.loads(await ran(NODE, "-e", FETCH_POSE, URL=door.url, PICTURE=str(picture)))
    assert said == [1, "data:image/png;base64,"]


async def test_infer_video_with_nodes_fetch_requests_and_curl(
    fake: FakeGateway, faked: RunningDoor, picture: Path
) -> None:
    if NODE is None or CURL is None:
        pytest.skip("no node or no curl here")
    types = ["progress", "progress", "progress", "result"]
    said = json.loads(await ran(NODE, "-e", FETCH_VIDEO, URL=faked.url, PICTURE=str(picture)))
    assert said == types
    lines = (await ran(CURL, "-sfN", f"{faked.url}/infer/video", "-F", f"file=@{picture}")).split("\n\n")
    assert [json.loads(line.removeprefix("data: "))["type"] for line in lines if line] == types

    def by_requests() -> list[str]:
        with (
            picture.open("rb") as file,
            requests.post(
                f"{faked.url}/infer/video", files={"file": file}, stream=True, timeout=30
            ) as answer,
        ):
            return [
                json.loads(line.removeprefix(b"data: "))["type"]
                for line in answer.iter_lines(chunk_size=64)
                if line.startswith(b"data: ")
            ]

    assert await asyncio.to_thread(by_requests) == types


async def test_batch_upload_and_health_as_published(
    service: Service, door: RunningDoor, picture: Path
) -> None:
    service.triton.answer = rows(FIGURE)
    files = [("images", (f"{number}.jpg", PICTURE, "image/jpeg")) for number in range(3)]
    batch = await posted(door, "/v1/pose/batch", headers={"Authorization": "Bearer KEY"}, files=files)
    assert [len(one["result"]["persons"]) for one in batch.json()["results"]] == [1, 1, 1]
    health = await asyncio.to_thread(requests.get, f"{door.url}/health", timeout=60)
    assert health.status_code in (200, 503)
