"""Ultralytics YOLO pose: a label file for each image, and the data set's YAML.

A line is a person: class 0, centre and size of the box, then x, y and visibility of every keypoint; all
in 0–1 of the image, as https://docs.ultralytics.com/datasets/pose/ describes. Ultralytics refuses a
file with a coordinate outside the image, so boxes are cut to it, keypoints outside of it count as not
labelled (0 0 0), and a person without an area in it is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from service.core.export.files import ExportImage, File, cut_boxes, visibility, with_boxes
from service.core.skeleton.template import Skeleton

_CLASS = 0
# Characters that YAML does not allow unescaped, or that end a line.
_NOT_PLAIN = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def yolo_files(images: Sequence[ExportImage], skeleton: Skeleton, visible_score: float) -> list[File]:
    """A TXT for each image, of the name that `label_name` gives, and `data.yaml`.

    Args:
        images: with persons in the skeleton; their label files have different names.
        skeleton: names the keypoints, and the pairs that a mirroring exchanges.
        visible_score: smallest score of a visible keypoint (2); others in the image are 1.

    Raises:
        ValueError: a person has neither a box nor a keypoint.
    """
    labels = [
        File(label_name(one.file_name), _labels(one, visible_score).encode("ascii"), "text/plain")
        for one in images
    ]
    return [*labels, File("data.yaml", _yaml(skeleton).encode(), "application/yaml")]


def label_name(file_name: str) -> str:
    """Name of an image's label file: Ultralytics replaces the ending by .txt."""
    return f"{PurePosixPath(file_name).stem}.txt"


def _labels(image: ExportImage, visible_score: float) -> str:
    poses = with_boxes(image.poses)
    size = np.array(image.size_wh, np.float64)
    cut, has_area = cut_boxes(poses, image.size_wh)
    corners = cut.reshape(-1, 2, 2) / size
    low, high = corners[:, 0], corners[:, 1]
    boxes = np.hstack([(low + high) / 2, high - low])  # (N, 4)
    flags, inside = visibility(poses, image.size_wh, visible_score)
    flags = np.where(inside, flags, 0)
    places = np.where(inside[..., None], poses.keypoints[..., :2], 0) / size
    return "".join(
        f"{_CLASS} {_numbers(boxes[place])} {_points(places[place], flags[place])}\n"
        for place in np.flatnonzero(has_area)
    )


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


def _points(places: NDArray[np.float64], flags: NDArray[np.int64]) -> str:
    return " ".join(f"{_numbers(place)} {flag}" for place, flag in zip(places, flags, strict=True))


def _yaml(skeleton: Skeleton) -> str:
    names = "".join(f"    - {_quoted(name)}\n" for name in skeleton.names)
    return (
        "# Images belong into images/, the TXT files into labels/, both beside this file.\n"
        "train: images\n"
        "val: images\n"
        f"kpt_shape: [{len(skeleton.keypoints)}, 3]\n"
        f"flip_idx: [{', '.join(map(str, skeleton.flip_index))}]\n"
        "names:\n"
        f"  {_CLASS}: {_quoted(skeleton.name)}\n"
        "kpt_names:\n"
        f"  {_CLASS}:\n"
        f"{names}"
    )


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar: JSON's escapes are among YAML's."""
    return _NOT_PLAIN.sub(_escaped, json.dumps(text, ensure_ascii=False))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
