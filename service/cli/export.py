"""`posegate export`: results of `posegate detect --json` to files that training tools read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from google.protobuf.json_format import ParseDict, ParseError

from posegate.v1 import pose_service_pb2, types_pb2
from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.cli.connection import Target

FORMATS = {
    "coco": pb.EXPORT_FORMAT_COCO_JSON,
    "yolo": pb.EXPORT_FORMAT_YOLO_TXT,
    "csv": pb.EXPORT_FORMAT_CSV,
}


@dataclass(frozen=True)
class Wish:
    """What to write.

    Attributes:
        gateway: to ask.
        format: a key of `FORMATS`.
        folder: where the files go; made if it is not there.
        skeleton: that the results are in; empty: the one they name.
        timeout_s: for the call.
    """

    gateway: Target
    format: str
    folder: Path
    skeleton: str
    timeout_s: float


class BadResults(Exception):
    """The file does not hold results that can be exported together; the text says why."""


@dataclass(frozen=True)
class _Result:
    picture: str
    answer: pose_service_pb2.DetectPosesResponse


async def export(file: Path, wish: Wish) -> None:
    """Write the files, and say what was written.

    Args:
        file: JSON Lines; - for stdin.
        wish: what to write, and where.

    Raises:
        BadResults: the file cannot be exported.
        OSError: it cannot be read, or the folder cannot be written.
        grpc.aio.AioRpcError: the gateway refused it, or did not answer.
    """
    if str(file) == "-":
        results, failed = _read(sys.stdin, "stdin")
    else:
        with file.open(encoding="utf-8", errors="replace") as lines:
            results, failed = _read(lines, str(file))
    if not results:
        raise BadResults(f"{file} holds no results")
    request = pb.ExportPosesRequest(
        format=FORMATS[wish.format],
        skeleton=wish.skeleton or _skeleton(results),
        items=_items(results),
    )
    async with wish.gateway.connect() as channel:
        answer = await SkeletonServiceStub(channel).ExportPoses(request, timeout=wish.timeout_s)
    paths = [_write(wish.folder, file) for file in answer.files]
    people = sum(len(item.persons) for item in request.items)
    print(f"{len(request.items)} pictures, {people} people, {request.skeleton}: {_listed(paths)}")
    if failed:
        print(f"{failed} pictures have no result and were left out", file=sys.stderr)


def _read(lines: Iterable[str], name: str) -> tuple[list[_Result], int]:
    """The results, and how many pictures have none."""
    results: list[_Result] = []
    failed = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            picture = data.pop("picture")
            if "error" in data:
                failed += 1
                continue
            answer = ParseDict(data, pose_service_pb2.DetectPosesResponse(), ignore_unknown_fields=True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ParseError) as error:
            raise BadResults(f"{name}, line {number}: not a result of posegate detect --json") from error
        if not isinstance(picture, str):
            raise BadResults(f"{name}, line {number}: `picture` is not text")
        results.append(_Result(picture, answer))
    return results, failed


def _skeleton(results: Sequence[_Result]) -> str:
    names = sorted({result.answer.skeleton for result in results})
    if len(names) > 1:
        raise BadResults(f"the results are in several skeletons: {', '.join(names)}; export each alone")
    if not names[0]:
        raise BadResults("the results name no skeleton: say which with --skeleton")
    return names[0]


def _items(results: Sequence[_Result]) -> Iterator[pb.ExportItem]:
    """Pictures of one name in different folders get a number, and so do those that differ in their ending."""
    taken: set[str] = set()
    for result in results:
        path = PurePath(result.picture.encode("utf-8", "replace").decode())
        stem, number = path.stem, 1
        while stem in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem)
        if number > 1:
            print(f"{path} is exported as {stem}{path.suffix}", file=sys.stderr)
        yield pb.ExportItem(
            file_name=f"{stem}{path.suffix}",
            image_size=types_pb2.ImageSize(
                width=result.answer.image_size.width, height=result.answer.image_size.height
            ),
            persons=result.answer.persons,
        )


def _write(folder: Path, file: pb.ExportedFile) -> Path:
    """Writes aside, then renames. Label files go where Ultralytics looks for them: labels/."""
    if PurePath(file.name).name != file.name:
        raise BadResults(f"the gateway answered with a file called {file.name!r}")
    target = folder / "labels" if file.media_type == "text/plain" else folder
    target.mkdir(parents=True, exist_ok=True)
    partial = target / ".partial"
    partial.write_bytes(file.content)
    return partial.replace(target / file.name)


def _listed(paths: Sequence[Path]) -> str:
    if len(paths) <= 3:
        return ", ".join(map(str, paths))
    return f"{len(paths)} files in {paths[-1].parent}"
