"""ExportPosesRequest: images with their persons, and the format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posegate.v1 import skeleton_service_pb2 as pb
from service.core.cancellation import checkpoint
from service.core.export.files import ExportImage
from service.core.export.yolo_txt import label_name
from service.core.poses import Poses, present
from service.core.skeleton.template import Skeleton
from service.core.skeleton.validation import has_control_characters, nfc, shown
from service.pipeline.export import ExportFormat
from service.servicers.requests.persons import read_pose_arrays
from service.servicers.requests.validation import Violations

_MAX_ITEMS = 10_000
_MAX_FILE_NAME = 255
_MAX_FILE_NAME_BYTES = 255  # what file systems hold

_VISIBLE_SCORE = 0.5  # the default of `visible_score`

_FORMATS: dict[int, ExportFormat] = {
    pb.EXPORT_FORMAT_COCO_JSON: "coco",
    pb.EXPORT_FORMAT_YOLO_TXT: "yolo",
    pb.EXPORT_FORMAT_CSV: "csv",
}


def read_format(violations: Violations, request: pb.ExportPosesRequest) -> ExportFormat:
    """Read the format of the files; violations, in the number of images too, go to `violations`."""
    format_ = _FORMATS.get(request.format)
    if format_ is None:
        violations.add("format", "must be COCO_JSON, YOLO_TXT or CSV")
    if not 1 <= len(request.items) <= _MAX_ITEMS:
        violations.add("items", f"must be 1 to {_MAX_ITEMS}, not {len(request.items)}")
    return format_ or "coco"


def read_visible_score(violations: Violations, request: pb.ExportPosesRequest) -> float:
    """Read the smallest score of a visible keypoint; a violation goes to `violations`."""
    if not request.HasField("visible_score"):
        return _VISIBLE_SCORE
    if request.format == pb.EXPORT_FORMAT_CSV:
        violations.add("visible_score", "must be unset for CSV, which has no visibility")
    return violations.number("visible_score", request.visible_score, 0)


def read_images(
    violations: Violations, request: pb.ExportPosesRequest, skeleton: Skeleton, format_: ExportFormat
) -> list[ExportImage]:
    """Read the images with their persons. CPU work, for a worker thread.

    Raises:
        InvalidRequest: with every violation, those in `violations` too.
    """
    items = request.items[:_MAX_ITEMS]
    _check_names(violations, items, labels=format_ == "yolo")
    images = []
    for place, item in enumerate(items):
        checkpoint()
        images.append(_image(violations, item, skeleton, f"items[{place}]"))
    violations.raise_any()
    return images


def _image(violations: Violations, item: pb.ExportItem, skeleton: Skeleton, path: str) -> ExportImage:
    width, height = item.image_size.width, item.image_size.height
    if width < 1 or height < 1:
        violations.add(f"{path}.image_size", f"must be 1 px or more each way, not {width}×{height}")
    persons = read_pose_arrays(violations, item.persons, skeleton, f"{path}.persons")
    for place in np.flatnonzero(_without_place(persons.poses)):
        violations.add(f"{path}.persons[{place}]", "must have a box, or a keypoint that is not 0")
    return ExportImage(item.file_name, (width, height), persons.poses, persons.track_ids)


def _without_place(poses: Poses) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which persons have neither a box nor a keypoint; (N,)."""
    without_place = np.isnan(poses.boxes_xyxy).all(axis=1) & ~present(poses.keypoints).any(axis=1)
    return np.asarray(without_place, np.bool_)


def _check_names(violations: Violations, items: Sequence[pb.ExportItem], *, labels: bool) -> None:
    """Check that file names have no path and are unique, those of label files too if there are any."""
    names: dict[str, int] = {}
    label_files: dict[str, int] = {}
    for place, item in enumerate(items):
        field, name = f"items[{place}].file_name", item.file_name
        problem = _name_problem(name)
        if problem:
            violations.add(field, problem)
            continue
        first = names.setdefault(nfc(name), place)
        if first != place:
            violations.add(field, f"must be unique; {shown(name)} is items[{first}] too")
        elif labels:
            label = label_name(name)
            if len(label.encode()) > _MAX_FILE_NAME_BYTES:
                violations.add(field, f"must be shorter: its label file is called {shown(label)}")
            first = label_files.setdefault(nfc(label), place)
            if first != place:
                violations.add(field, f"must not share its label file {shown(label)} with items[{first}]")


def _name_problem(name: str) -> str:
    if not 1 <= len(name) <= _MAX_FILE_NAME:
        return f"must have 1 to {_MAX_FILE_NAME} characters, not {len(name)}"
    if "/" in name or "\\" in name or name in (".", ".."):
        return f"must be the name of a file without a path, not {shown(name)}"
    if has_control_characters(name):
        return f"must have no control characters: {shown(name)}"
    return ""
