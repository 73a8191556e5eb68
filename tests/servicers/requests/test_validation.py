"""What a request may hold, and that everything wrong with it is said at once."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.drawing.poses import OverlayStyle
from service.errors import InvalidRequest
from service.pipeline.estimator import DetectionOptions
from service.pipeline.overlay import OverlayConfig
from service.servicers.requests.validation import (
    Detection,
    Violations,
    read_detection,
    read_page,
)

PICTURE = types_pb2.Image(content=b"x")
PNG, JPEG = types_pb2.OVERLAY_FORMAT_PNG, types_pb2.OVERLAY_FORMAT_JPEG


def read(*, limit: int = 300, **changes: Any) -> Detection:
    return read_detection(pb.DetectPosesRequest(**{"image": PICTURE, **changes}), max_persons=limit)


def violations(**changes: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        read(**changes)
    assert refused.value.reason == "INVALID_REQUEST"
    found = {item.field: item.description for item in refused.value.violations}
    for field, description in found.items():
        assert f"{field} {description}" in refused.value.message
    return found


def test_a_request_with_nothing_but_a_picture_has_the_defaults_of_the_contract() -> None:
    assert read() == Detection(
        options=DetectionOptions(min_score=0.25, iou_threshold=0.7, max_persons=300, region_xyxy=None),
        min_keypoint_score=0.0,
        overlay=None,
    )


def test_an_empty_request_lacks_its_picture() -> None:
    assert list(violations(image=None)) == ["image"]
    assert list(violations(image=types_pb2.Image())) == ["image"]


@pytest.mark.parametrize(
    "image", [types_pb2.Image(content=b""), types_pb2.Image(uri="")], ids=["no bytes", "no URI"]
)
def test_an_empty_source_is_for_others_to_refuse(image: types_pb2.Image) -> None:
    read(image=image)


def test_the_default_number_of_people_is_the_limit_where_that_is_lower() -> None:
    assert read(limit=7).options.max_persons == 7
    assert read(limit=900).options.max_persons == 300


@pytest.mark.parametrize(
    ("changes", "attribute", "expected"),
    [
        ({"min_score": 0.0}, "min_score", 0.0),
        ({"min_score": 1.0}, "min_score", 1.0),
        ({"iou_threshold": 0.0}, "iou_threshold", 0.0),
        ({"iou_threshold": 1.0}, "iou_threshold", 1.0),
        ({"max_persons": 1}, "max_persons", 1),
        ({"max_persons": 300}, "max_persons", 300),
        ({"region_of_interest": types_pb2.Box(x1=-5, y1=1, x2=9, y2=2)}, "region_xyxy", (-5, 1, 9, 2)),
    ],
    ids=lambda value: "-".join(f"{k}" for k in value) if isinstance(value, dict) else "",
)
def test_the_ends_of_every_range_are_allowed(changes: dict[str, Any], attribute: str, expected: Any) -> None:
    assert getattr(read(**changes).options, attribute) == expected


@pytest.mark.parametrize(
    ("changes", "field", "description"),
    [
        ({"min_score": -0.1}, "min_score", "must be from 0 to 1, not -0.1"),
        ({"min_score": 1.1}, "min_score", "must be from 0 to 1, not 1.1"),
        ({"min_score": math.nan}, "min_score", "must be from 0 to 1, not nan"),
        ({"min_score": math.inf}, "min_score", "must be from 0 to 1, not inf"),
        ({"iou_threshold": -1}, "iou_threshold", "must be from 0 to 1, not -1"),
        ({"iou_threshold": 2}, "iou_threshold", "must be from 0 to 1, not 2"),
        ({"iou_threshold": math.nan}, "iou_threshold", "must be from 0 to 1, not nan"),
        ({"max_persons": 0}, "max_persons", "must be from 1 to 300, not 0"),
        ({"max_persons": -1}, "max_persons", "must be from 1 to 300, not -1"),
        ({"max_persons": 301}, "max_persons", "must be from 1 to 300, not 301"),
        ({"max_persons": 2**31 - 1}, "max_persons", "must be from 1 to 300, not 2147483647"),
        ({"min_keypoint_score": -0.5}, "min_keypoint_score", "must be 0 or more, not -0.5"),
        ({"min_keypoint_score": math.nan}, "min_keypoint_score", "must be 0 or more, not nan"),
        ({"min_keypoint_score": math.inf}, "min_keypoint_score", "must be 0 or more, not inf"),
        ({"region_of_interest": types_pb2.Box()}, "region_of_interest", "must have x1 < x2 and y1 < y2"),
        ({"region_of_interest": types_pb2.Box(x1=5, x2=5, y2=1)}, "region_of_interest",
         "must have x1 < x2 and y1 < y2"),
        ({"region_of_interest": types_pb2.Box(x2=1, y1=9, y2=1)}, "region_of_interest",
         "must have x1 < x2 and y1 < y2"),
        ({"region_of_interest": types_pb2.Box(x1=math.nan, x2=1, y2=1)}, "region_of_interest",
         "must have finite corners"),
        ({"region_of_interest": types_pb2.Box(x2=math.inf, y2=1)}, "region_of_interest",
         "must have finite corners"),
        ({"overlay": {"format": 77}}, "overlay.format", "must be PNG or JPEG, not 77"),
        ({"overlay": {"format": PNG, "line_width": -1}}, "overlay.line_width",
         "must be from 0 to 32, not -1"),
        ({"overlay": {"format": PNG, "line_width": 33}}, "overlay.line_width",
         "must be from 0 to 32, not 33"),
        ({"overlay": {"format": JPEG, "jpeg_quality": 0}}, "overlay.jpeg_quality",
         "must be from 1 to 100, not 0"),
        ({"overlay": {"format": JPEG, "jpeg_quality": 101}}, "overlay.jpeg_quality",
         "must be from 1 to 100, not 101"),
        ({"overlay": {"format": PNG, "min_keypoint_score": -1}}, "overlay.min_keypoint_score",
         "must be 0 or more, not -1"),
        ({"overlay": {"format": PNG, "min_keypoint_score": math.nan}}, "overlay.min_keypoint_score",
         "must be 0 or more, not nan"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.islower() and " " not in value else "",
)  # fmt: skip
def test_what_is_out_of_range_is_refused_with_what_would_be_right(
    changes: dict[str, Any], field: str, description: str
) -> None:
    assert violations(**changes) == {field: description}


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = violations(
        image=None,
        min_score=-1,
        iou_threshold=math.nan,
        max_persons=0,
        min_keypoint_score=-1,
        region_of_interest=types_pb2.Box(),
        overlay={"format": 9, "line_width": 99, "jpeg_quality": 0, "min_keypoint_score": -1},
    )
    assert set(found) == {
        "image", "min_score", "iou_threshold", "max_persons", "min_keypoint_score", "region_of_interest",
        "overlay.format", "overlay.line_width", "overlay.jpeg_quality", "overlay.min_keypoint_score",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({}, None),
        ({"format": PNG}, OverlayConfig("png", 90, OverlayStyle())),
        ({"format": JPEG, "jpeg_quality": 1}, OverlayConfig("jpeg", 1, OverlayStyle())),
        (
            {"format": PNG, "line_width": 32, "boxes": False, "labels": False, "min_keypoint_score": 0.5},
            OverlayConfig("png", 90, OverlayStyle(32, boxes=False, labels=False, min_keypoint_score=0.5)),
        ),
        (
            {"format": PNG, "line_width": 0, "boxes": True, "labels": True, "min_keypoint_score": 0},
            OverlayConfig("png", 90, OverlayStyle()),
        ),
    ],
    ids=["none", "PNG", "JPEG", "everything", "defaults spelt out"],
)
def test_overlay_options_have_the_defaults_of_the_contract(
    overlay: dict[str, Any], expected: OverlayConfig | None
) -> None:
    assert read(overlay=overlay).overlay == expected


@pytest.mark.parametrize(
    ("overlay", "field"),
    [
        ({"labels": False}, "overlay.format"),
        ({"boxes": True}, "overlay.format"),
        ({"line_width": 0}, "overlay.format"),
        ({"jpeg_quality": 90}, "overlay.format"),
        ({"min_keypoint_score": 0}, "overlay.format"),
        ({"space_panel": True}, "overlay.format"),
        ({"format": PNG, "jpeg_quality": 90}, "overlay.jpeg_quality"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_overlay_options_that_can_be_of_no_effect_are_refused(overlay: dict[str, Any], field: str) -> None:
    assert list(violations(overlay=overlay)) == [field]


@given(
    st.builds(
        lambda **fields: {name: value for name, value in fields.items() if value is not None},
        min_score=st.none() | st.floats(width=32),
        iou_threshold=st.none() | st.floats(width=32),
        max_persons=st.none() | st.integers(-(2**31), 2**31 - 1),
        min_keypoint_score=st.none() | st.floats(width=32),
        region_of_interest=st.none()
        | st.builds(types_pb2.Box, *[], x1=st.floats(width=32), y1=st.floats(width=32),
                    x2=st.floats(width=32), y2=st.floats(width=32)),
        overlay=st.none()
        | st.builds(types_pb2.OverlayOptions, format=st.integers(0, 9), line_width=st.integers(-9, 99),
                    jpeg_quality=st.integers(-9, 199), min_keypoint_score=st.floats(width=32)),
    )
)  # fmt: skip
def test_whatever_comes_is_read_or_refused_and_what_is_read_is_in_range(changes: dict[str, Any]) -> None:
    try:
        wanted = read(**changes)
    except InvalidRequest as refused:
        assert refused.violations  # noqa: PT017 - what is not refused is looked at below
        return
    assert 0 <= wanted.options.min_score <= 1
    assert 0 <= wanted.options.iou_threshold <= 1
    assert 1 <= wanted.options.max_persons <= 300
    assert 0 <= wanted.min_keypoint_score < math.inf
    if wanted.options.region_xyxy is not None:
        x1, y1, x2, y2 = wanted.options.region_xyxy
        assert x1 < x2
        assert y1 < y2
    if wanted.overlay is not None:
        assert 0 <= wanted.overlay.style.line_width <= 32
        assert 1 <= wanted.overlay.jpeg_quality <= 100


@pytest.mark.parametrize(
    ("size", "token", "expected"),
    [
        (0, "", (0, 50)),
        (1, "", (0, 1)),
        (1000, "7", (7, 1000)),
        (1001, "", (0, 1000)),
        (2**31 - 1, "999999999", (999_999_999, 1000)),
    ],
)
def test_a_page_has_its_default_and_its_largest_size(
    size: int, token: str, expected: tuple[int, int]
) -> None:
    found = Violations()
    assert read_page(found, size, token) == expected
    found.raise_any()


@pytest.mark.parametrize(
    ("size", "token", "fields"),
    [
        (-1, "", ["page_size"]),
        (0, "-1", ["page_token"]),
        (0, "next", ["page_token"]),
        (0, " 1", ["page_token"]),
        (0, "1.0", ["page_token"]),
        (0, "٣", ["page_token"]),
        (0, "²", ["page_token"]),
        (0, "9" * 10, ["page_token"]),
        (-5, "x" * 10_000, ["page_size", "page_token"]),
    ],
)
def test_a_page_that_was_never_given_is_refused(size: int, token: str, fields: list[str]) -> None:
    found = Violations()
    read_page(found, size, token)
    with pytest.raises(InvalidRequest) as refused:
        found.raise_any()
    assert [item.field for item in refused.value.violations] == fields
    assert len(refused.value.message) < 300


def test_violations_stand_under_their_path() -> None:
    found = Violations("requests[3].")
    found.number("min_score", 7, 0, 1)
    with pytest.raises(InvalidRequest) as refused:
        found.raise_any()
    assert refused.value.violations[0].field == "requests[3].min_score"
