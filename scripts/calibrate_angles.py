"""Repeatability of joint angles: the same persons in forty variants of an image, and in still seconds.

    scripts/calibrate angles FILE... [--check FILE...] [--model M...] [--detections FILE.npz] [--fit]

The service is started and asked for the persons of every variant (`scripts.picture_variants`: shifted,
scaled, compressed, brighter or darker, mirrored). They show the same persons, so how far the angles are apart
is what `std_error_deg` has to say. The table gives for each measurement the share of values with status OK
that lie within two standard errors of the variants' median; 90 to 98 % is the goal. The 95 % interval of the
share takes into account that the values of one person are much alike; `few` are fewer than ten persons, of
whom a share says little. The files after --check have columns of their own. The last column says how many of
the DEGRADED values have the sign of their median, where that is clear of 0. A second table says how far the
values of each image and of the mirrored one are apart, both status OK, in standard errors of the difference.
--fit fits λ, the correlations of keypoints and a factor of each measurement to the first files
(`scripts.fit_noise`) and prints the tables that `service/core/angles/noise.py` holds; the columns then say
what they would be with them.

Of a video every second counts in which a person stands still. --detections keeps what the service found, file
by file; a run that was stopped goes on from there, and another fit needs no service.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from scripts.benchmark import NO_LIMITS, running_service
from scripts.fit_noise import (
    BODY,
    GOAL_ERRORS,
    AngleScatter,
    Correlations,
    Scattered,
    against_mirrored,
    angle_scatter,
    fit,
    fit_correlations,
    fit_factors,
    in_errors_by_person,
    same_direction,
    share_within,
)
from scripts.picture_variants import Variant, variants
from service.cli.files import write_whole
from service.client import connect
from service.core.angles import MEASUREMENTS
from service.core.poses import Floats
from service.core.skeleton.template import Skeleton
from service.media.image import decode
from service.skeletons import shipped

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

Values = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

MODELS = ("yolo11n_pose", "mediapipe_wholebody")
SKELETONS = {"yolo11n_pose": "coco_17", "mediapipe_wholebody": "mediapipe_wholebody"}
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")
MAX_APART = 0.25  # of the sure body keypoints from those in the image itself, median, in √area of the box
FEW_PERSONS = 10  # of whom a share says little
LEAST_FOUND = 20  # variants, or half of a second's frames, that have to show a person
STILL = 0.01  # of the box's longer side: how far the parts of a still body move within a second
_SURE = 0.5
_AT_ONCE = 4
_CHUNK = 1 << 18


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="scripts/calibrate angles", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="images and videos")
    parser.add_argument("--check", nargs="+", type=Path, default=[], help="others, which are not fitted to")
    parser.add_argument("--model", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--detections", type=Path, help="keep what was found here (.npz), and go on from it")
    parser.add_argument("--fit", action="store_true", help="fit λ and print the table")
    arguments = parser.parse_args()
    known = _read(arguments.detections) if arguments.detections and arguments.detections.exists() else {}
    wanted = [(path, model) for path in (*arguments.files, *arguments.check) for model in arguments.model]
    missing = [(path, model) for path, model in wanted if (path.name, model) not in known]
    if missing:
        with running_service(None) as (address, _, _):
            asyncio.run(_collect_all(address, missing, known, arguments.detections))
    console = Console(width=170)
    groups = {
        model: [
            [one for path in paths for one in known[path.name, model]]
            for paths in (arguments.files, arguments.check)
        ]
        for model in arguments.model
    }
    fitted = fit_all({model: tuned for model, (tuned, _) in groups.items()}) if arguments.fit else {}
    for model, (tuned, checked) in groups.items():
        report(model, tuned, checked, fitted=fitted.get(model), console=console)
    return 0


@dataclass(frozen=True)
class Fitted:
    """The tables of `service/core/angles/noise.py` for one model."""

    noise: dict[str, tuple[float, ...]]
    correlations: Correlations
    factors: dict[str, float]

    def applied_to(self, scatters: Sequence[AngleScatter]) -> list[Values]:
        """Standard errors with these tables, (V, M, 2) of each person."""
        mixed = [one.correlated(self.correlations) for one in scatters]
        return [one.errors_with(self.noise, self.factors) for one in mixed]


def fit_all(persons: Mapping[str, Sequence[Scattered]]) -> dict[str, Fitted]:
    """The tables of each model that fit its persons; the factors fit those of all models."""
    found: dict[str, Fitted] = {}
    everybody: list[AngleScatter] = []
    errors: list[Values] = []
    for model, tuned in persons.items():
        skeleton = shipped()[SKELETONS[model]]
        scatters = [angle_scatter(one, skeleton) for one in tuned]
        correlations = fit_correlations(tuned, scatters)
        noise = fit([(one, skeleton) for one in tuned], correlations)
        found[model] = Fitted(noise, correlations, {})
        everybody += scatters
        errors += found[model].applied_to(scatters)
    factors = fit_factors(everybody, errors)
    return {model: replace(one, factors=factors) for model, one in found.items()}


def report(
    model: str,
    tuned: Sequence[Scattered],
    checked: Sequence[Scattered],
    *,
    fitted: Fitted | None,
    console: Console,
) -> None:
    """Print what is within two standard errors, and the tables of noise if they are to be fitted."""
    skeleton = shipped()[SKELETONS[model]]
    groups, signs, mirrored = [], [], []
    for persons in (tuned, checked):
        scatters = [angle_scatter(one, skeleton) for one in persons]
        errors = None if fitted is None else fitted.applied_to(scatters)
        groups.append(in_errors_by_person(scatters, errors))
        signs.append(same_direction(scatters))
        mirrored.append(against_mirrored(persons, scatters, errors))
    shown = Table(title=f"{model}: status OK within {GOAL_ERRORS:.0f} standard errors of the median")
    titles = [
        f"{of}{title}"
        for of in ("", "check: ")
        for title in ("values", "persons", "within", "95 % interval", "95 % within")
    ]
    for title in ("measurement", *titles, "DEGRADED: same sign"):
        shown.add_column(title, justify="right", no_wrap=title == "measurement")
    for name in MEASUREMENTS:
        cells = [cell for group in groups for cell in _cells(group[name])]
        same = np.concatenate([group[name] for group in signs])
        if any(cells):
            shown.add_row(name, *cells, f"{100 * same.mean():.0f} % of {len(same)}" if len(same) else "")
    shown.add_row("all", *(cell for group in groups for cell in _of_all(group)), "")
    console.print(shown)
    console.print(
        _of_mirrored(model, {name: np.concatenate([one[name] for one in mirrored]) for name in MEASUREMENTS})
    )
    if fitted is None:
        return
    for kind, row in fitted.noise.items():
        console.print(f'    "{kind}": ({", ".join(f"{value:.2f}" for value in row)}),', highlight=False)
    for (first, second), (near, far) in sorted(fitted.correlations.items()):
        console.print(f'    ("{first}", "{second}"): ({near:.2f}, {far:.2f}),', highlight=False)
    for name, factor in fitted.factors.items():
        console.print(f'    "{name}": {factor:.2f},', highlight=False)


def _of_mirrored(model: str, values: dict[str, Values]) -> Table:
    """The table of images against mirrored ones, of all files."""
    shown = Table(title=f"{model}: image against mirrored, in standard errors of both")
    for title in ("measurement", "pairs", "median", "within 1", "within 2"):
        shown.add_column(title, justify="right")
    for name, apart in {**values, "all": np.concatenate(list(values.values()))}.items():
        if len(apart):
            shares = [f"{100 * float(np.mean(apart <= most)):.0f} %" for most in (1, 2)]
            shown.add_row(name, str(len(apart)), f"{np.median(apart):.2f}", *shares)
    return shown


def _cells(persons: Sequence[Values]) -> tuple[str, str, str, str, str]:
    if not persons:
        return "", "", "", "", ""
    values = np.concatenate(persons)
    share, low, high = (100 * part for part in share_within(persons))
    few = " few" if len(persons) < FEW_PERSONS else ""
    interval = f"{low:.0f}–{high:.0f} %{few}"
    return str(len(values)), str(len(persons)), f"{share:.1f} %", interval, f"{np.percentile(values, 95):.1f}"


def _of_all(group: Mapping[str, Sequence[Values]]) -> tuple[str, str, str, str, str]:
    values = np.concatenate([np.zeros(0), *(part for parts in group.values() for part in parts)])
    if not len(values):
        return "", "", "", "", ""
    within = 100 * float(np.mean(values <= GOAL_ERRORS))
    return str(len(values)), "", f"{within:.1f} %", "", f"{np.percentile(values, 95):.1f}"


async def _collect_all(
    address: str,
    missing: Sequence[tuple[Path, str]],
    known: dict[tuple[str, str], list[Scattered]],
    keep: Path | None,
) -> None:
    async with connect(address) as channel:
        stub = PoseServiceStub(channel)
        for path, model in missing:
            collect = of_video if path.suffix.lower() in VIDEOS else of_image
            known[path.name, model] = await collect(stub, path, model)
            print(f"{path.name}: {model}, {len(known[path.name, model])}", file=sys.stderr, flush=True)
            if keep is not None:
                write_whole(keep, _packed(known))


async def of_image(stub: PoseServiceAsyncStub, path: Path, model: str) -> list[Scattered]:
    """Every person of an image, in all variants."""
    image = decode(await asyncio.to_thread(path.read_bytes), NO_LIMITS)
    height, width = image.shape[:2]
    changed = list(variants(image))
    answers: list[tuple[Floats, Floats]] = []
    for start in range(0, len(changed), _AT_ONCE):
        calls = (_detect(stub, variant, model, width) for variant in changed[start : start + _AT_ONCE])
        answers += await asyncio.gather(*calls)
    persons = []
    for number in range(len(answers[0][0])):
        found = [same_person(answers[0], number, answer) for answer in answers]
        keypoints, boxes = (np.stack(arrays) for arrays in zip(*found, strict=True))
        if np.isfinite(boxes[:, 0]).sum() >= LEAST_FOUND:
            persons.append(Scattered(f"{path.name}#{number}", model, keypoints, boxes, (width, height)))
    return persons


async def _detect(
    stub: PoseServiceAsyncStub, variant: Variant, model: str, width: int
) -> tuple[Floats, Floats]:
    """Keypoints (N, K, 3) and boxes (N, 4) of the persons, in px of the image itself."""
    # every px as it is, without the time that compressing takes
    content = cv2.imencode(".bmp", variant.image[..., ::-1])[1].tobytes()
    request = pb.DetectPosesRequest(image=types_pb2.Image(content=content), model=model)
    answer = await stub.DetectPoses(request, timeout=120)
    skeleton = shipped()[SKELETONS[model]]
    return (
        variant.keypoints_back(_keypoints(answer.persons, skeleton), skeleton, width),
        variant.boxes_back(_boxes(answer.persons), width),
    )


def _keypoints(persons: Sequence[types_pb2.Person], skeleton: Skeleton) -> Floats:
    rows = [[[point.x, point.y, point.score] for point in person.keypoints] for person in persons]
    return np.array(rows, np.float32).reshape(-1, len(skeleton.keypoints), 3)


def _boxes(persons: Sequence[types_pb2.Person]) -> Floats:
    rows = [[one.box.x1, one.box.y1, one.box.x2, one.box.y2] for one in persons]
    return np.array(rows, np.float32).reshape(-1, 4)


def same_person(
    first: tuple[Floats, Floats], number: int, answer: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Keypoints and box in an answer of the person that has this number in the first one; NaN without."""
    keypoints, box = first[0][number], first[1][number]
    sure = np.flatnonzero(keypoints[BODY, 2] > _SURE) + BODY.start
    nothing = np.full_like(keypoints, np.nan), np.full_like(box, np.nan)
    if len(sure) < 3 or not len(answer[0]):
        return nothing
    away = np.linalg.norm(answer[0][:, sure, :2] - keypoints[sure, :2], axis=2)
    apart = np.median(away, axis=1)
    nearest = int(apart.argmin())
    if apart[nearest] > MAX_APART * np.sqrt(np.prod(box[2:] - box[:2])):
        return nothing
    return answer[0][nearest], answer[1][nearest]


async def of_video(stub: PoseServiceAsyncStub, path: Path, model: str) -> list[Scattered]:
    """Every second in which a person stands still."""

    content = await asyncio.to_thread(path.read_bytes)

    async def requests() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(model=model))
        for start in range(0, len(content), _CHUNK):
            yield pb.AnalyzeVideoRequest(chunk=content[start : start + _CHUNK])

    skeleton = shipped()[SKELETONS[model]]
    tracks: dict[int, list[tuple[float, Floats, Floats]]] = {}
    size = (0, 0)
    async for answer in stub.AnalyzeVideo(requests(), timeout=600):
        if answer.HasField("summary"):
            size = (answer.summary.frame_width, answer.summary.frame_height)
        elif answer.HasField("frame"):
            frame = answer.frame
            seconds = frame.time.seconds + frame.time.nanos / 1e9
            found_here = _keypoints(frame.persons, skeleton), _boxes(frame.persons)
            for person, keypoints, box in zip(frame.persons, *found_here, strict=True):
                tracks.setdefault(person.track_id, []).append((seconds, keypoints, box))
    found = []
    for track, seen in tracks.items():
        for second in sorted({int(at) for at, _, _ in seen}):
            chosen = [(keypoints, box) for at, keypoints, box in seen if int(at) == second]
            keypoints, boxes = (np.stack(arrays) for arrays in zip(*chosen, strict=True))
            if len(chosen) >= LEAST_FOUND and is_still(keypoints, boxes):
                found.append(Scattered(f"{path.name}#{track}@{second}", model, keypoints, boxes, size))
    return found


def is_still(keypoints: Floats, boxes: Floats) -> bool:
    """Whether the sure keypoints of the body are where they were, from the first third to the last."""
    third = len(keypoints) // 3
    sure = (keypoints[:, BODY, 2] > _SURE).all(axis=0)
    body = keypoints[:, BODY, :2][:, sure]
    if not sure.any() or not third:
        return False
    moved = np.linalg.norm(np.median(body[-third:], axis=0) - np.median(body[:third], axis=0), axis=1)
    size = np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))
    return bool(moved.max() <= max(1.0, STILL * size))


def _packed(known: dict[tuple[str, str], list[Scattered]]) -> bytes:
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    for (name, model), persons in known.items():
        arrays[f"{name}|{model}|"] = np.zeros(0, np.float32)  # a file without persons is known too
        for one in persons:
            key = f"{name}|{model}|{one.source}"
            arrays[f"{key}|keypoints"], arrays[f"{key}|boxes"] = one.keypoints, one.boxes
            arrays[f"{key}|size"] = np.array(one.size_wh, np.float32)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _read(path: Path) -> dict[tuple[str, str], list[Scattered]]:
    known: dict[tuple[str, str], list[Scattered]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            name, model, source, *field = key.split("|")
            persons = known.setdefault((name, model), [])
            if field == ["keypoints"]:
                prefix = key.removesuffix("keypoints")
                width, height = (int(side) for side in arrays[f"{prefix}size"])
                boxes = arrays[f"{prefix}boxes"]
                persons.append(Scattered(source, model, arrays[key], boxes, (width, height)))
    return known


if __name__ == "__main__":
    sys.exit(main())
