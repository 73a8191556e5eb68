"""Joint angles of real images by real weights: a mirror image has the mirrored angles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.angles import MEASUREMENTS
from tests.e2e.conftest import DATA

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

pytestmark = pytest.mark.e2e

PICTURES = ("two_standing.jpg", "two_people.jpg", "single_person.jpg")


async def measured(stub: PoseServiceAsyncStub, content: bytes) -> list[pb.PersonAngles]:
    request = pb.MeasureAnglesRequest(
        image=types_pb2.Image(content=content),
        measurements=[name for name, one in MEASUREMENTS.items() if not one.extension],
        side=types_pb2.SIDE_BOTH,
        person=pb.PersonSelection(choice=pb.PERSON_CHOICE_ALL),
        min_score=0.5,
    )
    answer = await stub.MeasureAngles(request, timeout=60)
    return list(answer.persons)


def ok(value: pb.AngleValue) -> bool:
    return bool(value.status == pb.ANGLE_STATUS_OK)


async def test_a_mirror_image_has_the_mirrored_angles_within_their_errors(stub: PoseServiceAsyncStub) -> None:
    """Two draws: two thirds lie within one standard error of the difference, as with any noise."""
    differences = []
    for picture in PICTURES:
        content = (DATA / picture).read_bytes()
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        width = pixels.shape[1]
        flipped = cv2.imencode(".png", pixels[:, ::-1])[1].tobytes()
        plain, mirrored = await measured(stub, content), await measured(stub, flipped)
        for person in plain:
            middle = (person.person.box.x1 + person.person.box.x2) / 2
            away = [abs(width - (one.person.box.x1 + one.person.box.x2) / 2 - middle) for one in mirrored]
            other = mirrored[int(np.argmin(away))]
            if min(away) > 0.1 * width:
                continue
            for one, its in zip(person.measurements, other.measurements, strict=True):
                for a, b in ((one.left, its.right), (one.right, its.left)):
                    if ok(a) and ok(b):
                        apart = abs((a.degrees - b.degrees + 180) % 360 - 180)
                        differences.append(apart / np.hypot(a.std_error_deg, b.std_error_deg))
    assert len(differences) >= 30
    assert np.median(differences) <= 1
    assert np.mean(np.array(differences) <= 1) >= 0.6
    assert np.mean(np.array(differences) <= 2) >= 0.85
