"""The gate on AP: a plan that loses precision on annotated images is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from service.core.model import Model
from service.core.poses import Floats
from service.models.average_precision import AnnotatedImages, ap_problems, compare_ap, read_annotated
from service.models.cli import app
from service.models.errors import EngineError
from service.models.manifest import ApLoss
from service.models.runners import Images
from service.skeletons import shipped

COCO = shipped()["coco_17"]
YOLO = Model("y", "1", "yolo_pose", "coco_17", 17, ((640, 640), (480, 640)), max_batch_size=2)
CROPS = Model("c", "1", "top_down", "coco_17", 17, ((256, 192),), max_batch_size=2)
BOX = (100.0, 50.0, 100.0, 300.0)  # x, y, w, h
IMAGES = 4


def points() -> Floats:
    x = BOX[0] + BOX[2] * (0.5 + 0.4 * np.sin(np.arange(17)))
    return np.stack([x, BOX[1] + BOX[3] * np.linspace(0.05, 0.95, 17)], axis=1).astype(np.float32)


@pytest.fixture
def annotated(tmp_path: Path) -> AnnotatedImages:
    """One person in each image, at the same place; each image is as bright as its number says."""
    people = []
    for number in range(1, IMAGES + 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((480, 640, 3), 10 * number, np.uint8))
        keypoints = np.concatenate([points(), np.full((17, 1), 2)], axis=1).ravel().tolist()
        people.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": list(BOX), "area": 15000.0}
            | {"iscrowd": 0, "num_keypoints": 17, "keypoints": keypoints}
        )
    data = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(1, IMAGES + 1)],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
    }
    (tmp_path / "set.json").write_text(json.dumps(data), encoding="utf-8")
    return read_annotated(tmp_path, tmp_path / "set.json")


class Network:
    """A model that knows where the persons are, `off_px` beside, and sees none in image `blind`."""

    def __init__(self, off_px: float = 0.0, blind: int = 0) -> None:
        self.off_px, self.blind = off_px, blind

    def run(self, images: Images) -> Mapping[str, Floats]:
        found = points() + np.float32(self.off_px)
        if images.shape[1:3] == (256, 192):
            scale = 256 / (300 * 1.25)  # the box × 1.25, in the aspect of the crop
            middle = np.array([BOX[0] + BOX[2] / 2, BOX[1] + BOX[3] / 2])
            crop = ((found - middle) * scale + (96, 128)).astype(np.float32)
            scores = np.full((len(images), 17), 0.9, np.float32)
            return {"keypoints": np.repeat(crop[None], len(images), 0), "scores": scores}
        assert images.shape[1:3] == (480, 640)
        x, y, width, height = BOX
        row = np.concatenate([found, np.full((17, 1), 0.9)], axis=1).ravel()
        rows = np.concatenate([[x + width / 2, y + height / 2, width, height, 0.9], row])[None, None]
        rows = np.repeat(rows, len(images), axis=0).astype(np.float32)
        rows[images.mean(axis=(1, 2, 3)).round() == 10 * self.blind, :, 4] = 0.0
        return {"candidates": rows}


@pytest.mark.parametrize("model", [YOLO, CROPS], ids=["yolo_pose", "top_down"])
def test_a_plan_like_its_graph_loses_nothing(model: Model, annotated: AnnotatedImages) -> None:
    losses = compare_ap(Network(), Network(), model, COCO, annotated)
    assert list(losses) == ["body"]
    assert (losses["body"].reference, losses["body"].plan) == pytest.approx((1.0, 1.0))
    assert list(ap_problems(losses)) == []


@pytest.mark.parametrize(
    ("model", "plan"),
    [(YOLO, Network(off_px=8)), (CROPS, Network(off_px=8)), (YOLO, Network(blind=2))],
    ids=["yolo_pose beside", "top_down beside", "yolo_pose blind"],
)
def test_a_plan_that_loses_precision_is_told(model: Model, plan: Network, annotated: AnnotatedImages) -> None:
    losses = compare_ap(Network(), plan, model, COCO, annotated)
    (problem,) = ap_problems(losses)
    assert losses["body"].plan < 0.8
    assert f"body: AP {100 * losses['body'].plan:.1f} instead of 100.0" in problem


def test_a_loss_within_the_tolerance_passes() -> None:
    assert list(ap_problems({"body": ApLoss(0.5, 0.498)})) == []
    assert len(list(ap_problems({"body": ApLoss(0.5, 0.496), "feet": ApLoss(0.5, 0.6)}))) == 1


def test_what_cannot_be_judged_is_said(annotated: AnnotatedImages, tmp_path: Path) -> None:
    file = tmp_path / "set.json"
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(EngineError, match=r"2\.png is no image"):
        compare_ap(Network(), Network(), YOLO, COCO, annotated)
    (tmp_path / "2.png").unlink()
    with pytest.raises(EngineError, match=r"1 annotated images are not there, such as 2\.png"):
        read_annotated(tmp_path, file)
    with pytest.raises(EngineError, match="cannot be read"):
        read_annotated(tmp_path, tmp_path / "none.json")
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(EngineError, match="COCO"):
        read_annotated(tmp_path, file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--annotated", "."], "go together"),
        (["--annotations", "x.json"], "go together"),
        (["--annotated", ".", "--annotations", "x.json", "--no-comparison"], "leave one of the two out"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], message: str) -> None:
    ran = CliRunner().invoke(app, ["build", "mine", *arguments])
    assert ran.exit_code == 1
    assert message in ran.stderr
