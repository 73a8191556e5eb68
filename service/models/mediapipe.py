"""MediaPipe's networks: out of the hash-pinned wheel, into the model repository.

The wheel is not installed, only unpacked: its Python code wants numpy < 2 and is not needed. The tflite files
are the same in every wheel of the release (compared: those for Python 3.11 and 3.12), so one wheel serves
every Python; pip has to be told its tags, since none fits Python 3.13. Only the standard library is used:
this is part of set-up.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REQUIREMENT = "mediapipe==0.10.21"
WHEEL_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"

PIP_OPTIONS = (
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
    "--platform=manylinux_2_28_x86_64",
)
"""For `pip download --no-deps --only-binary=:all:`, so that any Python on any machine gets that wheel."""


class MediapipeError(Exception):
    """The networks cannot be put in place; the text says which and why."""


@dataclass(frozen=True)
class Member:
    """One tflite file in the wheel."""

    path: str
    sha256: str


FILES: Mapping[str, Member] = {
    "face_detection_short_range.tflite": Member(
        "mediapipe/modules/face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    "face_landmark.tflite": Member(
        "mediapipe/modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
    "face_landmark_with_attention.tflite": Member(
        "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite",
        "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
    ),
    "hand_landmark_full.tflite": Member(
        "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    ),
    "hand_recrop.tflite": Member(
        "mediapipe/modules/holistic_landmark/hand_recrop.tflite",
        "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
    ),
    "palm_detection_full.tflite": Member(
        "mediapipe/modules/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
    ),
    "pose_detection.tflite": Member(
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    ),
    "pose_landmark_full.tflite": Member(
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    ),
}
LICENCE = "mediapipe-0.10.21.dist-info/LICENSE"


def unpack(wheel: Path, folder: Path) -> None:
    """Take the tflite files and their licence out of the wheel, each verified; all of them or none.

    Args:
        wheel: the wheel of `REQUIREMENT`.
        folder: where they go; a folder of that name is replaced.

    Raises:
        MediapipeError: a file is not in the wheel, or not the one it should be.
    """
    with _aside(folder) as partial, _opened(wheel) as archive:
        for name, member in FILES.items():
            try:
                content = archive.read(member.path)
            except (KeyError, zipfile.BadZipFile) as error:
                raise MediapipeError(f"{wheel.name} has no readable {member.path}") from error
            _check(name, content)
            (partial / name).write_bytes(content)
        (partial / "LICENSE").write_bytes(archive.read(LICENCE))


def fill(repository: Path, weights: Path, name: str = "mediapipe_wholebody") -> bool:
    """Put the tflite files into `1/` of a model whose `config.pbtxt` is there; all of them or none.

    Args:
        repository: the folder that holds `cpu/`.
        weights: the folder that `unpack` filled.

    Returns:
        Whether they were written; False if they were there already.

    Raises:
        MediapipeError: no such model, or a file is missing or altered.
    """
    model = repository / "cpu" / name
    if not (model / "config.pbtxt").is_file():
        raise MediapipeError(f"there is no {model / 'config.pbtxt'}")
    if is_complete(model / "1"):
        return False
    with _aside(model / "1", beside=repository) as partial:
        for file in FILES:
            try:
                content = (weights / file).read_bytes()
            except OSError as error:
                raise MediapipeError(f"there is no {weights / file}; run scripts/setup") from error
            _check(file, content)
            (partial / file).write_bytes(content)
    return True


def is_complete(folder: Path) -> bool:
    """Whether every tflite file is in `folder`, unaltered."""
    try:
        for name in FILES:
            _check(name, (folder / name).read_bytes())
    except (OSError, MediapipeError):
        return False
    return True


def _check(name: str, content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != FILES[name].sha256:
        raise MediapipeError(f"{name} has the sha256 {found}, not {FILES[name].sha256}")


def _opened(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (OSError, zipfile.BadZipFile) as error:
        raise MediapipeError(f"{wheel} cannot be read as a wheel") from error


@contextmanager
def _aside(target: Path, beside: Path | None = None) -> Iterator[Path]:
    """A folder that takes the place of `target` when the block ends without an error.

    It is made in `beside`, without which that is the parent of `target`: Triton must not see it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    where = beside or target.parent
    partial, retired = where / f"{target.name}.partial", where / f"{target.name}.old.partial"
    for leftover in (partial, retired):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if target.exists():
            target.rename(retired)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
