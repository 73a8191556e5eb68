"""Every problem of a skeleton is told, each with its place, all at once."""

from dataclasses import replace
from typing import Any

import pytest

from service.core.skeleton.template import Edge, Instance, Keypoint, Skeleton
from service.core.skeleton.validation import checked, nfc, shown, skeleton_problems
from service.errors import InvalidRequest

NFD = "e\u0301paule"  # e and an accent, two code points
NFC = "\u00e9paule"

GOOD = Skeleton(
    name="good",
    title="Good",
    keypoints=(Keypoint("nose", 0.026), Keypoint("left_eye"), Keypoint("right_eye", color=(1, 2, 3))),
    edges=(Edge("nose", "left_eye"), Edge("nose", "right_eye", color=(255, 0, 0))),
    flip_pairs=(("left_eye", "right_eye"),),
)


def fields(skeleton: Skeleton) -> list[str]:
    return [problem.field for problem in skeleton_problems(skeleton)]


def with_point(**changes: Any) -> Skeleton:
    return replace(GOOD, keypoints=(replace(GOOD.keypoints[0], **changes), *GOOD.keypoints[1:]))


def test_nothing_is_wrong_with_a_good_one() -> None:
    assert skeleton_problems(GOOD) == []
    assert checked(GOOD) == GOOD


@pytest.mark.parametrize(
    "name",
    ["a", "x" * 128, "肩", "плечо", "كتف", "👁️‍🗨️", "a b", "'; DROP TABLE skeletons; --", "=1+1", "../etc", NFD],
    ids=ascii,
)
def test_names_may_be_of_any_script(name: str) -> None:
    points = (*GOOD.keypoints, Keypoint(name))

    assert skeleton_problems(replace(GOOD, name=name, keypoints=points)) == []


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "a\nb", "a\x00", "\x7f", "\u2028x", "\ud800", " a", "a ", "\u00a0a", "\t"],
    ids=ascii,
)
def test_bad_names_are_told_wherever_they_stand(name: str) -> None:
    assert fields(replace(GOOD, name=name)) != []
    assert set(fields(replace(GOOD, name=name))) == {"name"}
    assert "keypoints[3].name" in fields(replace(GOOD, keypoints=(*GOOD.keypoints, Keypoint(name))))
    assert "keypoints[0].sources[0].name" in fields(with_point(sources=((name, 1.0),)))


def test_the_length_of_a_name_is_that_of_its_nfc_form() -> None:
    assert skeleton_problems(replace(GOOD, name="e\u0301" * 128)) == []


@pytest.mark.parametrize(
    ("skeleton", "expected"),
    [
        (replace(GOOD, title="x" * 257), ["title"]),
        (replace(GOOD, title="two\nlines"), ["title"]),
        (replace(GOOD, keypoints=(), edges=(), flip_pairs=()), ["keypoints"]),
        (replace(GOOD, keypoints=(*GOOD.keypoints, Keypoint("nose"))), ["keypoints[3].name"]),
        (replace(GOOD, keypoints=(*GOOD.keypoints, Keypoint(NFC), Keypoint(NFD))), ["keypoints[4].name"]),
        (with_point(sigma=0.0), ["keypoints[0].sigma"]),
        (with_point(sigma=-0.1), ["keypoints[0].sigma"]),
        (with_point(sigma=1.01), ["keypoints[0].sigma"]),
        (with_point(sigma=float("nan")), ["keypoints[0].sigma"]),
        (with_point(color=(0, 0, 256)), ["keypoints[0].color"]),
        (with_point(color=(0, -1, 0)), ["keypoints[0].color"]),
        (with_point(sources=(("a", 0.0),)), ["keypoints[0].sources[0].weight"]),
        (with_point(sources=(("a", 1.0), ("b", float("nan")))), ["keypoints[0].sources[1].weight"]),
        (with_point(sources=(("a", float("inf")),)), ["keypoints[0].sources[0].weight"]),
        (with_point(sources=(("a", -1.0),)), ["keypoints[0].sources[0].weight"]),
        (with_point(sources=(("a", 1000.5),)), ["keypoints[0].sources[0].weight"]),
        (with_point(sources=(("a", 1.0), ("a", 2.0))), ["keypoints[0].sources[1].name"]),
        (with_point(sources=tuple((f"p{i}", 1.0) for i in range(17))), ["keypoints[0].sources"]),
        (with_point(sources=(("nose", 1.0),)), ["keypoints[0].sources[0].name"]),
        (replace(GOOD, edges=(Edge("nose", "tail"),)), ["edges[0].end"]),
        (replace(GOOD, edges=(Edge("", "tail"),)), ["edges[0].start", "edges[0].end"]),
        (replace(GOOD, edges=(Edge("nose", "nose"),)), ["edges[0].end"]),
        (replace(GOOD, edges=(Edge("nose", "left_eye", (300, 0, 0)),)), ["edges[0].color"]),
        (replace(GOOD, flip_pairs=(("left_eye", "tail"),)), ["flip_pairs[0].right"]),
        (replace(GOOD, flip_pairs=(("nose", "nose"),)), ["flip_pairs[0].right"]),
        (
            replace(GOOD, flip_pairs=(("left_eye", "right_eye"), ("nose", "left_eye"))),
            ["flip_pairs[1].right"],
        ),
        (
            replace(GOOD, flip_pairs=(("left_eye", "right_eye"), ("right_eye", "left_eye"))),
            ["flip_pairs[1].left", "flip_pairs[1].right"],
        ),
        (replace(GOOD, instances=(Instance("up"),)), ["instances[0].side"]),  # type: ignore[arg-type]
        (replace(GOOD, instances=(Instance("left", (("tail", "a"),)),)), ["instances[0].names"]),
        (replace(GOOD, instances=(Instance("left", (("nose", ""),)),)), ["instances[0].names"]),
        (replace(GOOD, instances=(Instance("left"),) * 17), ["instances"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_problem_has_its_place(skeleton: Skeleton, expected: list[str]) -> None:
    assert fields(skeleton) == expected


def test_derived_points_cannot_go_in_a_circle() -> None:
    """A source is a point of the model; a derived point of the same skeleton is none."""
    circle = replace(
        GOOD,
        keypoints=(
            *GOOD.keypoints,
            Keypoint("neck", sources=(("chest", 1.0), ("nose", 1.0))),
            Keypoint("chest", sources=(("neck", 1.0),)),
        ),
    )

    assert fields(circle) == ["keypoints[3].sources[0].name", "keypoints[4].sources[0].name"]
    assert "'chest' is itself derived" in skeleton_problems(circle)[0].description


def test_all_problems_are_told_at_once() -> None:
    bad = Skeleton(
        name="",
        title="x" * 300,
        keypoints=(Keypoint("a", sigma=2), Keypoint("a"), Keypoint("b", sources=(("b", 0),))),
        edges=(Edge("a", "a"), Edge("c", "d")),
        flip_pairs=(("a", "b"), ("b", "e")),
    )

    with pytest.raises(InvalidRequest) as caught:
        checked(bad)

    assert [violation.field for violation in caught.value.violations] == [
        "name",
        "title",
        "keypoints[0].sigma",
        "keypoints[2].sources[0].name",
        "keypoints[2].sources[0].weight",
        "keypoints[1].name",
        "edges[0].end",
        "edges[1].start",
        "edges[1].end",
        "flip_pairs[1].left",
        "flip_pairs[1].right",
    ]
    assert caught.value.reason == "SKELETON_INVALID"
    assert "and 6 more" in caught.value.message


@pytest.mark.parametrize(
    ("field", "limit"), [("keypoints", 1000), ("edges", 10_000), ("flip_pairs", 500), ("instances", 16)]
)
def test_lists_have_a_limit(field: str, limit: int) -> None:
    many = {
        "keypoints": tuple(Keypoint(f"p{index}") for index in range(limit + 1)),
        "edges": (Edge("nose", "left_eye"),) * (limit + 1),
        "flip_pairs": tuple((f"l{index}", f"r{index}") for index in range(limit + 1)),
        "instances": (Instance("left"),) * (limit + 1),
    }[field]
    bare = replace(GOOD, edges=(), flip_pairs=())

    problems = skeleton_problems(replace(bare, **{field: many}))  # type: ignore[arg-type]

    assert [problem.field for problem in problems] == [field]
    assert str(limit + 1) in problems[0].description


def test_ten_thousand_points_are_refused_in_one_line() -> None:
    points = tuple(Keypoint("same", sigma=-1) for _ in range(10_000))

    assert fields(replace(GOOD, keypoints=points)) == ["keypoints"]


def test_a_thousand_points_and_ten_thousand_edges_are_fine() -> None:
    points = tuple(Keypoint(f"p{index}") for index in range(1000))
    edges = tuple(Edge(f"p{index % 1000}", f"p{(index + 1) % 1000}") for index in range(10_000))
    pairs = tuple((f"p{index}", f"p{index + 500}") for index in range(500))

    assert skeleton_problems(replace(GOOD, keypoints=points, edges=edges, flip_pairs=pairs)) == []


def test_names_are_compared_and_kept_in_nfc() -> None:
    mixed = Skeleton(
        name=NFD,
        title="",
        keypoints=(Keypoint(NFD), Keypoint("b", sources=((NFD + "x", 1.0),))),
        edges=(Edge(NFC, "b"),),
        flip_pairs=((NFC, "b"),),
    )

    kept = checked(mixed)

    assert kept.name == kept.title == kept.keypoints[0].name == NFC
    assert kept.keypoints[1].sources == ((NFC + "x", 1.0),)
    assert kept.edges[0].start == kept.flip_pairs[0][0] == NFC
    assert checked(kept) == kept


def test_case_matters() -> None:
    assert skeleton_problems(replace(GOOD, keypoints=(*GOOD.keypoints, Keypoint("Nose")))) == []


def test_names_in_messages_are_short_and_printable() -> None:
    assert shown("nose") == "'nose'"
    assert shown("a\u202eb\n") == "'a\\u202eb\\u000a'"
    assert shown("x" * 1000) == f"'{'x' * 40}…'"
    assert nfc(NFD) == NFC
