from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.core.model import Model
from service.core.poses import Floats
from service.models.accuracy import Comparison, Sample, compare, load_samples, parts_of, shipped_samples
from service.models.checkpoint import read_checkpoint
from service.models.errors import EngineError
from service.models.runners import Images, OpenVinoRunner
from service.models.yolo_graph import build_graph
from service.skeletons import shipped

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / ".posegate" / "weights" / "yolo11n-pose.pt"
WHOLE_BODY = Model("w", "1", "top_down", "coco_wholebody_133", 133, ((384, 288),), max_batch_size=3)
YOLO = Model("y", "1", "yolo_pose", "coco_17", 17, ((640, 640), (384, 640)), max_batch_size=2)

Outputs = dict[str, Floats]
Change = Callable[[Outputs], None]


class WholeBody:
    """A made-up whole-body model: the same person in every crop, in place of a graph."""

    def __init__(self, change: Change | None = None) -> None:
        self.change = change
        self.batches: list[int] = []

    def run(self, images: Images) -> Mapping[str, Floats]:
        self.batches.append(len(images))
        rng = np.random.default_rng(1)
        points = rng.uniform((20, 20), (260, 360), (133, 2))
        points[91:112] = rng.uniform((40, 200), (90, 250), (21, 2))  # hands are small
        points[112:] = rng.uniform((200, 200), (250, 250), (21, 2))
        outputs = {
            "keypoints": np.repeat(points[None], len(images), 0).astype(np.float32),
            "scores": np.full((len(images), 133), 0.8, np.float32),
            "positions": np.full((len(images), 133, 3), np.nan, np.float32),
        }
        outputs["positions"][..., 2] = 0.5
        if self.change is not None:
            self.change(outputs)
        return outputs


def shift(points: slice, px: float) -> Change:
    def change(outputs: Outputs) -> None:
        outputs["keypoints"][:, points, 0] += px

    return change


def every(name: str, value: float) -> Change:
    def change(outputs: Outputs) -> None:
        outputs[name][...] = value

    return change


def whole_body(change: Change | None) -> Comparison:
    skeleton = shipped()["coco_wholebody_133"]
    return compare(WholeBody(), WholeBody(change), WHOLE_BODY, skeleton, shipped_samples())


def test_the_same_model_passes_in_every_part() -> None:
    compared = whole_body(None)
    assert compared.problems == ()
    assert {part: measured.points for part, measured in compared.parts.items()} == {
        "body": 4 * 17,
        "feet": 4 * 6,
        "face": 4 * 68,
        "hands": 4 * 42,
        "depth": 4 * 133,
    }
    assert all(measured.p95 == 0 for measured in compared.parts.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shift(slice(0, 17), 20), ["body: keypoints are off by"]),
        (shift(slice(17, 23), 20), ["feet: "]),
        (shift(slice(23, 91), 20), ["face: "]),
        (shift(slice(96, 99), 6), ["hands: "]),  # one bent finger of 42 points
        (every("keypoints", np.nan), ["body: ", "feet: ", "face: ", "hands: "]),
        (every("positions", 0.8), ["depth: "]),
        (every("positions", np.nan), ["depth: "]),
        (every("scores", 0.5), ["keypoint scores are off by"]),
        (every("scores", np.nan), ["keypoint scores are off by"]),
    ],
    ids=["body", "feet", "face", "a finger", "nan", "depth", "no depth", "scores", "nan scores"],
)
def test_what_is_degraded_is_found_in_its_part(change: Change, said: list[str]) -> None:
    problems = whole_body(change).problems
    assert len(problems) == len(said)
    for problem, words in zip(problems, said, strict=True):
        assert problem.startswith(words)


@pytest.mark.parametrize("px", [0.05, 0.3])
def test_rounding_passes(px: float) -> None:
    assert whole_body(shift(slice(None), px)).problems == ()


def test_a_part_that_no_picture_shows_is_not_taken_for_good() -> None:
    def no_hands(outputs: Outputs) -> None:
        outputs["scores"][:, 91:] = 0.1

    skeleton = shipped()["coco_wholebody_133"]
    samples = shipped_samples()
    compared = compare(WholeBody(no_hands), WholeBody(no_hands), WHOLE_BODY, skeleton, samples)
    assert compared.problems == ("the images show no hands; add some that do, with --samples",)


def test_crops_go_in_batches_that_the_plan_takes() -> None:
    plan = WholeBody()
    compare(WholeBody(), plan, WHOLE_BODY, shipped()["coco_wholebody_133"], shipped_samples())
    assert plan.batches == [3, 1]


def test_a_plan_with_other_outputs_is_an_error() -> None:
    def cut(outputs: Outputs) -> None:
        outputs["keypoints"] = outputs["keypoints"][:, :17]

    with pytest.raises(EngineError, match=r"gives 'keypoints' as \(3, 17, 2\), its graph as \(3, 133, 2\)"):
        whole_body(cut)


def test_without_pictures_nothing_is_compared() -> None:
    with pytest.raises(EngineError, match="no images"):
        compare(WholeBody(), WholeBody(), WHOLE_BODY, shipped()["coco_wholebody_133"], [])


class Degraded:
    """A model whose output is changed: what a plan in a bad precision would give."""

    def __init__(self, change: Change) -> None:
        self.change = change

    def run(self, images: Images) -> Mapping[str, Floats]:
        outputs = {name: values.copy() for name, values in official("fp32").run(images).items()}
        self.change(outputs)
        return outputs


@cache
def official(precision: Any) -> OpenVinoRunner:
    if not WEIGHTS.is_file():
        pytest.skip("no weights: run scripts/setup")
    return OpenVinoRunner(build_graph(read_checkpoint(WEIGHTS), precision).SerializeToString())


def yolo(plan: Any) -> Comparison:
    return compare(official("fp32"), plan, YOLO, shipped()["coco_17"], shipped_samples())


def test_the_official_model_in_fp16_passes() -> None:
    compared = yolo(official("fp16"))
    assert compared.problems == ()
    assert compared.parts["body"].points > 50
    assert compared.parts["body"].p95 < 0.002


def lose_people(outputs: Outputs) -> None:
    outputs["candidates"][..., 4] *= 0.25


def see_ghosts(outputs: Outputs) -> None:
    outputs["candidates"][:, 0, :5] = 30, 30, 20, 20, 0.9


def overflow(outputs: Outputs) -> None:
    outputs["candidates"][...] = np.nan


def quantise(outputs: Outputs) -> None:
    keypoints = outputs["candidates"][..., 5:]
    outputs["candidates"][..., 5::3] = np.round(keypoints[..., ::3] / 48) * 48
    outputs["candidates"][..., 6::3] = np.round(keypoints[..., 1::3] / 48) * 48


def forget_scores(outputs: Outputs) -> None:
    outputs["candidates"][..., 7::3] = 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose_people, "it misses people: astronaut.jpg at 384x640, astronaut.jpg at 640x640, "),
        (see_ghosts, "it finds people who are not there: "),
        (overflow, "it misses people: "),
        (quantise, "body: keypoints are off by"),
        (forget_scores, "keypoint scores are off by"),
    ],
)
def test_a_degraded_detector_is_found(change: Change, said: str) -> None:
    problems = yolo(Degraded(change)).problems
    assert any(problem.startswith(said) for problem in problems), problems


def test_parts_go_by_the_names_of_the_keypoints() -> None:
    groups = parts_of(shipped()["coco_wholebody_133"])
    assert {name: (part, len(points)) for name, (part, points) in groups.items()} == {
        "body": ("body", 17),
        "left feet": ("feet", 3),
        "right feet": ("feet", 3),
        "face": ("face", 68),
        "left hands": ("hands", 21),
        "right hands": ("hands", 21),
    }
    assert set(parts_of(shipped()["coco_17"])) == {"body"}


def test_the_shipped_pictures_say_where_people_are() -> None:
    samples = {sample.name: sample for sample in shipped_samples()}
    assert {name: len(sample.boxes_xyxy) for name, sample in samples.items()} == {
        "astronaut.jpg": 1,
        "single_person.jpg": 1,
        "two_people.jpg": 2,
    }
    for sample in samples.values():
        height, width = sample.image.shape[:2]
        assert (sample.boxes_xyxy >= 0).all()
        assert (sample.boxes_xyxy <= (width, height, width, height)).all()
    red, _, blue = samples["astronaut.jpg"].image[400:].mean((0, 1))
    assert red > blue  # RGB: her suit is orange


def test_a_picture_without_boxes_is_one_person_from_edge_to_edge(tmp_path: Path) -> None:
    source = ROOT / "service" / "models" / "samples" / "astronaut.jpg"
    (tmp_path / "someone.jpg").write_bytes(source.read_bytes())
    (tmp_path / "notes.txt").write_text("")
    (sample,) = load_samples(tmp_path)
    assert isinstance(sample, Sample)
    assert sample.boxes_xyxy.tolist() == [[0, 0, 512, 512]]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("readme.txt", b"", "has no images"),
        ("a.jpg", b"no picture", r"a\.jpg is no image"),
        ("boxes.json", b"{", r"boxes\.json cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(EngineError, match=said):
        load_samples(tmp_path)


@pytest.mark.parametrize("boxes", ['{"a.jpg": [[1, 2, 3]]}', '{"a.jpg": "x"}', "[]"])
def test_boxes_that_are_none_are_refused(tmp_path: Path, boxes: str) -> None:
    source = ROOT / "service" / "models" / "samples" / "astronaut.jpg"
    (tmp_path / "a.jpg").write_bytes(source.read_bytes())
    (tmp_path / "boxes.json").write_text(boxes)
    with pytest.raises(EngineError, match="no usable boxes"):
        load_samples(tmp_path)
