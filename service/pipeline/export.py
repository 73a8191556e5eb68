"""Use case ExportPoses: given persons as files that training tools read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from service.core.export.coco import coco_files
from service.core.export.csv_table import csv_files
from service.core.export.files import ExportImage, File
from service.core.export.yolo_txt import yolo_files
from service.core.skeleton.template import Skeleton
from service.errors import InvalidRequest

ExportFormat = Literal["coco", "yolo", "csv"]

_WRITERS: Mapping[ExportFormat, Callable[[Sequence[ExportImage], Skeleton, float], list[File]]] = {
    "coco": coco_files,
    "yolo": yolo_files,
    "csv": lambda images, skeleton, _visible_score: csv_files(images, skeleton),
}


def export_files(
    images: Sequence[ExportImage],
    skeleton: Skeleton,
    format_: ExportFormat,
    *,
    visible_score: float,
    max_bytes: int,
) -> list[File]:
    """The persons of all images as files of one format. CPU work, for a worker thread.

    Args:
        images: with their persons.
        skeleton: of the persons.
        format_: of the files.
        visible_score: smallest score of a visible keypoint, where the format has visibility.
        max_bytes: of all files together.

    Raises:
        InvalidRequest: the files are larger, EXPORT_TOO_LARGE.
    """
    files = _WRITERS[format_](images, skeleton, visible_score)
    size = sum(len(file.content) for file in files)
    if size > max_bytes:
        raise InvalidRequest(
            f"The files have {size} bytes; at most {max_bytes} fit into an answer: "
            "export fewer images at a time.",
            reason="EXPORT_TOO_LARGE",
            metadata={"limit_bytes": str(max_bytes), "actual_bytes": str(size)},
        )
    return files
