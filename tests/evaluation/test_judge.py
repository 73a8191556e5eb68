"""The judge gives what pycocotools gives, and differences come with an interval that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.evaluation.bootstrap import _Ranked, ap_difference
from service.evaluation.dataset import DatasetError, read_dataset
from service.evaluation.judge import STATISTICS, image_scores, judge, keypoint_errors
from service.skeletons import shipped

COCO_17 = shipped()["coco_17"]
WHOLE = shipped()["coco_wholebody_133"]


def annotated_set(layout: str, images: int = 12, seed: int = 0) -> dict[str, Any]:
    """A set of random persons in random boxes; some points unlabelled, one person a crowd."""
    rng = np.random.default_rng(seed)
    people: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 4)):
            x, y, w, h = rng.uniform([0, 0, 30, 60], [300, 200, 150, 200])
            count = {"coco": 17, "crowdpose": 14}.get(layout, 133)
            points = np.c_[rng.uniform([x, y], [x + w, y + h], (count, 2)), rng.integers(0, 3, count)]
            points[points[:, 2] == 0] = 0
            one: dict[str, Any] = {
                "id": len(people) + 1,
                "image_id": image,
                "category_id": 1,
                "bbox": [x, y, w, h],
                "iscrowd": int(len(people) == 5),
            }
            if layout != "crowdpose":
                one["area"] = w * h * 0.6
            cuts = np.split(points, [17, 23, 91, 112]) if layout == "coco_wholebody" else [points]
            keys = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
            for key, cut in zip(keys, cuts, strict=False):
                one[key] = cut.ravel().tolist()
            one["num_keypoints"] = int((cuts[0][:, 2] > 0).sum())
            people.append(one)
    names = list(COCO_17.names) if layout != "crowdpose" else [f"point {n}" for n in range(14)]
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(1, images + 1)],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }


def detections(data: dict[str, Any], noise: float, seed: int = 1) -> list[dict[str, Any]]:
    """Persons near the annotated ones, and some that are not there."""
    rng = np.random.default_rng(seed)
    keys = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    results = []
    for one in data["annotations"]:
        points = np.reshape([v for key in keys if key in one for v in one[key]], (-1, 3))
        for spread in (noise, 6 * noise):
            moved = points + np.c_[rng.normal(0, spread, (len(points), 2)), np.zeros(len(points))]
            results.append(
                {
                    "image_id": one["image_id"],
                    "category_id": 1,
                    "keypoints": moved.ravel().tolist(),
                    "score": float(rng.uniform(0.2, 1) / (1 + spread)),
                }
            )
    return results


def write(data: Any, path: Path) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_the_result_is_that_of_pycocotools_called_directly_to_the_last_digit(tmp_path: Path) -> None:
    data = annotated_set("coco")
    found = detections(data, 2.0)
    path = write(data, tmp_path / "person_keypoints.json")
    dataset = read_dataset(path)
    (part,) = dataset.parts(COCO_17.names)
    ours = judge(dataset, found, part)
    truth = COCO(str(path))
    evaluator = COCOeval(truth, truth.loadRes(str(write(found, tmp_path / "results.json"))), "keypoints")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    assert [ours.statistics[name] for name in STATISTICS] == evaluator.stats.tolist()
    assert 0.1 < ours.statistics["AP"] < 0.99


@pytest.mark.parametrize("name", ["body", "feet", "face", "hands", "all"])
def test_a_part_of_a_whole_body_is_judged_as_a_set_of_those_points_alone(name: str, tmp_path: Path) -> None:
    data = annotated_set("coco_wholebody")
    found = detections(data, 1.0)
    dataset = read_dataset(write(data, tmp_path / "coco_wholebody.json"))
    (part,) = [one for one in dataset.parts(WHOLE.names) if one.name == name]
    ours = judge(dataset, found, part)
    keys = {
        "body": ["keypoints"], "feet": ["foot_kpts"], "face": ["face_kpts"],
        "hands": ["lefthand_kpts", "righthand_kpts"],
    }.get(name, ["keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts"])  # fmt: skip
    start = {"body": 0, "feet": 17, "face": 23, "hands": 91}.get(name, 0)
    alone: dict[str, Any] = {**data, "annotations": []}
    for one in data["annotations"]:
        points = [v for key in keys for v in one[key]]
        visible = sum(v > 0 for v in points[2::3])
        alone["annotations"].append({**one, "keypoints": points, "num_keypoints": visible})
    length = len(alone["annotations"][0]["keypoints"]) // 3
    cut = [{**one, "keypoints": one["keypoints"][3 * start : 3 * (start + length)]} for one in found]
    truth = COCO(str(write(alone, tmp_path / "alone.json")))
    evaluator = COCOeval(truth, truth.loadRes(cut), "keypoints")
    assert WHOLE.sigmas is not None
    evaluator.params.kpt_oks_sigmas = np.array(WHOLE.sigmas[start : start + length])
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    assert [ours.statistics[key] for key in STATISTICS] == evaluator.stats.tolist()


def test_a_model_of_seventeen_keypoints_is_judged_by_the_body_of_a_whole_body_set(tmp_path: Path) -> None:
    dataset = read_dataset(write(annotated_set("coco_wholebody"), tmp_path / "set.json"))
    assert [part.name for part in dataset.parts(COCO_17.names)] == ["body"]


def test_crowdpose_is_judged_by_the_twelve_points_that_coco_has_too(tmp_path: Path) -> None:
    dataset = read_dataset(write(annotated_set("crowdpose"), tmp_path / "set.json"))
    (part,) = dataset.parts(COCO_17.names)
    assert (dataset.layout, part.indices) == ("crowdpose", tuple(range(12)))
    assert part.sigmas[0] == 0.079
    first = dataset.annotations[0]
    assert first["area"] == pytest.approx(first["bbox"][2] * first["bbox"][3] * 0.53)


def test_without_detections_every_person_is_missed(tmp_path: Path) -> None:
    dataset = read_dataset(write(annotated_set("coco"), tmp_path / "set.json"))
    result = judge(dataset, [], dataset.parts(COCO_17.names)[0])
    assert result.statistics["AP"] == result.statistics["AR"] == 0
    worst = image_scores(result)
    assert all(score.oks == 0 and score.missed == score.persons for score in worst)


def test_images_are_ordered_from_the_worst_and_a_perfect_one_has_oks_one(tmp_path: Path) -> None:
    data = annotated_set("coco")
    dataset = read_dataset(write(data, tmp_path / "set.json"))
    (part,) = dataset.parts(COCO_17.names)
    scores = image_scores(judge(dataset, detections(data, 1e-9), part))
    assert scores
    assert min(score.oks for score in scores) == pytest.approx(1)
    scores = image_scores(judge(dataset, detections(data, 3.0), part))
    assert [score.oks for score in scores] == sorted(score.oks for score in scores)


def test_resampled_ap_with_every_image_once_is_that_of_pycocotools(tmp_path: Path) -> None:
    data = annotated_set("coco", images=30)
    dataset = read_dataset(write(data, tmp_path / "set.json"))
    result = judge(dataset, detections(data, 2.0), dataset.parts(COCO_17.names)[0])
    once = _Ranked(result.evaluator).ap(np.ones(30, np.intp))
    assert once == pytest.approx(result.statistics["AP"], abs=1e-12)


def test_the_interval_of_a_difference_holds_it_and_is_empty_for_the_same_detections(tmp_path: Path) -> None:
    data = annotated_set("coco", images=30)
    dataset = read_dataset(write(data, tmp_path / "set.json"))
    (part,) = dataset.parts(COCO_17.names)
    better, worse = (judge(dataset, detections(data, noise), part) for noise in (1.0, 5.0))
    same = ap_difference(better, better, samples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    difference = ap_difference(better, worse, samples=200)
    assert 0 < difference.low < difference.value < difference.high
    first, second, between = keypoint_errors(better, worse)
    assert len(first) == len(second) == len(between) > 0
    assert np.median(first) < np.median(second)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "COCO's layout"),
        ("{", "COCO's layout"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "no category has keypoints"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "keypoints": ["nose"]}]}',
            "neither COCO's 17 nor CrowdPose's 14",
        ),
    ],
)
def test_another_file_is_refused_with_the_reason(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=said):
        read_dataset(path)


def test_a_limit_keeps_the_first_images_and_their_persons(tmp_path: Path) -> None:
    dataset = read_dataset(write(annotated_set("coco"), tmp_path / "set.json"), limit=3)
    assert [image.id for image in dataset.images] == [1, 2, 3]
    assert {one["image_id"] for one in dataset.annotations} <= {1, 2, 3}
