"""CSV: a header, and a line for each person; px of the upright original, metres, the model's scores.

RFC 4180 with a comma and CRLF. An empty cell is an unknown value. Texts that a spreadsheet would read as a
formula are prefixed by an apostrophe, as OWASP recommends against CSV injection; so are texts
that begin with one, and removing one apostrophe restores the text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from service.core.export.files import ExportImage, File, points, rounded, rounded_scores, with_boxes
from service.core.poses import Poses
from service.core.skeleton.template import Skeleton

_COLUMNS = (
    *("file_name", "image_width", "image_height", "person", "track_id", "side", "person_index", "score"),
    *("x1", "y1", "x2", "y2"),
)
# Also in their full width, which some spreadsheets read as the same character.
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")

Cell = str | int | float


def csv_files(images: Sequence[ExportImage], skeleton: Skeleton) -> list[File]:
    """`poses.csv`.

    Its columns: file_name, image_width, image_height, person (zero-based number in the image),
    track_id, side, person_index, score, x1, y1, x2, y2; then for every keypoint NAME_x, NAME_y and
    NAME_score; and, if any person has positions, depth_source and NAME_x_m, NAME_y_m, NAME_z_m. An
    absent keypoint has empty coordinates and score 0.

    Raises:
        ValueError: a person has neither a box nor a keypoint.
    """
    with_positions = any(image.poses.positions is not None for image in images)
    header = [*_COLUMNS, *(f"{name}_{end}" for name in skeleton.names for end in ("x", "y", "score"))]
    if with_positions:
        header.append("depth_source")
        header += [f"{name}_{end}" for name in skeleton.names for end in ("x_m", "y_m", "z_m")]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(plain, header))
    for image in images:
        writer.writerows(_rows(image, len(skeleton.keypoints), with_positions=with_positions))
    return [File("poses.csv", text.getvalue().encode(), "text/csv")]


def plain(text: str) -> str:
    """The text in a form that no spreadsheet reads as a formula."""
    return f"'{text}" if text.startswith(_DANGEROUS) else text


def _rows(image: ExportImage, count: int, *, with_positions: bool) -> Iterator[list[Cell]]:
    poses = with_boxes(image.poses)
    places, point_scores, there = points(poses)
    boxes, scores = rounded(poses.boxes_xyxy).tolist(), rounded_scores(poses.scores).tolist()
    sides = [""] * len(poses) if poses.sides is None else poses.sides.tolist()
    for place, track in enumerate(image.tracks):
        owner = -1 if poses.person_index is None else int(poses.person_index[place])
        row: list[Cell] = [plain(image.file_name), *image.size_wh, place]
        row += ["" if track is None else track, sides[place], "" if owner < 0 else owner]
        row += [scores[place], *boxes[place]]
        for (x, y), score, known in zip(
            places[place].tolist(), point_scores[place].tolist(), there[place].tolist(), strict=True
        ):
            row += (x, y, score) if known else ("", "", 0)
        yield row + (_positions(poses, place, count) if with_positions else [])


def _positions(poses: Poses, place: int, count: int) -> list[Cell]:
    if poses.positions is None or not np.isfinite(poses.positions[place]).any():
        return [""] * (1 + 3 * count)
    values = rounded(poses.positions[place]).ravel().tolist()
    return [poses.depth_source, *(value if np.isfinite(value) else "" for value in values)]
