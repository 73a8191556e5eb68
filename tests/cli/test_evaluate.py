"""`posegate evaluate`, against a real service in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.cli.connection import Target
from service.cli.evaluate import EvaluateConfig, evaluate
from service.cli.evaluation_run import BadRun
from service.evaluation.judge import STATISTICS
from service.skeletons import shipped
from tests.fakes import candidate, rows
from tests.pictures import jpeg
from tests.running import Service

IMAGES = 6
BOX = (100.0, 50.0, 200.0, 350.0)


@pytest.fixture
def config(service: Service, tmp_path: Path) -> EvaluateConfig:
    """A set of images with one person each, where the model finds it on some better than on others."""
    points = [(100 + 100 * k / 16, 50 + 300 * k / 16, 2) for k in range(17)]
    people = []
    for number in range(1, IMAGES + 1):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg((640, 480)))
        moved = [(x + 3 * number, y, v) for x, y, v in points]
        people.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]],
                "area": 20000.0,
                "iscrowd": 0,
                "num_keypoints": 17,
                "keypoints": np.ravel(moved).tolist(),
            }
        )
    data = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(1, IMAGES + 1)],
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(shipped()["coco_17"].names)}],
    }
    (tmp_path / "set.json").write_text(json.dumps(data), encoding="utf-8")
    service.triton.answer = rows(candidate(BOX, 0.9), candidate((400, 60, 480, 300), 0.002))
    return EvaluateConfig(
        gateway=Target(service.address),
        images=tmp_path,
        annotations=tmp_path / "set.json",
        out=tmp_path / "out",
        timeout_s=60,
    )


def kept_lines(config: EvaluateConfig) -> list[dict[str, Any]]:
    assert config.out is not None
    text = (config.out / "yolo11n_pose" / "detections.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


async def test_what_is_printed_and_written_is_what_pycocotools_says_of_the_results(
    config: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    (outcome,) = await evaluate(config)
    printed = capsys.readouterr().out
    assert config.out is not None
    folder = config.out / "yolo11n_pose"
    truth = COCO(str(config.annotations))
    evaluator = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "keypoints")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert [summary["parts"]["body"][name] for name in STATISTICS] == evaluator.stats.tolist()
    assert 0 < evaluator.stats[0] < 1
    assert f"{100 * evaluator.stats[0]:.1f}" in printed
    assert "images/s" in printed
    assert printed.index("6.jpg") < printed.index("1.jpg")  # worst first
    assert len(list((folder / "worst").glob("*.jpg"))) == IMAGES
    assert len(outcome.run.detections) == IMAGES


async def test_persons_of_low_score_count_too(config: EvaluateConfig) -> None:
    await evaluate(config)
    assert {len(line["detections"]) for line in kept_lines(config)[1:]} == {2}
    await evaluate(replace(config, min_score=0.5, out=config.images / "other"))
    assert {
        len(line["detections"]) for line in kept_lines(replace(config, out=config.images / "other"))[1:]
    } == {1}


async def test_a_run_that_was_cut_short_goes_on(service: Service, config: EvaluateConfig) -> None:
    (whole,) = await evaluate(config)
    assert config.out is not None
    file = config.out / "yolo11n_pose" / "detections.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + lines[3][:40])  # two images, and half of a third
    asked = len(service.triton.calls)
    (again,) = await evaluate(config)
    assert len(service.triton.calls) - asked == IMAGES - 2
    assert file.read_bytes().splitlines(keepends=True) == lines
    assert dict(again.judgements[0].statistics) == dict(whole.judgements[0].statistics)


async def test_detections_of_other_settings_are_not_mixed(config: EvaluateConfig) -> None:
    await evaluate(config)
    before = kept_lines(config)
    with pytest.raises(BadRun, match="another model, annotation file or setting"):
        await evaluate(replace(config, iou_threshold=0.5))
    assert kept_lines(config) == before


async def test_a_model_against_itself_differs_by_nothing(
    config: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    await evaluate(replace(config, against="yolo11n_pose", out=None))
    printed = capsys.readouterr().out
    assert "+0.0 to +0.0" in printed


async def test_an_image_that_the_service_refuses_counts_as_one_without_detections(
    config: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.images / "2.jpg").write_bytes(b"no image")
    (outcome,) = await evaluate(config)
    assert list(outcome.run.failed) == [2]
    assert "image 2 has no detections" in capsys.readouterr().out
    assert [line["image_id"] for line in kept_lines(config)[1:]] == [1, 3, 4, 5, 6]  # asked again next time


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "none"}, "model none is not ready; there are yolo11n_pose"),
        ({"images": Path("/nowhere")}, "6 annotated images are not there, such as 1.jpg"),
    ],
)
async def test_what_cannot_be_evaluated_is_said(
    changes: dict[str, Any], said: str, config: EvaluateConfig
) -> None:
    with pytest.raises(BadRun, match=said):
        await evaluate(replace(config, **changes))


async def test_a_limit_sends_only_the_first_images(service: Service, config: EvaluateConfig) -> None:
    await evaluate(replace(config, limit=2))
    assert [line["image_id"] for line in kept_lines(config)[1:]] == [1, 2]


async def test_squares_are_answered_in_px_of_the_image_itself(
    service: Service, config: EvaluateConfig
) -> None:
    (plain,) = await evaluate(replace(config, limit=1, out=None))
    (squared,) = await evaluate(replace(config, limit=1, out=None, shape="square"))
    sizes = [call.inputs["images"].shape[1:3] for call in service.triton.calls]
    assert sizes == [(480, 640), (640, 640)]
    # The same place in the model's input is 80 px higher in an image of 640×480.
    before = np.reshape(plain.run.detections[1][0]["keypoints"], (17, 3))
    after = np.reshape(squared.run.detections[1][0]["keypoints"], (17, 3))
    np.testing.assert_allclose(after, before - (0, 80, 0), atol=0.01)


async def test_an_image_that_cannot_be_squared_is_refused_by_the_service(config: EvaluateConfig) -> None:
    (config.images / "1.jpg").write_bytes(b"no image")
    (outcome,) = await evaluate(replace(config, limit=2, out=None, shape="square"))
    assert list(outcome.run.failed) == [1]
