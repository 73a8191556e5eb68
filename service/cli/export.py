"""`posegate export`: results of `posegate detect --json` to files that training tools read."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict, ParseError

from posegate.v1 import pose_service_pb2, types_pb2
from posegate.v1 import skeleton_service_pb2 as pb
from posegate.v1.skeleton_service_pb2_grpc import SkeletonServiceStub
from service.cli import options
from service.cli.connection import GatewayCommand, Target, gateway_of
from service.cli.detect import count_people, counted_people
from service.cli.failures import CommandError

app = typer.Typer(add_completion=False)


class ExportFormat(StrEnum):
    """Format of the files."""

    coco = "coco"
    yolo = "yolo"
    csv = "csv"


_FORMATS = {
    ExportFormat.coco: pb.EXPORT_FORMAT_COCO_JSON,
    ExportFormat.yolo: pb.EXPORT_FORMAT_YOLO_TXT,
    ExportFormat.csv: pb.EXPORT_FORMAT_CSV,
}


@dataclass(frozen=True)
class ExportConfig:
    """What to write.

    Attributes:
        gateway: to call.
        format: of the files.
        folder: where the files go; made if it is not there.
        skeleton: of the results; empty: the one they name.
        visible_score: smallest score of a keypoint that is written as visible; None: the service's default.
        timeout_s: of the call.
    """

    gateway: Target
    format: ExportFormat
    folder: Path
    skeleton: str
    visible_score: float | None
    timeout_s: float


class BadResults(CommandError):
    """The file does not hold results that can be exported together; the text says why."""


@dataclass(frozen=True)
class _Result:
    image: str
    answer: pose_service_pb2.DetectPosesResponse


@app.command(cls=GatewayCommand)
def command(
    context: typer.Context,
    results: Annotated[Path, typer.Argument(help="JSON Lines of `posegate detect --json`; - for stdin.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the files; made if it is not there.")],
    export_format: Annotated[
        ExportFormat, typer.Option("--format", help="COCO keypoints JSON, Ultralytics YOLO pose, or CSV.")
    ] = ExportFormat.coco,
    skeleton: Annotated[
        str, typer.Option("--skeleton", help="Skeleton of the results; empty: the one they name.")
    ] = "",
    visible_score: Annotated[
        float | None,
        typer.Option(
            "--visible-score",
            help="Smallest score of a keypoint that COCO and YOLO count as visible; 0.5 by default.",
        ),
    ] = None,
    timeout: options.Timeout = 300.0,
) -> None:
    """Write detected people as files for training tools."""
    config = ExportConfig(gateway_of(context), export_format, folder, skeleton, visible_score, timeout)
    asyncio.run(export(results, config))


async def export(file: Path, config: ExportConfig) -> None:
    """Write the files, and print what was written.

    Args:
        file: JSON Lines; - for stdin.
        config: what to write, and where.

    Raises:
        BadResults: the file cannot be exported.
        OSError: it cannot be read, or the folder cannot be written.
        grpc.aio.AioRpcError: the call failed.
    """
    if str(file) == "-":
        results, failed = _read(sys.stdin, "stdin")
    else:
        with file.open(encoding="utf-8", errors="replace") as lines:
            results, failed = _read(lines, str(file))
    if not results:
        raise BadResults(f"{file} holds no results")
    request = pb.ExportPosesRequest(
        format=_FORMATS[config.format],
        skeleton=config.skeleton or _skeleton(results),
        items=_items(results),
        visible_score=config.visible_score,
    )
    async with config.gateway.connect() as channel:
        answer = await SkeletonServiceStub(channel).ExportPoses(request, timeout=config.timeout_s)
    paths = [_write(config.folder, file) for file in answer.files]
    people = counted_people(sum(count_people(item.persons) for item in request.items))
    print(f"{_images(len(request.items))}, {people}, {request.skeleton}: {_listed(paths)}")
    if failed:
        print(f"without a result and left out: {_images(failed)}", file=sys.stderr)


def _read(lines: Iterable[str], name: str) -> tuple[list[_Result], int]:
    """The results, and the number of images without one."""
    results: list[_Result] = []
    failed = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            image = data.pop("picture")
            if "error" in data:
                failed += 1
                continue
            answer = ParseDict(data, pose_service_pb2.DetectPosesResponse(), ignore_unknown_fields=True)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ParseError) as error:
            raise BadResults(f"{name}, line {number}: not a result of posegate detect --json") from error
        if not isinstance(image, str):
            raise BadResults(f"{name}, line {number}: `picture` is not text")
        results.append(_Result(image, answer))
    return results, failed


def _skeleton(results: Sequence[_Result]) -> str:
    names = sorted({result.answer.skeleton for result in results})
    if len(names) > 1:
        raise BadResults(f"the results are in several skeletons: {', '.join(names)}; export each alone")
    if not names[0]:
        raise BadResults("the results name no skeleton: say which with --skeleton")
    return names[0]


def _items(results: Sequence[_Result]) -> Iterator[pb.ExportItem]:
    """Images of one name in different folders, or with different endings, get a number."""
    taken: set[str] = set()
    for result in results:
        path = PurePath(result.image.encode("utf-8", "replace").decode())
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
    """Write a partial file, then rename it. Label files go where Ultralytics looks for them: labels/."""
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


def _images(count: int) -> str:
    return f"{count} {'image' if count == 1 else 'images'}"
