"""The description of the API says what the door does: valid, complete, and true of real answers."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.routing import Route

from service.web.app import routes
from service.web.openapi import document
from tests.fakes import rows
from tests.pictures import jpeg
from tests.running import Service
from tests.servicers.test_measure_angles import FIGURE
from tests.web.running import FakeGateway, RunningDoor, refusal, running_door
from tests.web.test_problems import Code
from tests.web.test_videos import events

PICTURE = jpeg((640, 640))


def test_the_description_is_valid() -> None:
    validate(document())


def test_every_path_and_method_is_described_and_no_other() -> None:
    class Nothing:
        settings = type("Settings", (), {"page": True})

    there = {
        (route.path.replace(":path", ""), method.lower())
        for route in routes(Nothing())  # type: ignore[arg-type]  # only paths are looked at
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert there - described == {("/", "get"), ("/docs", "get"), ("/openapi.json", "get")}
    assert described - there == set()


def check(value: Any, name: str) -> None:
    """Whether the answer has the schema, and no member that the schema does not name."""
    schema = {**document()["components"]["schemas"][name], "components": document()["components"]}
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
    if "properties" in schema:
        assert set(value) <= set(schema["properties"])


async def test_real_answers_have_the_shapes_that_are_described(service: Service, door: RunningDoor) -> None:
    service.triton.answer = rows(FIGURE)
    client = door.client
    picture: dict[str, Any] = {"files": {"image": ("a.jpg", PICTURE)}}
    check((await client.post("/v1/pose", data={"return_overlay": "true"}, **picture)).json(), "Pose")
    batch = (await client.post("/v1/pose/batch", files=[("images", PICTURE), ("images", b"\x00")])).json()
    check(batch, "Batch")
    check(batch["results"][1]["error"], "Problem")
    detection = (await client.post("/detect", data={"measurement": "splits,knee_side"}, **picture)).json()
    check(detection, "Detection")
    check(detection["measurements"][0], "Measurement")
    check((await client.get("/v1/skeletons")).json(), "SkeletonPage")
    check((await client.get("/v1/skeletons/coco_17")).json(), "Skeleton")
    check((await client.get("/v1/models")).json(), "Models")
    check((await client.get("/v1/info")).json(), "Info")
    check((await client.get("/v1/account")).json(), "Account")
    check((await client.get("/health")).json(), "Health")
    check((await client.post("/v1/pose", data={"x": "y"}, **picture)).json(), "Problem")


async def test_videos_have_the_shapes_that_are_described(fake: FakeGateway, faked: RunningDoor) -> None:
    check((await faked.client.post("/v1/video/upload", files={"video": b"x"})).json(), "Video")
    for event in events(await faked.client.post("/infer/video", files={"file": b"x"})):
        check(event, "InferEvent")
    fake.error = refusal(
        Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_ms=1, violations=[("a", "b")], limit="3"
    )
    check((await faked.client.post("/v1/video/upload", files={"video": b"x"})).json(), "Problem")


@pytest.mark.parametrize("path", ["/docs", "/docs/assets/rapidoc-min.js", "/docs/assets/theme.js"])
async def test_the_documentation_is_served_by_the_door(faked: RunningDoor, path: str) -> None:
    answer = await faked.client.get(path)
    assert answer.status_code == 200
    assert (await faked.client.get("/openapi.json")).json()["info"]["title"] == "Posegate"


async def test_the_page_has_a_strict_policy_and_can_be_left_out(
    fake: FakeGateway, faked: RunningDoor
) -> None:
    answer = await faked.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    async with running_door(fake.address, page=False) as door:
        assert (await door.client.get("/")).status_code == 404
