"""Points in the wire format: the same messages as if each was made on its own."""

import numpy as np
import pytest

from posegate.v1 import types_pb2
from service.core.poses import Floats
from service.servicers.responses.points import wire_points

POINTS = np.array(
    [[[1.5, -2, 0.25], [0, 0, 0], [np.nan, np.inf, -0.0]], [[3e8, 1e-9, 1], [0, 7, 0], [5, 0, 0.5]]],
    np.float32,
)


@pytest.mark.parametrize(
    "points", [POINTS, POINTS[:0], POINTS[:, :0], POINTS[:, ::-1]], ids=["two", "nobody", "no points", "view"]
)
@pytest.mark.parametrize("name", ["keypoints", "positions"])
def test_points_are_the_messages_that_would_be_made_one_by_one(points: Floats, name: str) -> None:
    kind = types_pb2.Keypoint if name == "keypoints" else types_pb2.Position
    fields = [field.name for field in kind.DESCRIPTOR.fields]
    found = wire_points(types_pb2.Person.DESCRIPTOR.fields_by_name[name], points)
    assert len(found) == len(points)
    for content, expected in zip(found, points.tolist(), strict=True):
        person = types_pb2.Person(score=0.5)
        person.MergeFromString(content)
        made = types_pb2.Person(score=0.5)
        for values in expected:
            getattr(made, name).append(kind(**dict(zip(fields, values, strict=True))))
        assert person.SerializeToString() == made.SerializeToString()


@pytest.mark.parametrize("kind", [types_pb2.Keypoint, types_pb2.Position], ids=lambda kind: kind.__name__)
def test_a_point_is_three_floats_numbered_one_to_three(kind: type[types_pb2.Keypoint]) -> None:
    found = [(field.number, field.type == field.TYPE_FLOAT) for field in kind.DESCRIPTOR.fields]
    assert found == [(1, True), (2, True), (3, True)]
