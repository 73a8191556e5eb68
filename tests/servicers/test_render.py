"""RenderPoses."""

import math

import cv2
import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1 import types_pb2
from service.skeletons import shipped
from tests.core.persons import random_people
from tests.servicers.two_persons import grey, reason_of, skeleton_stub, violations_of

COCO = shipped()["coco_17"]


def person(seed: int = 0, **fields: object) -> types_pb2.Person:
    points = random_people(1, COCO, seed=seed, size=200).keypoints[0].tolist()
    keypoints = [types_pb2.Keypoint(x=x, y=y, score=score) for x, y, score in points]
    return types_pb2.Person(keypoints=keypoints, score=0.5, **fields)  # type: ignore[arg-type]


def canvas(width: int = 200, height: int = 200, color: str = "") -> pb.Canvas:
    return pb.Canvas(size=types_pb2.ImageSize(width=width, height=height), color=color)


def pixels(overlay: types_pb2.Overlay) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(overlay.content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    assert (image.shape[1], image.shape[0]) == (overlay.size.width, overlay.size.height)
    return image.astype(np.uint8)


async def drawn(channel: grpc.aio.Channel, request: pb.RenderPosesRequest) -> NDArray[np.uint8]:
    return pixels((await skeleton_stub(channel).RenderPoses(request)).overlay)


async def test_people_are_drawn_on_a_canvas(channel: grpc.aio.Channel) -> None:
    request = pb.RenderPosesRequest(
        canvas=canvas(300, 250, "#102030"), skeleton="coco_17", persons=[person()]
    )

    answer = await skeleton_stub(channel).RenderPoses(request)

    image = pixels(answer.overlay)
    assert image.shape == (250, 300, 3)
    assert answer.overlay.media_type == "image/png"
    assert tuple(image[-1, -1]) == (0x10, 0x20, 0x30)
    nose = person().keypoints[0]
    assert tuple(image[round(nose.y), round(nose.x)]) != (0x10, 0x20, 0x30)


async def test_an_empty_color_is_black_and_zero_persons_are_allowed(channel: grpc.aio.Channel) -> None:
    image = await drawn(channel, pb.RenderPosesRequest(canvas=canvas(3, 2), skeleton="coco_17"))

    assert image.shape == (2, 3, 3)
    assert not image.any()


async def test_people_are_drawn_on_a_picture(channel: grpc.aio.Channel) -> None:
    request = pb.RenderPosesRequest(image=grey(320, 240), skeleton="coco_17", persons=[person()])
    request.overlay.format = types_pb2.OVERLAY_FORMAT_JPEG

    answer = await skeleton_stub(channel).RenderPoses(request)

    assert answer.overlay.media_type == "image/jpeg"
    image = pixels(answer.overlay)
    assert image.shape == (240, 320, 3)
    assert (image != 90).any()
    assert (abs(image[-1, -1].astype(int) - 90) < 3).all()


@pytest.mark.parametrize("name", list(shipped()))
async def test_every_shipped_skeleton_can_be_drawn(channel: grpc.aio.Channel, name: str) -> None:
    points = random_people(1, shipped()[name], size=200).keypoints[0].tolist()
    someone = types_pb2.Person(keypoints=[types_pb2.Keypoint(x=x, y=y, score=s) for x, y, s in points])

    image = await drawn(channel, pb.RenderPosesRequest(canvas=canvas(), skeleton=name, persons=[someone]))

    assert image.any()


async def test_custom_skeletons_can_be_drawn_with_their_colors(channel: grpc.aio.Channel) -> None:
    points = [types_pb2.Keypoint(x=x, y=50, score=1) for x in (50, 150)]
    someone = types_pb2.Person(keypoints=[*points, types_pb2.Keypoint()])
    request = pb.RenderPosesRequest(canvas=canvas(), skeleton="body_with_neck", persons=[someone])
    request.overlay.labels = False

    image = await drawn(channel, request)

    assert tuple(image[50, 100]) == (0, 255, 0)
    assert (image[45:55, 145:155] == (255, 0, 0)).all(axis=2).any()
    assert not image[:5, :5].any()  # the tail is not there: x = y = score = 0 is no point in the corner


async def test_a_label_says_the_track_or_the_place(channel: grpc.aio.Channel) -> None:
    def request(*people: types_pb2.Person) -> pb.RenderPosesRequest:
        return pb.RenderPosesRequest(canvas=canvas(), skeleton="coco_17", persons=people)

    first = await drawn(channel, request(person()))
    named_like_the_place = await drawn(channel, request(person(track_id=0)))
    tracked = await drawn(channel, request(person(track_id=7)))

    assert np.array_equal(first, named_like_the_place)
    assert not np.array_equal(first, tracked)


async def test_a_box_is_drawn_where_there_is_one(channel: grpc.aio.Channel) -> None:
    box = types_pb2.Box(x1=2, y1=2, x2=198, y2=198)

    async def corner(someone: types_pb2.Person, *, boxes: bool) -> bool:
        request = pb.RenderPosesRequest(canvas=canvas(), skeleton="coco_17", persons=[someone])
        request.overlay.boxes, request.overlay.labels = boxes, False
        return bool((await drawn(channel, request))[197:199, 150].any())

    assert await corner(person(box=box), boxes=True)
    assert not await corner(person(box=box), boxes=False)
    assert not await corner(person(), boxes=True)


async def test_points_below_the_score_are_left_out(channel: grpc.aio.Channel) -> None:
    request = pb.RenderPosesRequest(canvas=canvas(), skeleton="coco_17", persons=[person()])
    request.overlay.labels = False
    request.overlay.min_keypoint_score = 1.5

    assert not (await drawn(channel, request)).any()


async def test_a_thousand_points_are_drawn(channel: grpc.aio.Channel) -> None:
    points = [types_pb2.Keypoint(x=index % 200, y=index / 5, score=1) for index in range(1000)]
    request = pb.RenderPosesRequest(
        canvas=canvas(), skeleton="big", persons=[types_pb2.Person(keypoints=points)]
    )

    assert (await drawn(channel, request)).any()


async def test_coordinates_far_outside_do_no_harm(channel: grpc.aio.Channel) -> None:
    someone = person()
    for point, far in zip(someone.keypoints, (1e30, -1e30, 3.4e38, -70000, 1e6), strict=False):
        point.x = point.y = far
    someone.box.CopyFrom(types_pb2.Box(x1=-1e30, y1=-1e30, x2=1e30, y2=1e30))
    request = pb.RenderPosesRequest(canvas=canvas(), skeleton="coco_17", persons=[someone])

    assert (await drawn(channel, request)).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
async def test_tiny_canvases_are_drawn_on(channel: grpc.aio.Channel, size: tuple[int, int]) -> None:
    request = pb.RenderPosesRequest(canvas=canvas(*size), skeleton="coco_17", persons=[person()])

    assert (await drawn(channel, request)).shape == (size[1], size[0], 3)


async def refused(channel: grpc.aio.Channel, request: pb.RenderPosesRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await skeleton_stub(channel).RenderPoses(request)
    return caught.value


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.RenderPosesRequest(), ["background", "skeleton"]),
        (pb.RenderPosesRequest(image=types_pb2.Image(), skeleton="coco_17"), ["image"]),
        (pb.RenderPosesRequest(canvas=pb.Canvas(), skeleton="coco_17"), ["canvas.size"]),
        (pb.RenderPosesRequest(canvas=canvas(-1, 5), skeleton="coco_17"), ["canvas.size"]),
        (pb.RenderPosesRequest(canvas=canvas(4001, 1000), skeleton="coco_17"), ["canvas.size"]),
        (pb.RenderPosesRequest(canvas=canvas(2_000_000, 2), skeleton="coco_17"), ["canvas.size"]),
        (pb.RenderPosesRequest(canvas=canvas(1_000_001, 1), skeleton="coco_17"), ["canvas.size"]),
        (
            pb.RenderPosesRequest(
                canvas=canvas(65_501, 1),
                skeleton="coco_17",
                overlay=types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_JPEG),
            ),
            ["canvas.size"],
        ),
        (pb.RenderPosesRequest(canvas=canvas(5, 5, "red"), skeleton="coco_17"), ["canvas.color"]),
        (pb.RenderPosesRequest(canvas=canvas(), skeleton="coco_17", persons=[person()] * 11), ["persons"]),
        (
            pb.RenderPosesRequest(canvas=canvas(), skeleton="blazepose_33", persons=[person(), person()]),
            ["persons[0].keypoints", "persons[1].keypoints"],
        ),
        (
            pb.RenderPosesRequest(
                canvas=canvas(),
                skeleton="coco_17",
                persons=[
                    person(),
                    person(box=types_pb2.Box(x1=5, y1=0, x2=5, y2=1)),
                    person(box=types_pb2.Box(x1=math.nan, y1=0, x2=math.inf, y2=1)),
                    person(side=types_pb2.SIDE_LEFT),
                ],
            ),
            ["persons[1].box", "persons[2].box.x1", "persons[2].box.x2"],
        ),
        (
            pb.RenderPosesRequest(
                canvas=canvas(),
                skeleton="coco_17",
                overlay=types_pb2.OverlayOptions(format=9, line_width=33, jpeg_quality=0),  # type: ignore[arg-type]
            ),
            ["overlay.line_width", "overlay.jpeg_quality", "overlay.format"],
        ),
        (
            pb.RenderPosesRequest(
                canvas=canvas(), skeleton="coco_17", overlay=types_pb2.OverlayOptions(jpeg_quality=90)
            ),
            ["overlay.jpeg_quality"],  # unset means PNG here
        ),
        (pb.RenderPosesRequest(canvas=canvas(color="x"), skeleton="cat_9"), ["canvas.color"]),
    ],
    ids=str,
)
async def test_what_is_wrong_is_told_all_at_once(
    channel: grpc.aio.Channel, request_: pb.RenderPosesRequest, fields: list[str]
) -> None:
    error = await refused(channel, request_)

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(error) == fields


async def test_what_is_no_number_is_told_with_its_place(channel: grpc.aio.Channel) -> None:
    bad = person(1)
    bad.keypoints[3].x = math.nan
    bad.keypoints[4].y = math.inf
    bad.keypoints[5].score = -0.1
    bad.score = -1
    request = pb.RenderPosesRequest(canvas=canvas(), skeleton="coco_17", persons=[person(), bad])

    error = await refused(channel, request)

    assert violations_of(error) == [
        "persons[1].score",
        "persons[1].keypoints[3].x",
        "persons[1].keypoints[4].y",
        "persons[1].keypoints[5].score",
    ]


async def test_ten_thousand_mistakes_still_make_an_answer(channel: grpc.aio.Channel) -> None:
    """Errors travel in headers, which are short."""
    points = [types_pb2.Keypoint(x=math.nan, y=math.inf, score=-1)] * 1000
    request = pb.RenderPosesRequest(
        canvas=canvas(), skeleton="big", persons=[types_pb2.Person(keypoints=points)] * 10
    )

    error = await refused(channel, request)

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(error) == "INVALID_REQUEST"
    assert len(violations_of(error)) > 10
    assert violations_of(error)[-1] == ""


@pytest.mark.parametrize("name", ["cat_9", "肩" * 170, "'; DROP TABLE skeletons; --", "\x00", "\u202e" * 170])
async def test_unknown_skeletons_are_not_found(channel: grpc.aio.Channel, name: str) -> None:
    error = await refused(channel, pb.RenderPosesRequest(canvas=canvas(), skeleton=name))

    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert reason_of(error) == "SKELETON_NOT_FOUND"


async def test_a_picture_that_is_none_is_undecodable(channel: grpc.aio.Channel) -> None:
    image = types_pb2.Image(content=b"not a picture")

    error = await refused(channel, pb.RenderPosesRequest(image=image, skeleton="coco_17"))

    assert reason_of(error) == "IMAGE_UNDECODABLE"


async def test_uris_are_off(channel: grpc.aio.Channel) -> None:
    image = types_pb2.Image(uri="https://example.org/a.jpg")

    error = await refused(channel, pb.RenderPosesRequest(image=image, skeleton="coco_17"))

    assert error.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_shipped_skeletons_are_drawn_without_the_store(
    channel_without_store: grpc.aio.Channel,
) -> None:
    channel = channel_without_store

    image = await drawn(
        channel, pb.RenderPosesRequest(canvas=canvas(), skeleton="coco_17", persons=[person()])
    )

    assert image.any()
