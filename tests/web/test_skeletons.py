"""`/v1/skeletons`: kept, changed only as it was read, drawn and exported."""

from __future__ import annotations

import base64
import io
import zipfile
from typing import Any
from urllib.parse import quote

import pytest

from tests.pictures import jpeg
from tests.web.running import RunningDoor


def skeleton(name: str = "mine", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": "Mine",
        "keypoints": [{"name": "nose"}, {"name": "left_eye", "color": "#102030"}],
        "edges": [{"start": "nose", "end": "left_eye"}],
        **changes,
    }


PERSON = {"keypoints": [[10, 20, 0.9], [30, 40, 0.8]], "box": [5, 5, 50, 60], "score": 0.9}


async def test_shipped_ones_are_listed_page_by_page(door: RunningDoor) -> None:
    first = (await door.client.get("/v1/skeletons?page_size=2")).json()
    assert len(first["skeletons"]) == 2
    rest = (await door.client.get("/v1/skeletons", params={"page_token": first["next_page_token"]})).json()
    names = [one["name"] for page in (first, rest) for one in page["skeletons"]]
    assert {"coco_17", "coco_wholebody_133", "mediapipe_hand_21", "animal_24"} <= set(names)
    bad = await door.client.get("/v1/skeletons?page_size=x")
    assert bad.json()["errors"][0]["field"] == "page_size"


async def test_one_is_made_read_changed_and_removed(door: RunningDoor) -> None:
    client = door.client
    made = await client.post("/v1/skeletons", json=skeleton())
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/skeletons/mine"
    read = await client.get(made.headers["location"])
    assert read.json()["keypoints"] == [
        {"name": "nose", "color": "", "optional": False},
        {"name": "left_eye", "color": "#102030", "optional": False},
    ]
    etag = read.headers["etag"]
    assert etag.startswith('"')
    changed = await client.put("/v1/skeletons/mine", json=skeleton(title="Other"), headers={"if-match": etag})
    assert (changed.status_code, changed.json()["title"]) == (200, "Other")
    stale = await client.put("/v1/skeletons/mine", json=skeleton(), headers={"if-match": etag})
    assert (stale.status_code, stale.json()["code"]) == (409, "ABORTED")
    anyway = await client.put("/v1/skeletons/mine", json=read.json(), headers={"if-match": "*"})
    assert anyway.status_code == 200, "what was read may be sent back as it is"
    assert (await client.delete("/v1/skeletons/mine", headers={"if-match": etag})).status_code == 409
    gone = await client.delete("/v1/skeletons/mine", headers={"if-match": anyway.headers["etag"]})
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await client.get("/v1/skeletons/mine")).status_code == 404


@pytest.mark.parametrize("name", ["a/b", "人体", "x y", "render", "a/render", "50%"])
async def test_any_name_works_in_an_address(door: RunningDoor, name: str) -> None:
    made = await door.client.post("/v1/skeletons", json=skeleton(name))
    assert made.status_code == 201, made.text
    for address in (made.headers["location"], f"/v1/skeletons/{quote(name, safe='')}"):
        read = await door.client.get(address)
        assert read.json()["name"] == name
    drawn = await door.client.post(
        f"/v1/skeletons/{quote(name, safe='')}/render",
        json={"canvas": {"width": 64, "height": 64}, "persons": [PERSON]},
    )
    assert drawn.status_code == 200, drawn.text


async def test_errors_keep_their_meaning(door: RunningDoor) -> None:
    client = door.client
    taken = await client.post("/v1/skeletons", json=skeleton("coco_17"))
    assert (taken.status_code, taken.json()["reason"]) == (409, "SKELETON_EXISTS")
    shipped = await client.put("/v1/skeletons/coco_17", json=skeleton("coco_17"))
    assert (shipped.status_code, shipped.json()["reason"]) == (403, "SKELETON_SHIPPED")
    other = await client.put("/v1/skeletons/mine", json=skeleton("yours"))
    assert other.status_code == 400
    wrong = skeleton(edges=[{"start": "nose", "end": "tail"}])
    wrong["keypoints"][0]["color"] = "red"
    refused = await client.post("/v1/skeletons", json=wrong)
    assert refused.status_code == 400
    assert len(refused.json()["errors"]) == 2
    assert all(not one["field"].startswith("skeleton.") for one in refused.json()["errors"])
    unknown = await client.post("/v1/skeletons", json=skeleton(colour="x"))
    assert (unknown.status_code, unknown.json()["reason"]) == (400, "SKELETON_INVALID")
    form = await client.post("/v1/skeletons", data={"name": "x"})
    assert form.status_code == 415


async def test_people_are_drawn_on_a_canvas_or_a_picture(door: RunningDoor) -> None:
    await door.client.post("/v1/skeletons", json=skeleton())
    address = "/v1/skeletons/mine/render"
    canvas = {"canvas": {"width": 64, "height": 80, "color": "#ff0000"}, "persons": [PERSON]}
    as_json = (await door.client.post(address, json={**canvas, "format": "jpeg", "line_width": 2})).json()
    assert (as_json["width"], as_json["height"]) == (64, 80)
    assert as_json["overlay"].startswith("data:image/jpeg;base64,")
    as_png = await door.client.post(address, json=canvas, headers={"accept": "image/png"})
    assert as_png.headers["content-type"] == "image/png"
    assert as_png.content.startswith(b"\x89PNG")
    picture = {"image": base64.b64encode(jpeg((64, 80))).decode(), "persons": [PERSON], "labels": False}
    on_picture = await door.client.post(address, json=picture, headers={"accept": "image/jpeg"})
    assert on_picture.content.startswith(b"\xff\xd8")
    wrongs: list[dict[str, Any]] = [
        {"persons": []},
        {**canvas, **picture},
        {**canvas, "persons": [{"keypoints": [[1, 2]]}]},
        {**canvas, "persons": [{"keypoints": [[1, 2, 3]]}]},
        {**canvas, "persons": "all"},
        {**canvas, "canvas": {"width": 0}},
        {**canvas, "shadow": True},
    ]
    for wrong in wrongs:
        answer = await door.client.post(address, json=wrong)
        assert answer.status_code == 400, wrong
        assert answer.json()["errors"], wrong


async def test_people_are_exported_as_files(door: RunningDoor) -> None:
    await door.client.post("/v1/skeletons", json=skeleton())
    address = "/v1/skeletons/mine/export"
    item = {"file_name": "a.jpg", "image": {"width": 64, "height": 80}, "persons": [PERSON]}
    table = (await door.client.post(address, json={"format": "csv", "items": [item]})).json()
    assert [one["media_type"] for one in table["files"]] == ["text/csv"]
    assert "nose" in table["files"][0]["content"]
    packed = await door.client.post(
        address, json={"format": "coco", "items": [item]}, headers={"accept": "application/zip"}
    )
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert sorted(archive.namelist()) == ["annotations.json", "results.json"]
    wrong = await door.client.post(address, json={"format": "xml", "items": [{"persons": [PERSON]}, 7]})
    assert {one["field"] for one in wrong.json()["errors"]} == {
        "format",
        "items[0].image.width",
        "items[0].image.height",
        "items[1]",
    }


async def test_models_limits_and_measurements_are_listed(door: RunningDoor) -> None:
    info = (await door.client.get("/v1/info")).json()
    assert info["default_model"] == "yolo11n_pose"
    assert info["limits"]["max_batch_size"] == 4
    assert len(info["measurements"]) == 21
    models = (await door.client.get("/v1/models")).json()["models"]
    assert models[0]["name"] == "yolo11n_pose"
    assert models[0]["ready"] is True


@pytest.mark.parametrize("path", ["/v1/info", "/v1/account", "/v1/models"])
async def test_a_field_that_these_do_not_have_is_refused(door: RunningDoor, path: str) -> None:
    answer = await door.client.get(path, params={"tenant": "acme"})
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["errors"]] == ["tenant"]
