"""The minimum rectangle of every aspect ratio, held against Ultralytics' `predict`.

`yolo11n_aspects_reference.json` holds what `predict` (ultralytics 8.4.190, torch 2.13.0, fp32, conf 0.25, iou
0.7) gives for centred crops of two_standing.jpg in eight aspect ratios.
"""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import openvino
import pytest

from service.core.geometry import choose_shape, letterbox
from service.core.yolo import decode_candidates
from service.models.repository import shapes_for
from tests.model_repository.tiny_models import ROOT

DATA = ROOT / "tests" / "data"
GRAPH = ROOT / "model_repository" / "cpu" / "yolo11n_pose" / "1" / "model.onnx"
REFERENCE: dict[str, Any] = json.loads((DATA / "yolo11n_aspects_reference.json").read_text("utf-8"))
SURE_PERSON, SURE_KEYPOINT = 0.35, 0.5
# px of the 640 input: median and 95th percentile. bf16 alone costs 0.17 and 1.3-1.8 px against fp32.
BOUNDS_PX = {"f32": (0.05, 0.3), "bf16": (0.3, 2.0)}


@pytest.mark.parametrize("precision", list(BOUNDS_PX))
def test_keypoints_equal_those_of_ultralytics_at_every_aspect_ratio(precision: str) -> None:
    picture = cv2.imread(str(DATA / "two_standing.jpg"))
    assert picture is not None
    image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    core = openvino.Core()
    graph = core.read_model(GRAPH)
    distances = []
    for aspect, expected in REFERENCE.items():
        x, y, width, height = expected["crop_xywh"]
        shape_hw = choose_shape((width, height), shapes_for(32))
        tensor, to_input = letterbox(np.ascontiguousarray(image[y : y + height, x : x + width]), shape_hw)
        graph.reshape({graph.input(0): [1, *shape_hw, 3]})
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        candidates = compiled([tensor[None]])[0][0]
        poses = decode_candidates(candidates, to_input, min_score=0.25, iou_threshold=0.7, max_persons=300)

        wanted = np.array(expected["keypoints"])[np.array(expected["scores"]) > SURE_PERSON]
        found = poses.keypoints[poses.scores > SURE_PERSON]
        assert len(found) == len(wanted), f"{aspect}: a person was missed or invented"
        for keypoints in found:
            apart = np.linalg.norm(wanted[..., :2] - keypoints[:, :2], axis=2).mean(axis=1)
            nearest = wanted[np.argmin(apart)]
            points = nearest[:, 2] > SURE_KEYPOINT
            scale = 640 / max(width, height)
            distances.append(np.linalg.norm(nearest[points, :2] - keypoints[points, :2], axis=1) * scale)
    found_px = np.concatenate(distances)
    median_px, p95_px = BOUNDS_PX[precision]
    assert np.median(found_px) <= median_px
    assert np.percentile(found_px, 95) <= p95_px
