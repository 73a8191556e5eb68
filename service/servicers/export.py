"""ExportPoses: given people as files that training tools read."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np

from posegate.v1 import skeleton_service_pb2 as pb
from service.core.cancellation import checkpoint
from service.core.export.coco import coco_files
from service.core.export.csv_table import csv_files
from service.core.export.files import ExportImage, File
from service.core.export.yolo_txt import label_name, yolo_files
from service.core.poses import Poses, present
from service.core.skeleton.template import Skeleton
from service.core.skeleton.validation import nfc, shown
from service.errors import InvalidRequest
from service.pipeline.concurrency import run
from service.servicers.requests.persons import read_people
from service.servicers.requests.validation import Violations
from service.servicers.skeleton_lookup import SkeletonLookup
from service.telemetry.call_context import current

_MAX_ITEMS = 10_000
_MAX_FILE_NAME = 255
_MAX_FILE_NAME_BYTES = 255  # what file systems hold
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})

_WRITERS: dict[int, Callable[[Sequence[ExportImage], Skeleton], list[File]]] = {
    pb.EXPORT_FORMAT_COCO_JSON: coco_files,
    pb.EXPORT_FORMAT_YOLO_TXT: yolo_files,
    pb.EXPORT_FORMAT_CSV: csv_files,
}


class PoseExporter:
    """Writes people.

    Args:
        skeletons: finds the skeleton that a request names.
        workers: threads that read, check and write.
        max_bytes: of all files of one export together; they go into one message.
    """

    def __init__(self, skeletons: SkeletonLookup, workers: Executor, max_bytes: int) -> None:
        self._skeletons = skeletons
        self._workers = workers
        self._max_bytes = max_bytes

    async def export(self, request: pb.ExportPosesRequest) -> pb.ExportPosesResponse:
        """The files.

        Args:
            request: as the caller sent it.

        Raises:
            InvalidRequest: with every violation; or the files are too large, EXPORT_TOO_LARGE.
            NotFound: no such skeleton.
            Unavailable: the tenant's skeletons cannot be asked for.
        """
        found = Violations()
        if request.format not in _WRITERS:
            found.add("format", "must be COCO_JSON, YOLO_TXT or CSV")
        if not 1 <= len(request.items) <= _MAX_ITEMS:
            found.add("items", f"must be 1 to {_MAX_ITEMS}, not {len(request.items)}")
        skeleton = await self._skeletons.named(found, current().tenant, request.skeleton)
        return await run(self._workers, self._write, found, request, skeleton)

    def _write(
        self, found: Violations, request: pb.ExportPosesRequest, skeleton: Skeleton
    ) -> pb.ExportPosesResponse:
        items = request.items[:_MAX_ITEMS]
        _check_names(found, items, labels=request.format == pb.EXPORT_FORMAT_YOLO_TXT)
        pictures = []
        for place, item in enumerate(items):
            checkpoint()
            pictures.append(_picture(found, item, skeleton, f"items[{place}]"))
        found.raise_any()
        files = _WRITERS[request.format](pictures, skeleton)
        size = sum(len(file.content) for file in files)
        if size > self._max_bytes:
            raise InvalidRequest(
                f"The files have {size} bytes; at most {self._max_bytes} fit into an answer: "
                "export fewer pictures at a time.",
                reason="EXPORT_TOO_LARGE",
                metadata={"limit_bytes": str(self._max_bytes), "actual_bytes": str(size)},
            )
        return pb.ExportPosesResponse(
            files=[
                pb.ExportedFile(name=file.name, content=file.content, media_type=file.media_type)
                for file in files
            ]
        )


def _picture(found: Violations, item: pb.ExportItem, skeleton: Skeleton, path: str) -> ExportImage:
    width, height = item.image_size.width, item.image_size.height
    if width < 1 or height < 1:
        found.add(f"{path}.image_size", f"must be 1 px or more each way, not {width}×{height}")
    people = read_people(found, item.persons, skeleton, f"{path}.persons")
    for place in np.flatnonzero(_nowhere(people.poses)):
        found.add(f"{path}.persons[{place}]", "must have a box, or a keypoint that is not 0")
    return ExportImage(item.file_name, (width, height), people.poses, people.track_ids)


def _nowhere(poses: Poses) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Who has neither a box nor a point; (N,)."""
    nowhere = np.isnan(poses.boxes_xyxy).all(axis=1) & ~present(poses.keypoints).any(axis=1)
    return np.asarray(nowhere, np.bool_)


def _check_names(found: Violations, items: Sequence[pb.ExportItem], *, labels: bool) -> None:
    """File names are names and no paths, and differ; so do those of label files, if there are any."""
    names: dict[str, int] = {}
    label_files: dict[str, int] = {}
    for place, item in enumerate(items):
        field, name = f"items[{place}].file_name", item.file_name
        problem = _name_problem(name)
        if problem:
            found.add(field, problem)
            continue
        first = names.setdefault(nfc(name), place)
        if first != place:
            found.add(field, f"must be unique; {shown(name)} is items[{first}] too")
        elif labels:
            label = label_name(name)
            if len(label.encode()) > _MAX_FILE_NAME_BYTES:
                found.add(field, f"must be shorter: its label file is called {shown(label)}")
            first = label_files.setdefault(nfc(label), place)
            if first != place:
                found.add(field, f"must not share its label file {shown(label)} with items[{first}]")


def _name_problem(name: str) -> str:
    if not 1 <= len(name) <= _MAX_FILE_NAME:
        return f"must have 1 to {_MAX_FILE_NAME} characters, not {len(name)}"
    if "/" in name or "\\" in name or name in (".", ".."):
        return f"must be the name of a file without a path, not {shown(name)}"
    if any(unicodedata.category(letter) in _FORBIDDEN for letter in name):
        return f"must have no control characters: {shown(name)}"
    return ""
