"""Skeletons as data: any data at all is either read or refused with every problem."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.skeleton.template import Edge, Instance, Keypoint, Skeleton
from service.core.skeleton.validation import skeleton_problems
from service.errors import InvalidRequest
from service.skeletons.format import dump, load, parse_skeleton, skeleton_data

GOOD: dict[str, Any] = {
    "name": "upper_body",
    "title": "Upper body with a neck",
    "keypoints": [
        "left_shoulder",
        {"name": "right_shoulder", "color": "#00beFF", "sigma": 0.079, "optional": True},
        {"name": "neck", "sources": ["left_shoulder_", {"name": "right_shoulder_", "weight": 2}]},
    ],
    "edges": [
        ["left_shoulder", "neck"],
        {"start": "neck", "end": "right_shoulder", "color": "#FFFFFF", "drawing_only": True},
    ],
    "flip_pairs": [["left_shoulder", "right_shoulder"]],
}


def violations(data: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        parse_skeleton(data)
    return [violation.field for violation in caught.value.violations]


def test_everything_is_read() -> None:
    skeleton = parse_skeleton(GOOD | {"instances": [{"side": "right", "names": {"neck": "throat"}}]})

    assert skeleton == Skeleton(
        name="upper_body",
        title="Upper body with a neck",
        keypoints=(
            Keypoint("left_shoulder"),
            Keypoint("right_shoulder", sigma=0.079, color=(0, 190, 255), optional=True),
            Keypoint("neck", sources=(("left_shoulder_", 1.0), ("right_shoulder_", 2.0))),
        ),
        edges=(
            Edge("left_shoulder", "neck"),
            Edge("neck", "right_shoulder", color=(255, 255, 255), drawing_only=True),
        ),
        flip_pairs=(("left_shoulder", "right_shoulder"),),
        instances=(Instance("right", (("neck", "throat"),)),),
    )


def test_what_is_written_is_read_back() -> None:
    skeleton = parse_skeleton(GOOD | {"instances": [{"side": "right", "names": {"neck": "throat"}}]})

    assert parse_skeleton(json.loads(json.dumps(skeleton_data(skeleton)))) == skeleton


def test_a_text_that_was_dumped_is_loaded() -> None:
    skeleton = parse_skeleton(GOOD)

    assert load(dump(skeleton)) == skeleton
    with pytest.raises(ValueError, match="Expecting"):
        load("{")
    with pytest.raises(InvalidRequest):
        load("[]")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            [],
            {
                "": "must be an object, not a list",
                "name": "must have 1 to 128 characters, not 0",
                "keypoints": "must be 1 to 1000, not 0",
            },
        ),
        (
            GOOD | {"nodes": [], "name": 7, "title": "\ud800"},
            {
                "name": "must be text, not a number",
                "title": "must have no control characters",
                "nodes": "is unknown; known are name, title, keypoints, edges, flip_pairs, instances, etag, "
                "shipped, create_time, update_time",
            },
        ),
        (
            GOOD | {"keypoints": ["neck", {"sigma": "big", "flag": 1, "color": "red"}, None], "edges": {}},
            {
                "keypoints[1].sigma": "must be a number, not text",
                "keypoints[1].flag": "is unknown; known are name, color, sigma, optional, sources",
                "keypoints[1].color": "must be #RRGGBB, not 'red'",
                "keypoints[1].name": "must have 1 to 128 characters, not 0",
                "keypoints[2]": "must be an object, not nothing",
                "edges": "must be a list, not an object",
                "flip_pairs[0].left": "must be a keypoint of the skeleton; there is no 'left_shoulder'",
                "flip_pairs[0].right": "must be a keypoint of the skeleton; there is no 'right_shoulder'",
            },
        ),
        (
            GOOD | {"flip_pairs": [["a", "b", "c"]], "instances": [{"names": {"neck": 1, "nose": None}}]},
            {
                "flip_pairs[0]": "must be two names, not 3",
                "instances[0].names": "must be an object of names",
            },
        ),
    ],
    ids=["no object", "fields", "keypoints", "pairs and names"],
)
def test_every_problem_is_told_at_once_with_its_path(data: Any, told: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_skeleton(data)

    assert {problem.field: problem.description for problem in caught.value.violations} == told
    assert len(caught.value.violations) == len(told)


def test_an_instance_without_a_side_is_the_whole_person() -> None:
    data = GOOD | {"instances": [{"names": {"neck": "throat"}}]}

    skeleton = parse_skeleton(data)

    assert skeleton.instances == (Instance(None, (("neck", "throat"),)),)
    assert skeleton_data(skeleton)["instances"] == data["instances"]


def test_only_a_name_and_a_point_are_needed() -> None:
    assert parse_skeleton({"name": "dot", "keypoints": ["x"]}) == Skeleton("dot", "dot", (Keypoint("x"),))


def test_the_message_as_json_is_read_too() -> None:
    """What `posegate skeletons show` prints can be given to `posegate skeletons create`."""
    message = GOOD | {
        "edges": [{"start": "left_shoulder", "end": "neck", "color": ""}],
        "flip_pairs": [{"left": "left_shoulder", "right": "right_shoulder"}],
        "etag": "abc",
        "shipped": False,
        "create_time": "2026-01-01T00:00:00Z",
        "update_time": None,
    }

    assert parse_skeleton(message).flip_pairs == (("left_shoulder", "right_shoulder"),)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": 7}, ["name"]),
        ({"title": ["a"]}, ["title"]),
        ({"keypoints": "nose"}, ["keypoints"]),
        ({"keypoints": None}, ["keypoints"]),
        ({"edges": {}}, ["edges"]),
        ({"nodes": []}, ["nodes"]),
        ({"keypoints": [*GOOD["keypoints"], 3]}, ["keypoints[3]"]),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "sigma": "big"}]}, ["keypoints[3].sigma"]),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "sigma": True}]}, ["keypoints[3].sigma"]),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "sigma": 10**400}]}, ["keypoints[3].sigma"]),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "color": "red"}]}, ["keypoints[3].color"]),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "color": "#12345"}]}, ["keypoints[3].color"]),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "optional": 1}]}, ["keypoints[3].optional"]),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "sources": "y"}]}, ["keypoints[3].sources"]),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "sources": [1]}]}, ["keypoints[3].sources[0]"]),
        (
            {"keypoints": [*GOOD["keypoints"], {"name": "x", "sources": [{"name": "y", "weight": "z"}]}]},
            ["keypoints[3].sources[0].weight"],
        ),
        ({"keypoints": [*GOOD["keypoints"], {"name": "x", "flag": 1}]}, ["keypoints[3].flag"]),
        ({"keypoints": [*GOOD["keypoints"], {}]}, ["keypoints[3].name"]),
        ({"edges": [["neck"]]}, ["edges[0]"]),
        ({"edges": [["neck", 1]]}, ["edges[0].end"]),
        ({"edges": [{"start": "neck", "end": "left_shoulder", "color": 1}]}, ["edges[0].color"]),
        ({"edges": [{"start": "neck", "end": "left_shoulder", "width": 1}]}, ["edges[0].width"]),
        ({"flip_pairs": [["a", "b", "c"]]}, ["flip_pairs[0]"]),
        ({"instances": [{"side": "left", "names": ["neck"]}]}, ["instances[0].names"]),
        ({"instances": [{"side": "up", "names": {}}]}, ["instances[0].side"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_told_once_with_its_place(change: dict[str, Any], expected: list[str]) -> None:
    assert violations(GOOD | change) == expected


@pytest.mark.parametrize("data", [None, [], "skeleton", 3])
def test_what_is_no_object_is_refused(data: Any) -> None:
    assert "" in violations(data)


def test_wrong_types_and_wrong_values_are_told_together() -> None:
    data = {
        "name": "",
        "keypoints": ["a", "a", {"name": 1}, {"name": "b", "sigma": []}],
        "edges": [["a", "nowhere"], 5],
        "flip_pairs": [["a", "b"], ["b", "c"]],
    }

    assert set(violations(data)) == {
        "name",
        "keypoints[1].name",
        "keypoints[2].name",
        "keypoints[3].sigma",
        "edges[0].end",
        "edges[1]",
        "flip_pairs[1].left",
        "flip_pairs[1].right",
    }


def test_ten_thousand_points_are_told_in_one_line() -> None:
    assert violations({"name": "big", "keypoints": ["p"] * 10_000}) == ["keypoints"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "keypoints", "edges", "flip_pairs", "instances", "sources", "weight", "sigma",
                 "color", "optional", "start", "end", "left", "right", "side", "names", "other"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)  # fmt: skip


@given(anything)
def test_any_data_is_read_or_refused(data: Any) -> None:
    try:
        skeleton = parse_skeleton(data)
    except InvalidRequest:
        return
    assert skeleton_problems(skeleton) == []
    assert parse_skeleton(skeleton_data(skeleton)) == skeleton


names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=12)


@st.composite
def skeletons(draw: st.DrawFn) -> Skeleton:
    """A skeleton that is fine."""
    chosen = draw(st.lists(names, min_size=1, max_size=8, unique_by=lambda name: name.casefold()))
    points = tuple(
        Keypoint(
            name,
            sigma=draw(st.none() | st.floats(1e-6, 1.0)),
            color=draw(st.none() | st.tuples(*[st.integers(0, 255)] * 3)),
            optional=draw(st.booleans()),
        )
        for name in chosen
    )
    point = st.sampled_from(chosen)
    edges = draw(st.lists(st.tuples(point, point).filter(lambda pair: pair[0] != pair[1]), max_size=6))
    half = len(chosen) // 2
    return Skeleton(
        name=draw(names),
        title=draw(names),
        keypoints=points,
        edges=tuple(Edge(*pair) for pair in edges) if len(chosen) > 1 else (),
        flip_pairs=tuple(zip(chosen[:half], chosen[half : 2 * half], strict=True)),
    )


@given(st.data())
def test_any_good_skeleton_survives_being_written_and_read(data: st.DataObject) -> None:
    skeleton = data.draw(skeletons().filter(lambda one: skeleton_problems(one) == []))

    kept = parse_skeleton(json.loads(json.dumps(skeleton_data(skeleton))))

    assert kept.keypoints == tuple(
        replace(point, name=name) for point, name in zip(skeleton.keypoints, kept.names, strict=True)
    )
    assert parse_skeleton(skeleton_data(kept)) == kept
