"""ExportPoses."""

import csv
import io
import json
import math

import grpc
import numpy as np
import pytest

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.skeleton.template import Skeleton
from service.skeletons import shipped
from tests.core.persons import ODD, random_people
from tests.running import running
from tests.servicers.two_persons import reason_of, skeleton_stub, violations_of

COCO = shipped()["coco_17"]
FORMATS = (pb.EXPORT_FORMAT_COCO_JSON, pb.EXPORT_FORMAT_YOLO_TXT, pb.EXPORT_FORMAT_CSV)


def people(count: int, skeleton: Skeleton = COCO, **fields: object) -> list[types_pb2.Person]:
    poses = random_people(count, skeleton)
    return [
        types_pb2.Person(
            keypoints=[types_pb2.Keypoint(x=x, y=y, score=score) for x, y, score in points],
            score=score,
            **fields,  # type: ignore[arg-type]
        )
        for points, score in zip(poses.keypoints.tolist(), poses.scores.tolist(), strict=True)
    ]


def item(
    name: str = "a.jpg", *persons: types_pb2.Person, width: int = 600, height: int = 600
) -> pb.ExportItem:
    size = types_pb2.ImageSize(width=width, height=height)
    return pb.ExportItem(file_name=name, image_size=size, persons=persons)


async def export(
    channel: grpc.aio.Channel,
    format_: pb.ExportFormat.ValueType,
    *items: pb.ExportItem,
    skeleton: str = "coco_17",
) -> dict[str, bytes]:
    request = pb.ExportPosesRequest(format=format_, skeleton=skeleton, items=items)
    answer = await skeleton_stub(channel).ExportPoses(request, timeout=300)
    return {file.name: file.content for file in answer.files}


async def test_coco(channel: grpc.aio.Channel) -> None:
    files = await export(channel, pb.EXPORT_FORMAT_COCO_JSON, item("000042.jpg", *people(2)), item("7.png"))

    data = json.loads(files["annotations.json"])
    assert [image["id"] for image in data["images"]] == [42, 7]
    assert [one["image_id"] for one in json.loads(files["results.json"])] == [42, 42]
    assert np.array(data["annotations"][0]["keypoints"]).reshape(17, 3)[:, :2] == pytest.approx(
        random_people(2, COCO).keypoints[0, :, :2], abs=1e-3
    )


async def test_yolo(channel: grpc.aio.Channel) -> None:
    files = await export(channel, pb.EXPORT_FORMAT_YOLO_TXT, item("a.jpg", *people(2)), item("b.jpg"))

    assert list(files) == ["a.txt", "b.txt", "data.yaml"]
    assert files["a.txt"].count(b"\n") == 2
    assert files["b.txt"] == b""


async def test_visible_score_decides_what_is_visible(channel: grpc.aio.Channel) -> None:
    person = people(1)[0]
    for place, score in enumerate((0.4, 0.5, 0.6)):
        person.keypoints[place].score = score
    for visible_score, flags in ((None, [1, 2, 2]), (0.6, [1, 1, 2]), (0.0, [2, 2, 2])):
        request = pb.ExportPosesRequest(
            format=pb.EXPORT_FORMAT_COCO_JSON,
            skeleton="coco_17",
            items=[item("a.jpg", person)],
            visible_score=visible_score,
        )
        answer = await skeleton_stub(channel).ExportPoses(request)
        annotation = json.loads(answer.files[0].content)["annotations"][0]
        assert annotation["keypoints"][2:9:3] == flags


@pytest.mark.parametrize(
    ("format_", "visible_score"),
    [
        (pb.EXPORT_FORMAT_YOLO_TXT, -0.1),
        (pb.EXPORT_FORMAT_YOLO_TXT, math.nan),
        (pb.EXPORT_FORMAT_COCO_JSON, math.inf),
        (pb.EXPORT_FORMAT_CSV, 0.5),
    ],
)
async def test_a_visible_score_that_cannot_be_honoured_is_refused(
    channel: grpc.aio.Channel, format_: pb.ExportFormat.ValueType, visible_score: float
) -> None:
    request = pb.ExportPosesRequest(
        format=format_, skeleton="coco_17", items=[item()], visible_score=visible_score
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await skeleton_stub(channel).ExportPoses(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "visible_score" in violations_of(refused.value)


async def test_csv(channel: grpc.aio.Channel) -> None:
    someone = people(1, track_id=3, side=types_pb2.SIDE_RIGHT, person_index=2)[0]
    someone.positions.extend([types_pb2.Position(x=1, y=2, z=math.nan)] * 17)
    someone.depth_source = types_pb2.DEPTH_SOURCE_LIFTED

    files = await export(channel, pb.EXPORT_FORMAT_CSV, item("a.jpg", someone, *people(1)))

    first, second = csv.DictReader(io.StringIO(files["poses.csv"].decode(), newline=""))
    assert (first["track_id"], first["side"], first["person_index"]) == ("3", "right", "2")
    assert (first["nose_x_m"], first["nose_z_m"], first["depth_source"]) == ("1.0", "", "lifted")
    assert (second["track_id"], second["side"], second["depth_source"]) == ("", "", "")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", [*shipped(), ODD.name, "big"])
async def test_any_skeleton_in_any_format(
    channel: grpc.aio.Channel, name: str, format_: pb.ExportFormat.ValueType
) -> None:
    count = {"big": 1000, ODD.name: len(ODD.keypoints)}.get(name) or len(shipped()[name].keypoints)
    someone = types_pb2.Person(keypoints=[types_pb2.Keypoint(x=5, y=6, score=1)] * count)

    files = await export(channel, format_, item("a.jpg", someone), item("b.jpg"), skeleton=name)

    assert all(files.values()) or format_ == pb.EXPORT_FORMAT_YOLO_TXT


async def refused(channel: grpc.aio.Channel, request: pb.ExportPosesRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await skeleton_stub(channel).ExportPoses(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    return caught.value


@pytest.mark.parametrize(
    ("items", "fields"),
    [
        ([], ["items"]),
        ([item("")], ["items[0].file_name"]),
        ([item("x" * 256)], ["items[0].file_name"]),
        ([item("../a.jpg")], ["items[0].file_name"]),
        ([item("c:\\a.jpg")], ["items[0].file_name"]),
        ([item("..")], ["items[0].file_name"]),
        ([item("a\nb.jpg")], ["items[0].file_name"]),
        ([item("a\x00.jpg")], ["items[0].file_name"]),
        ([item(), item("b.jpg"), item()], ["items[2].file_name"]),
        ([item("\u00e9.jpg"), item("e\u0301.jpg")], ["items[1].file_name"]),
        ([item(width=0)], ["items[0].image_size"]),
        ([item(height=-1)], ["items[0].image_size"]),
        ([pb.ExportItem(file_name="a.jpg")], ["items[0].image_size"]),
        ([item("a.jpg", types_pb2.Person())], ["items[0].persons[0].keypoints"]),
        (
            [item("a.jpg", *people(1), types_pb2.Person(keypoints=[types_pb2.Keypoint()] * 17))],
            ["items[0].persons[1]"],
        ),
        (
            [item("a.jpg", *people(1, positions=[types_pb2.Position()] * 3))],
            ["items[0].persons[0].positions"],
        ),
        ([item("a.jpg", *people(1, side=types_pb2.SIDE_BOTH))], ["items[0].persons[0].side"]),
        (
            [item("", types_pb2.Person()), item("b.jpg"), item("b.jpg", width=0)],
            [
                "items[0].file_name",
                "items[2].file_name",
                "items[0].persons[0].keypoints",
                "items[2].image_size",
            ],
        ),
    ],
    ids=str,
)
async def test_what_is_wrong_is_told_all_at_once(
    channel: grpc.aio.Channel, items: list[pb.ExportItem], fields: list[str]
) -> None:
    for format_ in FORMATS:
        request = pb.ExportPosesRequest(format=format_, skeleton="coco_17", items=items)

        assert violations_of(await refused(channel, request)) == fields


async def test_an_empty_request_lacks_everything(channel: grpc.aio.Channel) -> None:
    assert violations_of(await refused(channel, pb.ExportPosesRequest())) == ["format", "items", "skeleton"]


async def test_label_files_must_differ(channel: grpc.aio.Channel) -> None:
    items = [item("a.jpg"), item("b.jpg"), item("a.png")]

    await export(channel, pb.EXPORT_FORMAT_COCO_JSON, *items)
    request = pb.ExportPosesRequest(format=pb.EXPORT_FORMAT_YOLO_TXT, skeleton="coco_17", items=items)
    assert violations_of(await refused(channel, request)) == ["items[2].file_name"]


async def test_label_files_must_fit_into_a_file_system(channel: grpc.aio.Channel) -> None:
    items = [item("肩" * 100)]

    request = pb.ExportPosesRequest(format=pb.EXPORT_FORMAT_YOLO_TXT, skeleton="coco_17", items=items)

    assert violations_of(await refused(channel, request)) == ["items[0].file_name"]


@pytest.mark.parametrize(
    "name", ["-rf", ".hidden", "a b.jpg", "=1.jpg", "肩.jpg", "a%2e.jpg", "x" * 251 + ".jpg"]
)
async def test_odd_names_of_pictures_are_fine(channel: grpc.aio.Channel, name: str) -> None:
    files = await export(channel, pb.EXPORT_FORMAT_YOLO_TXT, item(name))

    assert len(files) == 2
    assert all("/" not in file for file in files)


async def test_too_many_pictures_are_refused_with_the_numbers(channel: grpc.aio.Channel) -> None:
    items = [item(f"{number}.jpg", width=0) for number in range(10_001)]

    error = await refused(
        channel, pb.ExportPosesRequest(format=pb.EXPORT_FORMAT_CSV, skeleton="coco_17", items=items)
    )

    assert violations_of(error)[0] == "items"
    assert "at most 10000 elements" in str(error.details())


async def test_ten_thousand_pictures_are_exported(channel: grpc.aio.Channel) -> None:
    items = [item(f"{number}.jpg") for number in range(10_000)]

    files = await export(channel, pb.EXPORT_FORMAT_YOLO_TXT, *items)

    assert len(files) == 10_001


async def test_more_than_fits_into_an_answer_is_refused() -> None:
    items = [item(f"{number}.jpg", *people(20)) for number in range(200)]
    request = pb.ExportPosesRequest(format=pb.EXPORT_FORMAT_COCO_JSON, skeleton="coco_17", items=items)

    async with running(max_message_bytes=2_000_000) as service:
        error = await refused(service.channel, request)

    assert reason_of(error) == "EXPORT_TOO_LARGE"


async def test_an_unknown_skeleton_is_not_found(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await export(channel, pb.EXPORT_FORMAT_CSV, item(), skeleton="cat_9")

    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
