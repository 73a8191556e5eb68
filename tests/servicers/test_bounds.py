"""Answers and overlays that would be too much are refused with the limit; the service stays well."""

from typing import Any

import grpc
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import MEASUREMENTS
from service.pipeline import angles
from service.pipeline.overlay import Overlay, encode_overlay
from tests.fakes import candidate, rows
from tests.pictures import encoded, jpeg, noise
from tests.running import Service, detect_request, failure, running

PEOPLE = rows(*(candidate((10.0 * k, 50, 10.0 * k + 8, 200), 0.9 - k / 100) for k in range(10)))


async def test_an_answer_that_does_not_fit_into_a_message_says_so() -> None:
    async with running(max_message_bytes=1 << 20) as service:
        overlay = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG)
        content = encoded(noise((800, 600)), "JPEG", quality=80)
        failed = await failure(
            service.poses.DetectPoses(detect_request(content, overlay=overlay), timeout=60)
        )
        assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
        assert failed.retry_s is None
        assert failed.metadata["limit_bytes"] == "1048576"
        assert int(failed.metadata["actual_bytes"]) > 1 << 20
        assert (await service.detect(content)).image_size.width == 800


async def test_too_many_overlays_are_refused_before_they_are_drawn(service: Service) -> None:
    service.triton.answer = PEOPLE
    request = pb.MeasureAnglesRequest(
        image=types_pb2.Image(content=jpeg((640, 480))),
        measurements=[",".join(MEASUREMENTS)],
        person=pb.PersonSelection(choice=pb.PERSON_CHOICE_ALL),
        overlay=types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_JPEG),
        overlay_mode=pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT,
    )
    failed = await failure(service.poses.MeasureAngles(request, timeout=60))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_OVERLAYS")
    assert failed.metadata == {"limit": "64", "actual": "210"}


async def test_a_batch_whose_answer_grows_too_large_is_given_up_before_the_rest_is_drawn() -> None:
    content = encoded(noise((700, 500)), "JPEG", quality=50)  # drawn, a megabyte
    item = detect_request(content, overlay={"format": types_pb2.OVERLAY_FORMAT_PNG})
    async with running(max_message_bytes=5 << 20, max_batch_size=16, max_inferences=1) as service:
        request = pb.BatchDetectPosesRequest(requests=[item] * 4)
        drawn = await service.poses.BatchDetectPoses(request, timeout=30)
        assert sum(one.HasField("response") for one in drawn.responses) == 4
    async with running(max_message_bytes=2 << 20, max_batch_size=16, max_inferences=1) as service:
        failed = await failure(service.poses.BatchDetectPoses(request, timeout=30))
        assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
        assert len(service.triton.calls) < 4


async def test_overlays_that_grow_too_large_are_given_up_at_the_first_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []

    def counted(*args: Any) -> Overlay:
        overlay = encode_overlay(*args)
        drawn.append(len(overlay.content))
        return overlay

    monkeypatch.setattr(angles, "encode_overlay", counted)
    content = encoded(noise((700, 500)), "JPEG", quality=50)
    request = pb.MeasureAnglesRequest(
        image=types_pb2.Image(content=content),
        measurements=["knee_flexion, shoulder_abduction, splits"],
        overlay=types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG),
        overlay_mode=pb.ANGLE_OVERLAY_MODE_PER_MEASUREMENT,
    )
    async with running(max_message_bytes=1_500_000) as service:
        service.triton.answer = rows(candidate((100, 50, 400, 450), 0.9))
        failed = await failure(service.poses.MeasureAngles(request, timeout=30))
        assert failed.reason == "ANSWER_TOO_LARGE"
        assert len(drawn) == 2
