"""Answers and overlays that would be too much are refused with the limit; the service stays well."""

import grpc

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import MEASUREMENTS
from tests.fakes import candidate, rows
from tests.pictures import encoded, jpeg, noise
from tests.running import Service, detect_request, failure, running

PEOPLE = rows(*(candidate((10.0 * k, 50, 10.0 * k + 8, 200), 0.9 - k / 100) for k in range(10)))


async def test_an_answer_that_does_not_fit_into_a_message_says_so() -> None:
    async with running(max_message_bytes=1 << 20) as service:
        overlay = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG)
        content = encoded(noise((800, 600)), "JPEG", quality=80)
        failed = await failure(
            service.poses.DetectPoses(detect_request(content, overlay=overlay), timeout=10)
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
    failed = await failure(service.poses.MeasureAngles(request, timeout=10))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_OVERLAYS")
    assert failed.metadata == {"limit": "64", "actual": "210"}
