"""COCO keypoints: a data set of annotations, and a list of results to be evaluated against one.

The formats are those of https://cocodataset.org/#format-data and #format-results. `annotations.json`
is what `pycocotools.coco.COCO` opens, `results.json` what its `loadRes` takes. Both use the same image
ids; results for another data set agree with it if the files are named by its image ids, as COCO's are
(`000000000785.jpg` is image 785).

Boxes are cut to the image, and a person without an area in it is left out, as COCO's own annotations have it.

Additional fields, which readers of the format ignore: `score` and `keypoint_scores` (the model's own) in an
annotation, `track_id`, `side`, `person_index` and `positions` (metres; null: unknown) where they
are known, and `sigmas` in the category where all of them are published. pycocotools evaluates with
those once they are set: `evaluation.params.kpt_oks_sigmas = numpy.array(category["sigmas"])`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from service.core.export.files import (
    ExportImage,
    File,
    cut_boxes,
    points,
    rounded,
    rounded_scores,
    visibility,
    with_boxes,
)
from service.core.poses import Poses
from service.core.skeleton.template import Skeleton

_CATEGORY = 1
_NUMBER = re.compile(r"[0-9]{1,15}")  # what a double still holds, for readers that know no integers

Json = dict[str, object]


def coco_files(items: Sequence[ExportImage], skeleton: Skeleton, visible_score: float) -> list[File]:
    """`annotations.json` and `results.json`.

    A keypoint in the image with `visible_score` or more has visibility 2, another that is present 1; an
    absent one is 0, 0, 0. The area of a person is that of the box: no outline is known.

    Args:
        items: images with persons in the skeleton.
        skeleton: becomes the category.
        visible_score: smallest score of a visible keypoint.

    Raises:
        ValueError: a person has neither a box nor a keypoint.
    """
    numbers = image_numbers([item.file_name for item in items])
    images = [
        {"id": number, "file_name": one.file_name, "width": one.size_wh[0], "height": one.size_wh[1]}
        for number, one in zip(numbers, items, strict=True)
    ]
    annotations: list[str] = []
    results: list[str] = []
    for number, item in zip(numbers, items, strict=True):
        for person in _people(item, visible_score):
            result = {"image_id": number, "category_id": _CATEGORY, **person}
            results.append(_text(result))
            fixed: Json = {"id": len(results), "iscrowd": 0, "segmentation": []}
            annotations.append(_text(fixed | result))
    head = f'{{"info":{_text({"description": f"People in skeleton {skeleton.name}"})}'
    parts = f'"images":[{_lines(map(_text, images))}],"annotations":[{_lines(annotations)}]'
    document = f'{head},{parts},"categories":[{_text(_category(skeleton))}]}}\n'
    return [
        File("annotations.json", document.encode("ascii"), "application/json"),
        File("results.json", f"[{_lines(results)}]\n".encode("ascii"), "application/json"),
    ]


def image_numbers(file_names: Sequence[str]) -> list[int]:
    """Image ids: the file names where all of them are different numbers, else 1, 2, 3 …"""
    stems = [PurePosixPath(name).stem for name in file_names]
    if all(_NUMBER.fullmatch(stem) for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(file_names) + 1))


def _category(skeleton: Skeleton) -> Json:
    category: Json = {
        "id": _CATEGORY,
        "name": skeleton.name,
        "supercategory": skeleton.title,
        "keypoints": list(skeleton.names),
        # COCO counts from one.
        "skeleton": [
            [skeleton.index(edge.start) + 1, skeleton.index(edge.end) + 1]
            for edge in skeleton.edges
            if not edge.drawing_only
        ],
    }
    if skeleton.sigmas is not None:
        category["sigmas"] = list(skeleton.sigmas)
    return category


def _people(item: ExportImage, visible_score: float) -> Iterator[Json]:
    poses = with_boxes(item.poses)
    places, point_scores, there = points(poses)
    flags, _ = visibility(poses, item.size_wh, visible_score)
    cut, inside = cut_boxes(poses, item.size_wh)
    corners = rounded(cut)
    boxes = np.hstack([corners[:, :2], rounded(corners[:, 2:] - corners[:, :2])])
    areas = rounded(boxes[:, 2] * boxes[:, 3])
    scores = rounded_scores(poses.scores)
    for place, track in enumerate(item.tracks):
        if not inside[place]:
            continue
        flat: list[float] = []
        for (x, y), flag in zip(places[place].tolist(), flags[place].tolist(), strict=True):
            flat += (x, y, flag)
        yield {
            "bbox": boxes[place].tolist(),
            "area": areas[place].item(),
            "keypoints": flat,
            "num_keypoints": int(there[place].sum()),
            "score": scores[place].item(),
            "keypoint_scores": point_scores[place].tolist(),
            **_further(poses, place),
            **({} if track is None else {"track_id": track}),
        }


def _further(poses: Poses, place: int) -> Json:
    """Side, owner and positions of one person or part, where they are known."""
    further: Json = {}
    if poses.sides is not None and poses.sides[place]:
        further["side"] = str(poses.sides[place])
    if poses.person_index is not None and poses.person_index[place] >= 0:
        further["person_index"] = int(poses.person_index[place])
    if poses.positions is not None and np.isfinite(poses.positions[place]).any():
        values = rounded(poses.positions[place]).ravel().tolist()
        further["positions"] = [value if np.isfinite(value) else None for value in values]
        further["depth_source"] = poses.depth_source
    return further


def _text(value: Json) -> str:
    # ASCII: pycocotools opens files in whatever encoding the machine has.
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _lines(items: Sequence[str] | Iterator[str]) -> str:
    return ",\n".join(items)
