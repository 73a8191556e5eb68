"""DetectPoses: every field of the request honoured or refused, every field of the answer right."""

import asyncio
import gc
import io
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from structlog.testing import capture_logs

from posegate.v1 import types_pb2
from service.core.geometry import Rgb8
from service.core.skeleton.template import Keypoint, Skeleton
from service.errors import Unavailable
from service.pipeline.scheduler import InferenceScheduler, Slot
from tests.fakes import MODEL, BusyThread, candidate, rows, until
from tests.media.test_download import CERTIFICATE, LEFT_TO_THE_COLLECTOR, Site
from tests.media.test_download import site as site  # a fixture
from tests.pictures import encoded, jpeg, noise, plain, quartered
from tests.running import Service, cancelled, detect_request, failure, running

VGA = jpeg((640, 480))  # fits the input of 480x640 as it is, so px of the input are px of the picture
PNG, JPEG = types_pb2.OVERLAY_FORMAT_PNG, types_pb2.OVERLAY_FORMAT_JPEG
TWO = rows(candidate((100, 50, 200, 350), 0.9), candidate((400, 60, 480, 300), 0.6))


def boxes(answer: Any) -> list[tuple[float, ...]]:
    return [(p.box.x1, p.box.y1, p.box.x2, p.box.y2) for p in answer.persons]


def picture_of(overlay: types_pb2.Overlay) -> Rgb8:
    with Image.open(io.BytesIO(overlay.content)) as picture:
        assert {"PNG": "image/png", "JPEG": "image/jpeg"}[str(picture.format)] == overlay.media_type
        assert picture.size == (overlay.size.width, overlay.size.height)
        return np.asarray(picture.convert("RGB"))


# --- the answer ---------------------------------------------------------------------------------------


async def test_zero_persons_are_an_empty_answer_and_not_an_error(service: Service) -> None:
    answer = await service.detect(VGA)
    assert list(answer.persons) == []
    assert (answer.image_size.width, answer.image_size.height) == (640, 480)
    assert (answer.skeleton, answer.model, answer.model_version) == ("coco_17", "yolo11n_pose", "1")
    assert not answer.HasField("overlay")


async def test_people_come_by_falling_score_with_everything_about_them(service: Service) -> None:
    service.triton.answer = TWO
    answer = await service.detect(VGA)
    assert boxes(answer) == [(100, 50, 200, 350), (400, 60, 480, 300)]
    assert [person.score for person in answer.persons] == [np.float32(0.9), np.float32(0.6)]
    for person in answer.persons:
        assert len(person.keypoints) == 17
        assert person.depth_source == types_pb2.DEPTH_SOURCE_NONE
        assert not person.positions
        assert not person.HasField("track_id")
        assert not person.HasField("person_index")
        assert person.side == types_pb2.SIDE_UNSPECIFIED
        assert person.depth_assumption == ""
    first, last = answer.persons[0].keypoints[0], answer.persons[0].keypoints[16]
    assert (first.x, first.y) == (100, 50)
    assert first.score == pytest.approx(0.9)
    assert (last.x, last.y) == (200, 350)


async def test_the_model_sees_the_letterboxed_picture(service: Service) -> None:
    await service.detect(encoded(quartered((640, 480)), "PNG"))
    (call,) = service.triton.calls
    assert call.model == MODEL
    assert call.outputs == ("candidates",)
    np.testing.assert_array_equal(call.inputs["images"], quartered((640, 480))[None])


async def test_coordinates_are_of_the_original_whatever_its_size(service: Service) -> None:
    service.triton.answer = TWO
    answer = await service.detect(jpeg((1280, 960)))
    assert (answer.image_size.width, answer.image_size.height) == (1280, 960)
    assert boxes(answer) == [(200, 100, 400, 700), (800, 120, 960, 600)]


async def test_coordinates_are_of_the_upright_picture(service: Service) -> None:
    service.triton.answer = TWO
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    answer = await service.detect(encoded(plain((480, 640)), "JPEG", exif=exif))
    assert (answer.image_size.width, answer.image_size.height) == (640, 480)
    assert boxes(answer)[0] == (100, 50, 200, 350)


async def test_coordinates_outside_the_picture_are_not_clipped(service: Service) -> None:
    service.triton.answer = rows(candidate((-50, -20, 700, 500), 0.9))
    assert boxes(await service.detect(VGA)) == [(-50, -20, 700, 500)]


async def test_the_timings_add_up(service: Service) -> None:
    answer = await service.detect(VGA, overlay={"format": PNG})
    times = answer.timings
    parts = [times.decode_ms, times.preprocess_ms, times.inference_ms, times.postprocess_ms, times.overlay_ms]
    assert all(part > 0 for part in parts)
    assert times.total_ms >= sum(parts)
    assert (await service.detect(VGA)).timings.overlay_ms == 0


async def test_waiting_for_a_free_place_shows_in_the_total_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, take = 0, InferenceScheduler.take

    async def counted(*args: Any, **kwargs: Any) -> Slot:
        nonlocal asked
        asked += 1
        return await take(*args, **kwargs)

    async with running(max_inferences=1) as service:
        monkeypatch.setattr(InferenceScheduler, "take", counted)
        service.triton.gate.clear()
        first = asyncio.create_task(service.detect(VGA))
        await service.triton.entered.wait()
        second = asyncio.create_task(service.detect(VGA))
        await until(lambda: asked == 2)
        await asyncio.sleep(0.5)
        service.triton.gate.set()
        await first
        waited = (await second).timings
    parts = waited.decode_ms + waited.preprocess_ms + waited.inference_ms + waited.postprocess_ms
    assert waited.total_ms > parts + 200  # however long the machine took for the parts


async def test_many_people_are_decoded_like_few(service: Service) -> None:
    people = [
        candidate((x * 30, y * 40, x * 30 + 20, y * 40 + 30), 0.9 - (20 * y + x) / 1000)
        for y in range(10)
        for x in range(20)
    ]
    service.triton.answer = rows(*people)
    answer = await service.detect(VGA)
    assert len(answer.persons) == 100  # the limit of this service
    assert boxes(answer)[:2] == [(0, 0, 20, 30), (30, 0, 50, 30)]


# --- the fields of the request ------------------------------------------------------------------------


async def test_min_score_leaves_people_out(service: Service) -> None:
    service.triton.answer = rows(
        *(candidate((i * 50, 0, i * 50 + 40, 40), score) for i, score in enumerate((0.9, 0.5, 0.2, 0.05)))
    )
    assert len((await service.detect(VGA)).persons) == 2
    assert len((await service.detect(VGA, min_score=0.0)).persons) == 4
    assert len((await service.detect(VGA, min_score=0.5)).persons) == 1
    assert len((await service.detect(VGA, min_score=1.0)).persons) == 0


async def test_iou_threshold_leaves_doubles_out(service: Service) -> None:
    service.triton.answer = rows(candidate((0, 0, 100, 100), 0.9), candidate((20, 0, 120, 100), 0.8))  # 0.667
    assert len((await service.detect(VGA)).persons) == 2
    assert len((await service.detect(VGA, iou_threshold=0.6)).persons) == 1
    assert len((await service.detect(VGA, iou_threshold=0.0)).persons) == 1


async def test_max_persons_keeps_the_best(service: Service) -> None:
    service.triton.answer = TWO
    assert boxes(await service.detect(VGA, max_persons=1)) == [(100, 50, 200, 350)]


async def test_keypoints_below_the_wanted_score_are_zeros(service: Service) -> None:
    points = [(10.0 + k, 20.0, k / 16) for k in range(17)]
    service.triton.answer = rows(candidate((0, 0, 100, 100), 0.9, points))
    answer = await service.detect(VGA, min_keypoint_score=0.5)
    found = [(point.x, point.y, point.score) for point in answer.persons[0].keypoints]
    assert found == [(0, 0, 0)] * 8 + points[8:]
    untouched = await service.detect(VGA)
    assert [(p.x, p.y, p.score) for p in untouched.persons[0].keypoints] == points


async def test_positions_are_left_out_where_the_model_gives_none(service: Service) -> None:
    service.triton.answer = TWO
    answer = await service.detect(VGA, include_positions=True)
    assert [list(person.positions) for person in answer.persons] == [[], []]
    assert [person.depth_source for person in answer.persons] == [types_pb2.DEPTH_SOURCE_NONE] * 2


async def test_the_region_of_interest_is_all_the_model_sees(service: Service) -> None:
    whole = noise((1280, 960))
    service.triton.answer = TWO
    answer = await service.detect(
        encoded(whole, "PNG"), region_of_interest=types_pb2.Box(x1=600, y1=400, x2=1240, y2=880)
    )
    np.testing.assert_array_equal(service.triton.calls[0].inputs["images"][0], whole[400:880, 600:1240])
    assert (answer.image_size.width, answer.image_size.height) == (1280, 960)
    assert boxes(answer) == [(700, 450, 800, 750), (1000, 460, 1080, 700)]
    first = answer.persons[0].keypoints[0]
    assert (first.x, first.y) == (700, 450)


@pytest.mark.parametrize(
    ("region", "seen"),
    [
        ((-100, -100, 9999, 9999), (0, 0, 640, 480)),
        ((600, 400, 9999, 9999), (600, 400, 640, 480)),
        ((10.2, 20.7, 30.1, 40.9), (10, 20, 31, 41)),
        ((0.1, 0.1, 0.2, 0.2), (0, 0, 1, 1)),
        ((639.5, 479.5, 700, 700), (639, 479, 640, 480)),
    ],
    ids=["all", "corner", "whole pixels", "inside one pixel", "last pixel"],
)
async def test_the_region_of_interest_is_cut_to_whole_pixels_of_the_picture(
    service: Service, region: tuple[float, ...], seen: tuple[int, ...]
) -> None:
    x1, y1, x2, y2 = region
    service.triton.answer = lambda image: rows(candidate((0, 0, image.shape[1], image.shape[0]), 0.9))
    whole = plain((640, 480))
    whole[seen[1] : seen[3], seen[0] : seen[2]] = 255
    answer = await service.detect(
        encoded(whole, "PNG"), region_of_interest=types_pb2.Box(x1=x1, y1=y1, x2=x2, y2=y2)
    )
    tensor = service.triton.calls[0].inputs["images"][0]
    height, width = tensor.shape[:2]
    assert tensor[height // 2, width // 2].tolist() == [255, 255, 255]
    assert set(np.unique(tensor)) <= {114, 255}  # the region and the grey around it, nothing else
    # The middle of the input is the middle of the region.
    box = answer.persons[0].box
    assert (box.x1 + box.x2) / 2 == pytest.approx((seen[0] + seen[2]) / 2, abs=0.6)
    assert (box.y1 + box.y2) / 2 == pytest.approx((seen[1] + seen[3]) / 2, abs=0.6)


@pytest.mark.parametrize(
    "region", [(640, 0, 700, 100), (-50, 0, 0, 100), (0, 480, 10, 500), (1e30, 0, 3e38, 1)], ids=str
)
async def test_a_region_outside_the_picture_is_refused(service: Service, region: tuple[float, ...]) -> None:
    x1, y1, x2, y2 = region
    failed = await failure(service.detect(VGA, region_of_interest=types_pb2.Box(x1=x1, y1=y1, x2=x2, y2=y2)))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.violations == {"region_of_interest": "lies outside the image, which is 640×480 px"}
    assert service.triton.calls == []


async def test_everything_wrong_with_a_request_is_said_at_once(service: Service) -> None:
    failed = await failure(
        service.poses.DetectPoses(
            detect_request(VGA, min_score=-1, max_persons=0, overlay={"format": PNG, "line_width": 99}),
            timeout=60,
        )
    )
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.reason == "INVALID_REQUEST"
    assert list(failed.violations) == ["min_score", "max_persons", "overlay.line_width"]
    assert service.triton.calls == []


# --- models and skeletons -----------------------------------------------------------------------------


async def test_another_model_and_version_answer_when_they_are_asked_for(service: Service) -> None:
    service.triton.served = [
        MODEL,
        replace(MODEL, version="2"),
        replace(MODEL, name="other", version="5"),
    ]
    await service.catalog.refresh()
    for wanted, expected in (
        ({}, ("yolo11n_pose", "2")),
        ({"model_version": "1"}, ("yolo11n_pose", "1")),
        ({"model": "other"}, ("other", "5")),
        ({"model": "other", "model_version": "5"}, ("other", "5")),
    ):
        answer = await service.detect(VGA, **wanted)
        assert (answer.model, answer.model_version) == expected
        asked = service.triton.calls[-1].model
        assert (asked.name, asked.version) == expected


@pytest.mark.parametrize(
    ("wanted", "reason", "message"),
    [
        ({"model": "nobody"}, "MODEL_NOT_FOUND", "There is no model 'nobody'. Models: yolo11n_pose."),
        ({"model_version": "9"}, "MODEL_VERSION_NOT_FOUND", "has no version '9'. Versions: 1."),
        ({"skeleton": "octopus"}, "SKELETON_NOT_FOUND", "There is no skeleton 'octopus'."),
    ],
    ids=["model", "version", "skeleton"],
)
async def test_what_is_not_there_is_not_found_and_what_is_there_is_named(
    service: Service, wanted: dict[str, str], reason: str, message: str
) -> None:
    failed = await failure(service.detect(VGA, **wanted))
    assert failed.code is grpc.StatusCode.NOT_FOUND
    assert failed.reason == reason
    assert message in failed.message
    assert service.triton.calls == []


async def test_the_models_own_skeleton_may_be_named(service: Service) -> None:
    assert (await service.detect(VGA, skeleton="coco_17")).skeleton == "coco_17"


async def test_a_skeleton_that_the_model_does_not_give_is_refused() -> None:
    tail = Skeleton(name="tail", title="A tail", keypoints=(Keypoint("root"), Keypoint("tip")))
    async with running(templates=[tail]) as service:
        failed = await failure(service.detect(VGA, skeleton="tail"))
        assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SKELETON_NOT_SUPPLIED")
        assert failed.metadata["skeleton"] == "tail"
        assert "tail" in failed.message
        assert failed.message.endswith("No model that is served does.")
        assert failed.metadata["models"] == ""
        assert service.triton.calls == []


async def test_the_served_models_that_supply_a_refused_skeleton_are_named() -> None:
    tail = Skeleton(name="tail", title="A tail", keypoints=(Keypoint("root"), Keypoint("tip")))
    with_tail = replace(MODEL, name="cat_pose", skeleton="tail", keypoint_count=2)
    async with running(templates=[tail]) as service:
        service.triton.served = [MODEL, with_tail, replace(with_tail, name="asleep", ready=False)]
        await service.catalog.refresh()
        failed = await failure(service.detect(VGA, skeleton="tail"))
        assert failed.reason == "SKELETON_NOT_SUPPLIED"
        assert failed.message.endswith("it does not give 'root', 'tip'. Models that do: cat_pose.")
        assert failed.metadata["models"] == "cat_pose"


async def test_a_call_waits_for_a_triton_that_is_away_and_returns(service: Service) -> None:
    service.triton.answer = TWO
    away = Unavailable("away", reason="TRITON_UNAVAILABLE", retry_after_s=0.01)
    service.triton.script = [away, away, away]
    assert len((await service.detect(VGA)).persons) == 2
    assert len(service.triton.calls) == 4


@pytest.mark.parametrize("ready", [False, None], ids=["not ready", "not loaded"])
async def test_a_model_that_is_not_ready_is_unavailable_for_a_while(
    service: Service, ready: bool | None
) -> None:
    service.triton.served = [] if ready is None else [replace(MODEL, ready=False)]
    await service.catalog.refresh()
    failed = await failure(service.detect(VGA))
    assert failed.code is grpc.StatusCode.UNAVAILABLE
    assert failed.reason == "MODEL_NOT_READY"
    assert failed.retry_s == 1
    assert failed.trailing["grpc-retry-pushback-ms"] == "1000"


# --- pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no picture", VGA[:-20]], ids=["empty", "words", "truncated"])
async def test_what_is_no_picture_is_refused(service: Service, content: bytes) -> None:
    failed = await failure(service.detect(content))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE")
    assert service.triton.calls == []


@pytest.mark.parametrize("limit", ["bytes", "pixels"])
async def test_what_is_too_large_is_refused_with_limit_and_actual_value(limit: str) -> None:
    limits: dict[str, Any] = {
        "bytes": {"max_image_bytes": len(VGA) - 1},
        "pixels": {"max_image_pixels": 640 * 480 - 1},
    }
    async with running(**limits[limit]) as service:
        failed = await failure(service.detect(VGA))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE")
    actual = {"bytes": len(VGA), "pixels": 640 * 480}[limit]
    assert failed.metadata == {f"limit_{limit}": str(actual - 1), f"actual_{limit}": str(actual)}


def uri_request(uri: str) -> Any:
    request = detect_request(b"")
    request.image.uri = uri
    return request


@pytest.mark.parametrize(
    ("uri", "code", "reason"),
    [
        ("https://localhost/p.jpg", "PERMISSION_DENIED", "URI_OFF"),
        ("", "PERMISSION_DENIED", "URI_OFF"),
        ("file:///etc/passwd", "PERMISSION_DENIED", "URI_OFF"),
    ],
)
async def test_uris_are_off_unless_a_host_is_allowed(
    service: Service, uri: str, code: str, reason: str
) -> None:
    failed = await failure(service.poses.DetectPoses(uri_request(uri), timeout=60))
    assert (failed.code, failed.reason) == (grpc.StatusCode[code], reason)


async def test_a_uri_of_an_allowed_host_is_fetched_and_others_are_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with running(uri_hosts=site.host, uri_private_addresses=True) as service:
        site.content = VGA
        call = service.poses.DetectPoses(uri_request(f"https://{site.host}/picture"), timeout=60)
        assert (await call).image_size.width == 640
        for uri, code, reason in (
            (f"https://{site.host}/nothing", "INVALID_ARGUMENT", "URI_NOT_FETCHED"),
            (f"http://{site.host}/picture", "INVALID_ARGUMENT", "URI_INVALID"),
            ("https://elsewhere.example/", "PERMISSION_DENIED", "URI_HOST_NOT_ALLOWED"),
            (f"https://{site.host}/empty", "INVALID_ARGUMENT", "IMAGE_UNDECODABLE"),
        ):
            failed = await failure(service.poses.DetectPoses(uri_request(uri), timeout=60))
            assert (failed.code, failed.reason) == (grpc.StatusCode[code], reason)


@LEFT_TO_THE_COLLECTOR
async def test_a_slow_host_ends_with_the_callers_deadline(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with running(uri_hosts=site.host, uri_private_addresses=True) as service:
        call = service.poses.DetectPoses(uri_request(f"https://{site.host}/silent"), timeout=0.3)
        assert (await failure(call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
    gc.collect()


# --- overlays -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_format", [PNG, JPEG], ids=["PNG", "JPEG"])
async def test_the_overlay_is_the_upright_picture_with_people_on_it(
    service: Service, media_format: Any
) -> None:
    service.triton.answer = TWO
    image = plain((640, 480), (90, 120, 150))
    answer = await service.detect(encoded(image, "PNG"), overlay={"format": media_format})
    drawn = picture_of(answer.overlay)
    assert drawn.shape == image.shape
    changed = np.abs(drawn.astype(int) - image).max(axis=2) > 40
    assert changed[50:350, 100:200].any()
    assert not changed[:, 250:390].any()
    assert boxes(answer) == [(100, 50, 200, 350), (400, 60, 480, 300)]


async def test_the_options_of_the_overlay_are_honoured(service: Service) -> None:
    service.triton.answer = TWO
    content = encoded(plain((640, 480)), "PNG")

    async def drawn(**options: Any) -> Rgb8:
        answer = await service.detect(content, overlay={"format": PNG, **options})
        return picture_of(answer.overlay)

    def covered(image: Rgb8) -> int:
        return int((image != plain((640, 480))).any(axis=2).sum())

    full = covered(await drawn())
    assert covered(await drawn(boxes=False)) < full
    assert covered(await drawn(labels=False)) < full
    assert covered(await drawn(line_width=20)) > full
    assert covered(await drawn(boxes=False, labels=False, min_keypoint_score=0.95)) == 0


async def test_the_quality_of_a_jpeg_overlay_is_honoured(service: Service) -> None:
    content = encoded(noise((320, 240)), "PNG")
    low, high = [
        len(
            (await service.detect(content, overlay={"format": JPEG, "jpeg_quality": quality})).overlay.content
        )
        for quality in (20, 95)
    ]
    assert low < high / 2


async def test_hiding_keypoints_in_the_answer_does_not_hide_them_in_the_overlay(service: Service) -> None:
    service.triton.answer = TWO
    options = {"format": PNG, "boxes": False, "labels": False}
    plain_answer = await service.detect(VGA, overlay=options)
    hiding = await service.detect(VGA, overlay=options, min_keypoint_score=0.99)
    assert hiding.overlay.content == plain_answer.overlay.content
    assert {point.score for point in hiding.persons[0].keypoints} == {0}


async def test_an_overlay_of_zero_persons_is_the_image_itself(service: Service) -> None:
    image = quartered((64, 48))
    answer = await service.detect(encoded(image, "PNG"), overlay={"format": PNG})
    np.testing.assert_array_equal(picture_of(answer.overlay), image)


async def test_no_more_decoded_pictures_are_kept_for_drawing_than_allowed() -> None:
    async with running(workers=1) as service:
        service.triton.gate.clear()
        calls = [asyncio.create_task(service.detect(VGA, overlay={"format": PNG})) for _ in range(7)]
        # Two for each worker thread, and two more, of which one is left for other callers.
        await until(lambda: service.triton.under_way == 3)
        without = asyncio.create_task(service.detect(VGA))
        await until(lambda: service.triton.under_way == 4)  # a call without an overlay does not wait
        await asyncio.sleep(0.05)
        assert service.triton.under_way == 4
        service.triton.gate.set()
        await asyncio.gather(*calls, without)


# --- load and cancellation ----------------------------------------------------------------------------


async def test_a_cancelled_call_whose_picture_waits_for_a_thread_is_never_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[int] = []
    decode_jpeg = simplejpeg.decode_jpeg

    def counting(*args: Any, **options: Any) -> Any:
        decoded.append(1)
        return decode_jpeg(*args, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counting)
    async with running(workers=1) as service:
        busy = BusyThread()
        occupied: Future[None] = service.workers.submit(busy)
        calls = [service.poses.DetectPoses(detect_request(VGA), timeout=30) for _ in range(3)]
        await until(lambda: service.workers._work_queue.qsize() == 3)
        with capture_logs() as lines:
            for call in calls[:2]:
                await cancelled(call)
            await until(lambda: [line.get("code") for line in lines].count("CANCELLED") == 2)
        busy.release()
        await calls[2]
        occupied.result(30)
        assert len(decoded) == 1
        assert len(service.triton.calls) == 1


@pytest.mark.parametrize(
    ("library", "work"), [(simplejpeg, "decode_jpeg"), (cv2, "resize"), (cv2, "line"), (cv2, "imencode")]
)
async def test_work_on_pixels_never_runs_on_the_event_loop(
    service: Service, library: Any, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    original = getattr(library, work)

    def spy(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return original(*args, **options)

    monkeypatch.setattr(library, work, spy)
    service.triton.answer = TWO
    await service.detect(jpeg((1280, 960)), overlay={"format": PNG})
    assert threads
    assert threading.current_thread() not in threads


async def test_sixteen_callers_get_their_own_people(service: Service) -> None:
    def whoever(image: Rgb8) -> Any:
        x = float(image[0, 0, 0])
        return rows(candidate((x, 0, x + 50, 50), 0.9))

    service.triton.answer = whoever
    shades = list(range(0, 160, 10))
    answers = await asyncio.gather(
        *(service.detect(encoded(plain((640, 480), (shade, 0, 0)), "PNG")) for shade in shades)
    )
    assert [answer.persons[0].box.x1 for answer in answers] == shades
