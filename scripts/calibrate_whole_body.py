"""Accuracy of a whole-body model on annotated images, by part of the body.

    scripts/calibrate whole-body FOLDER --annotations coco_wholebody.json [--enlarge 2] [--draw DIR]

FOLDER has the images, the file COCO-WholeBody's annotations of them. The service is started, asked for
`coco_wholebody_133` of each image, and its answers are compared with the annotation: which annotated points
are given and how far they are off, every annotated hand and face with its size in px, what was given where
nothing is annotated, parts that two persons share, and how far the 3D body appears from the 2D one.
`--enlarge` does the same with the images enlarged, which shows what the size of hands has to do with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.benchmark import NO_LIMITS, running_service
from service.client import connect
from service.core.geometry import Rgb8
from service.media.image import decode, encode

MODEL = "mediapipe_wholebody"
PARTS = {
    "body": slice(0, 17),
    "feet": slice(17, 23),
    "face": slice(23, 91),
    "left hand": slice(91, 112),
    "right hand": slice(112, 133),
}
MAX_APART = 0.5  # median distance of bodies, in √area, up to which an answer is the annotated person's
SHARED = 0.3  # median distance, in extents, below which a hand or a face of two persons is one
MIN_SCORE_3D = 0.3  # of a joint that counts for the distance between 2D and 3D

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Annotated:
    """One annotated person: (133, 3) px and visibility, area in px², box of each hand and of the face (w,
    h)."""

    number: int
    points: Floats
    area: float
    sizes: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Answered:
    """One person of an answer: (133, 3) px and score, (133, 3) metres."""

    points: Floats
    positions: Floats


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="scripts/calibrate whole-body", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the images")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO-WholeBody's JSON of them")
    parser.add_argument("--enlarge", type=float, default=1.0, help="enlarge the images so many times first")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--draw", type=Path, help="write the images with what was found into this folder")
    arguments = parser.parse_args()
    annotations = read_annotations(
        json.loads(arguments.annotations.read_text(encoding="utf-8")), arguments.enlarge
    )
    with running_service(None) as (address, _, _):
        pairs = list(asyncio.run(_answers(address, arguments, annotations)))
    report(pairs, Console(width=110))
    return 0


def read_annotations(data: Any, enlarge: float) -> dict[str, list[Annotated]]:
    """The annotated persons of each file, in px of the enlarged image; crowds are left out."""
    names = {image["id"]: image["file_name"] for image in data["images"]}
    persons: dict[str, list[Annotated]] = {name: [] for name in names.values()}
    for one in data["annotations"]:
        if one.get("iscrowd"):
            continue
        flat = [*one["keypoints"], *one["foot_kpts"], *one["face_kpts"], *one["lefthand_kpts"]]
        points = np.array([*flat, *one["righthand_kpts"]], np.float64).reshape(133, 3)
        points[:, :2] *= enlarge
        sizes = {
            part: max(one[f"{name}_box"][2:]) * enlarge
            for part, name in (("face", "face"), ("left hand", "lefthand"), ("right hand", "righthand"))
            if one[f"{name}_valid"]
        }
        persons[names[one["image_id"]]].append(Annotated(one["id"], points, one["area"] * enlarge**2, sizes))
    return persons


def match(annotated: Sequence[Annotated], answered: Sequence[Answered]) -> list[Answered | None]:
    """The answer that is each annotated person's: nearest bodies first, each answer once."""
    pairs = []
    for place, person in enumerate(annotated):
        seen = person.points[:17, 2] > 0
        if seen.sum() < 3:
            continue
        for number, answer in enumerate(answered):
            away = np.linalg.norm(answer.points[:17, :2] - person.points[:17, :2], axis=1)[seen]
            pairs.append((float(np.median(away)) / person.area**0.5, place, number))
    found: list[Answered | None] = [None] * len(annotated)
    taken: set[int] = set()
    for apart, place, number in sorted(pairs):
        if apart <= MAX_APART and found[place] is None and number not in taken:
            found[place] = answered[number]
            taken.add(number)
    return found


def part_error(person: Annotated, answer: Answered, part: str) -> float | None:
    """Median distance of a part's annotated points in percent of its box's longer side; None if not given."""
    rows = PARTS[part]
    seen = (person.points[rows, 2] > 0) & (answer.points[rows, 2] > 0)
    if not seen.any():
        return None
    away = np.linalg.norm(answer.points[rows, :2] - person.points[rows, :2], axis=1)[seen]
    return 100 * float(np.median(away)) / person.sizes[part]


def shared_parts(answered: Sequence[Answered]) -> int:
    """Pairs of hands, and of faces, of two persons of one image that are the same part."""
    shared = 0
    for kinds in (("left hand", "right hand"), ("face",)):
        found = [
            (number, answer.points[PARTS[kind], :2])
            for number, answer in enumerate(answered)
            for kind in kinds
            if (answer.points[PARTS[kind], 2] > 0).all()
        ]
        for place, (owner, points) in enumerate(found):
            for other, others in found[place + 1 :]:
                extent = max(float(np.ptp(points, axis=0).max()), float(np.ptp(others, axis=0).max()), 1.0)
                apart = float(np.median(np.linalg.norm(points - others, axis=1)))
                shared += owner != other and apart <= SHARED * extent
    return shared


def reprojection(answer: Answered) -> float | None:
    """Median distance of the body's 3D points from its 2D points by the best weak-perspective camera, in
    percent of the body's height; None without six joints that have both."""
    both = np.isfinite(answer.positions[:17]).all(axis=1) & (answer.points[:17, 2] > MIN_SCORE_3D)
    if both.sum() < 6:
        return None
    world, points = answer.positions[:17][both, :2], answer.points[:17][both, :2]
    world, points = world - world.mean(axis=0), points - points.mean(axis=0)
    scale = (world * points).sum() / max((world * world).sum(), 1e-9)
    away = np.linalg.norm(points - scale * world, axis=1)
    return 100 * float(np.median(away)) / max(float(np.ptp(points[:, 1])), 1.0)


def report(pairs: Sequence[tuple[str, list[Annotated], list[Answered]]], console: Console) -> None:
    """Print the tables for (file name, annotated persons, answered persons) of each image."""
    matched = [
        (name, person, answer)
        for name, annotated, answered in pairs
        for person, answer in zip(annotated, match(annotated, answered), strict=True)
        if answer is not None
    ]
    parts = Table(title="annotated points that are given, and how far they are off in % of √area")
    for title in ("part", "given", "median", "90 %"):
        parts.add_column(title, justify="right")
    for part, rows in PARTS.items():
        errors: list[float] = []
        count = 0
        for _, person, answer in matched:
            seen = person.points[rows, 2] > 0
            given = seen & (answer.points[rows, 2] > 0)
            away = np.linalg.norm(answer.points[rows, :2] - person.points[rows, :2], axis=1)[given]
            errors += (100 * away / person.area**0.5).tolist()
            count += int(seen.sum())
        figures = [f"{np.percentile(errors, share):.1f}" for share in (50, 90)] if errors else ["", ""]
        parts.add_row(part, f"{len(errors)} of {count}", *figures)
    console.print(parts)
    single = Table(title="hands and faces one by one: error in % of the part's longer side")
    for title in ("image", "person", "part", "px", "error", "score"):
        single.add_column(title, justify="right")
    for name, person, answer in matched:
        for part in ("left hand", "right hand", "face"):
            score = float(answer.points[PARTS[part], 2].max())
            size = person.sizes.get(part)
            if size is None and not score:
                continue
            error = None if size is None else part_error(person, answer, part)
            error_text = (
                "not annotated" if size is None else "not given" if error is None else f"{error:.0f} %"
            )
            single.add_row(name, str(person.number), part, f"{size or 0:.0f}", error_text, f"{score:.2f}")
    console.print(single)
    off = [value for _, _, answered in pairs for one in answered if (value := reprojection(one)) is not None]
    console.print(
        f"{sum(len(answered) for _, _, answered in pairs)} persons found, {len(matched)} of them annotated; "
        f"hands and faces of two persons at once: {sum(shared_parts(answered) for _, _, answered in pairs)}"
    )
    if off:
        console.print(
            f"3D against 2D: median {np.median(off):.1f} %, at most {max(off):.1f} % of the body's height"
        )


async def _answers(
    address: str, arguments: argparse.Namespace, annotations: Mapping[str, list[Annotated]]
) -> list[tuple[str, list[Annotated], list[Answered]]]:
    found = []
    overlay = types_pb2.OverlayOptions(format=types_pb2.OVERLAY_FORMAT_PNG) if arguments.draw else None
    async with connect(address) as channel:
        stub = PoseServiceStub(channel)
        for name, persons in annotations.items():
            image = _enlarged(decode((arguments.folder / name).read_bytes(), NO_LIMITS), arguments.enlarge)
            request = pb.DetectPosesRequest(
                image=types_pb2.Image(content=encode(image, "png")),
                model=arguments.model,
                skeleton="coco_wholebody_133",
                include_positions=True,
                overlay=overlay,
            )
            answer = await stub.DetectPoses(request, timeout=60)
            if arguments.draw:
                arguments.draw.mkdir(parents=True, exist_ok=True)
                (arguments.draw / f"{Path(name).stem}.png").write_bytes(answer.overlay.content)
            found.append((name, persons, list(_persons(answer))))
    return found


def _enlarged(image: Rgb8, times: float) -> Rgb8:
    if times == 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC), np.uint8)


def _persons(answer: pb.DetectPosesResponse) -> Iterator[Answered]:
    for person in answer.persons:
        points = np.array([[point.x, point.y, point.score] for point in person.keypoints])
        places = np.array([[place.x, place.y, place.z] for place in person.positions])
        yield Answered(points, places if len(places) else np.full(points.shape, np.nan))


if __name__ == "__main__":
    sys.exit(main())
