"""The whole-body composite on the real Triton: the right parts in the right places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.skeletons import shipped
from tests.e2e.test_detect_poses import request_for

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

pytestmark = pytest.mark.e2e

MODEL = "mediapipe_wholebody"
NAMES = shipped()["coco_wholebody_133"].names


def points_of(person: types_pb2.Person) -> NDArray[np.float64]:
    return np.array([[point.x, point.y, point.score] for point in person.keypoints])


def positions_of(person: types_pb2.Person) -> NDArray[np.float64]:
    return np.array([[place.x, place.y, place.z] for place in person.positions])


async def whole(stub: PoseServiceAsyncStub, picture: str) -> pb.DetectPosesResponse:
    request = request_for(picture, model=MODEL, skeleton="coco_wholebody_133", include_positions=True)
    return await stub.DetectPoses(request, timeout=60)


async def test_the_body_is_near_that_of_the_first_stage_where_that_is_sure(
    stub: PoseServiceAsyncStub,
) -> None:
    for picture in ("single_person.jpg", "two_people.jpg", "astronaut.png"):
        first = await stub.DetectPoses(request_for(picture), timeout=60)
        answer = await whole(stub, picture)
        assert len(answer.persons) == len(first.persons)
        for mine, found in zip(answer.persons, first.persons, strict=True):
            body, first_body = points_of(mine)[:17], points_of(found)
            sure = first_body[:, 2] > 0.9
            away = np.linalg.norm(body[sure, :2] - first_body[sure, :2], axis=1)
            assert np.median(away) < 0.03 * (found.box.y2 - found.box.y1)


async def test_faces_are_entries_of_their_own_and_only_people_with_a_face_have_one(
    stub: PoseServiceAsyncStub,
) -> None:
    request = request_for("two_people.jpg", model=MODEL, skeleton="mediapipe_face_mesh_468")
    whole_body = await whole(stub, "two_people.jpg")  # hidden, from behind, and masked
    (masked,) = (await stub.DetectPoses(request, timeout=60)).persons
    (its,) = (i for i, person in enumerate(whole_body.persons) if person.keypoints[23].score > 0)
    assert masked.person_index == its
    assert whole_body.persons[its].box.y2 - whole_body.persons[its].box.y1 < 600  # she stands far behind
    request = request_for("astronaut.png", model=MODEL, skeleton="mediapipe_face_mesh_468")
    (face,) = (await stub.DetectPoses(request, timeout=60)).persons
    assert (face.person_index, face.side) == (0, types_pb2.SIDE_UNSPECIFIED)
    points = points_of(face)
    assert (points[:, 2] > 0.5).all()
    assert face.box.x2 - face.box.x1 == pytest.approx(np.ptp(points[:, 0]), abs=0.01)


HANDS = {
    "acrobat": ((653, 950), (682, 404)),
    "woman": ((508, 1100), (988, 965)),
    "onlooker": ((60, 380), None),
}
"""Where the left and the right hands in two_people.jpg are, px; the onlooker's right one is hidden."""


async def test_no_hand_is_given_where_none_is(stub: PoseServiceAsyncStub) -> None:
    """The acrobat's left arm hangs where the bodies of some CPUs' arithmetic do not have it: the hand network
    once took the chest for a hand."""
    answer = await whole(stub, "two_people.jpg")
    by_box = sorted(answer.persons, key=lambda one: one.box.x1)
    people = dict(zip(("onlooker", "acrobat", "woman"), map(points_of, by_box), strict=True))
    for name, points in people.items():
        for rows, place in zip((slice(91, 112), slice(112, 133)), HANDS[name], strict=True):
            if points[rows, 2].any():
                assert place is not None
                assert np.linalg.norm(points[rows, :2].mean(axis=0) - place) < 35, (name, rows)
    assert people["acrobat"][112:133, 2].all()
    assert people["woman"][91:112, 2].all()


async def test_hands_are_at_their_wrists_and_feet_at_their_ankles(stub: PoseServiceAsyncStub) -> None:
    acrobat = points_of((await whole(stub, "single_person.jpg")).persons[0])
    at = {name: acrobat[index] for index, name in enumerate(NAMES)}
    for side in ("left", "right"):
        hand = [index for index, name in enumerate(NAMES) if name.startswith(f"{side}_hand")]
        assert acrobat[hand, 2].min() > 0.5
        near = np.linalg.norm(acrobat[hand, :2].mean(axis=0) - at[f"{side}_wrist"][:2])
        other = "right" if side == "left" else "left"
        assert near < np.linalg.norm(acrobat[hand, :2].mean(axis=0) - at[f"{other}_wrist"][:2])
        assert at[f"{side}_heel"][2] > 0
        assert np.linalg.norm(at[f"{side}_heel"][:2] - at[f"{side}_ankle"][:2]) < 150
        assert at[f"{side}_small_toe"][2] == 0


async def test_the_face_is_upright_and_the_left_side_is_left_in_space(stub: PoseServiceAsyncStub) -> None:
    (person,) = (await whole(stub, "astronaut.png")).persons
    points, places = points_of(person), positions_of(person)
    face = points[23:91]
    assert (face[:, 2] > 0.5).all()
    chin, brows = face[8, 1], face[17:27, 1].mean()
    assert brows < face[36:48, 1].mean() < face[30, 1] < face[48:68, 1].mean() < chin
    assert person.depth_source == types_pb2.DEPTH_SOURCE_MEASURED
    left, right = places[NAMES.index("left_shoulder")], places[NAMES.index("right_shoulder")]
    # She faces the camera: her own left is right in the picture, and in space.
    assert left[0] > right[0] + 0.2
    nose, ears = places[NAMES.index("nose")], places[[NAMES.index("left_ear"), NAMES.index("right_ear")]]
    assert nose[2] < ears[:, 2].mean()  # the nose is nearer to the camera


@pytest.mark.parametrize(
    ("skeleton", "count"),
    [("mediapipe_hand_21", 21), ("mediapipe_face_mesh_468", 468), ("blazepose_33", 33), ("coco_17", 17)],
)
async def test_its_parts_can_be_asked_for(stub: PoseServiceAsyncStub, skeleton: str, count: int) -> None:
    request = request_for("single_person.jpg", model=MODEL, skeleton=skeleton, max_persons=1)
    answer = await stub.DetectPoses(request, timeout=60)
    assert answer.skeleton == skeleton
    assert all(len(person.keypoints) == count for person in answer.persons)
    if skeleton == "mediapipe_hand_21":
        assert {person.side for person in answer.persons} == {types_pb2.SIDE_LEFT, types_pb2.SIDE_RIGHT}


async def test_the_licence_of_the_composite_is_told(stub: PoseServiceAsyncStub) -> None:
    listed = await stub.ListModels(pb.ListModelsRequest(), timeout=60)
    composite = next(model for model in listed.models if model.name == MODEL)
    assert (composite.licence, composite.family, composite.positions) == ("Apache-2.0", "top_down", True)
