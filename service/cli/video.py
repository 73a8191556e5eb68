"""`posegate video`: a video to JSON Lines, an annotated video, a plot of angles and a table.

Results are written to `.partial` files that get their names when they are complete. The JSON Lines file of an
interrupted run is continued.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TextIO

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from rich.console import Console

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli import options, plots
from service.cli.angles import AngleConfig
from service.cli.connection import GatewayCommand, Target, gateway_of
from service.cli.failures import BadOption, CommandError, Interrupted
from service.cli.files import is_device, partial, write_whole
from service.cli.formats import kind_of
from service.cli.images import as_dict
from service.cli.resume import DAMAGE, Earlier, earlier, summary_of
from service.cli.video_report import Curves, progress_bar, report, show_progress
from service.client import lost_its_status, refusal_of

app = typer.Typer(add_completion=False)

_INFO_TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 18
_MAX_S = 86_400.0 * 365
_MAX_CURVES = 8
_TEMPORARY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


class Layout(StrEnum):
    """Shape of the frames in the results."""

    persons = "persons"
    flat = "flat"


@dataclass(frozen=True)
class AnalysisConfig:
    """How to analyse a video, and what to write; None and empty are the service's defaults, or nothing.

    Attributes:
        gateway: to call.
        angles: the measurements and how they are taken.
        model: name of the model.
        model_version: its version.
        skeleton: of the keypoints.
        min_score: people below are left out.
        layout: of the frames in `out`.
        every_nth: analyse every n-th frame.
        target_fps: analyse so many frames per second.
        start_s: seconds to skip.
        end_s: second to stop at.
        smooth: add smoothed keypoints and angles.
        strict: end with an error at the first damage of the file.
        out: file for the frames, JSON Lines.
        annotated: MP4 file for the video with people and angles drawn on it.
        plot: file for the angles over time.
    """

    gateway: Target
    angles: AngleConfig = field(default_factory=AngleConfig)
    model: str = ""
    model_version: str = ""
    skeleton: str = ""
    min_score: float | None = None
    layout: Layout = Layout.persons
    every_nth: int | None = None
    target_fps: float | None = None
    start_s: float = 0.0
    end_s: float | None = None
    smooth: bool = False
    strict: bool = False
    out: Path | None = None
    annotated: Path | None = None
    plot: Path | None = None

    @property
    def can_resume(self) -> bool:
        """Whether a second run continues the files of an interrupted one."""
        return self.out is not None and self.annotated is None and self.layout is Layout.persons


class CutShort(CommandError):
    """The analysis ended before the end of the video; the text says why."""


@app.command(cls=GatewayCommand)
def command(
    context: typer.Context,
    clip: Annotated[Path, typer.Argument(help="Video file.")],
    out: Annotated[Path | None, typer.Option(help="File for the frames as JSON Lines.")] = None,
    annotated: Annotated[
        Path | None, typer.Option(help="MP4 file for the video with people and angles drawn on it.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="File for the angles over time: .png, .svg or .pdf.")
    ] = None,
    measurements: options.Measurements = None,
    side: options.Side = options.BodySide.both,
    facing: options.PersonFacing = None,
    mirrored: options.Mirrored = False,
    camera_roll: options.CameraRoll = 0.0,
    baseline: options.Baseline = None,
    model: options.ModelName = "",
    model_version: options.ModelVersion = "",
    skeleton: options.SkeletonName = "",
    min_score: options.MinScore = None,
    layout: Annotated[
        Layout,
        typer.Option(help="persons: every person; flat: the most prominent person as a row of numbers."),
    ] = Layout.persons,
    every_nth: Annotated[
        int | None, typer.Option(min=1, max=(1 << 31) - 1, help="Analyse every n-th frame.")
    ] = None,
    target_fps: Annotated[float | None, typer.Option(help="Analyse so many frames per second.")] = None,
    start: Annotated[float, typer.Option(help="Seconds to skip.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Second to stop at.")] = None,
    smooth: Annotated[bool, typer.Option("--smooth", help="Add smoothed keypoints and angles.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="End with an error at the first damage, instead of stepping over it."),
    ] = False,
) -> None:
    """Find and track the people in a video. After an interruption run it again: it continues --out."""
    angles = AngleConfig(
        tuple(measurements or ()), side, facing, mirrored, camera_roll, tuple(baseline or ())
    )
    config = AnalysisConfig(
        gateway=gateway_of(context),
        angles=angles,
        model=model,
        model_version=model_version,
        skeleton=skeleton,
        min_score=min_score,
        layout=layout,
        every_nth=every_nth,
        target_fps=target_fps,
        start_s=start,
        end_s=end,
        smooth=smooth,
        strict=strict,
        out=out,
        annotated=annotated,
        plot=plot,
    )
    try:
        asyncio.run(analyze(clip, config))
    except KeyboardInterrupt:
        if config.can_resume and out is not None and partial(out).is_file():
            text = f"interrupted. {partial(out)} holds the frames so far: run the same command to go on."
        else:
            text = "interrupted. Run the same command to start again."
        raise Interrupted(text) from None
    except OSError as error:  # a full disk has no file name
        raise CommandError(f"{error.filename or out or annotated or plot}: {error.strerror}") from error


async def analyze(clip: Path, config: AnalysisConfig) -> None:
    """Send the video and write the results.

    Raises:
        BadOption: an option has no valid meaning; nothing was sent.
        CutShort: the call failed, or the video breaks off; the text says which files are complete.
        OSError: a file cannot be read or written.
    """
    _check(clip, config)
    console = Console(stderr=True, highlight=False)
    message = _message(config)
    head = {
        "clip": clip.name,
        "bytes": await asyncio.to_thread(lambda: clip.stat().st_size),
        "config": MessageToDict(message, preserving_proto_field_name=True),
    }
    before = await asyncio.to_thread(_earlier, config, head, console)
    if before.last is not None:
        console.print(
            f"going on after frame {before.last['frame_index']}, {before.last['time']}", soft_wrap=True
        )
        start_s = before.start_s(config.start_s, config.target_fps)
        message.start.FromNanoseconds(round(start_s * 1e9))
    lines = list(before.lines)
    summary, broken = None, ""
    with ExitStack() as files:
        out = _open_text(files, config.out, before.end)
        annotated = _open_binary(files, config.annotated)
        if not before.end:
            _write(out, head)
        progress = files.enter_context(progress_bar(console))
        task = progress.add_task(clip.name, total=100.0, frames="", rate="")
        try:
            async with config.gateway.connect() as channel:
                stub = PoseServiceStub(channel)
                # A refusal during an upload may lose its status: the key and the connection are tried before
                # the file is sent.
                info = await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=_INFO_TIMEOUT_S)
                answers = _answers(stub, clip, message, info.limits)
                async with aclosing(answers):
                    async for answer in answers:
                        kind = answer.WhichOneof("response")
                        if kind == "frame":
                            line = as_dict(answer.frame)
                            for key in ("frame_index", *DAMAGE):  # numbers; JSON has int64 as text
                                line[key] = getattr(answer.frame, key)
                            if before.add(line):
                                lines.append(_needed(line))
                                _write(out, line)
                        elif kind == "progress":
                            show_progress(progress, task, answer.progress)
                        elif kind == "annotated_chunk" and annotated is not None:
                            annotated.write(answer.annotated_chunk)
                        elif kind == "summary":
                            summary = before.whole(answer.summary, lines)
                            _write(out, {"summary": as_dict(summary)})
        except grpc.aio.AioRpcError as error:
            broken = config.gateway.explain(error)
            # After DATA_LOSS another run would give the same frames: the files are complete as they are.
            if error.code() is not grpc.StatusCode.DATA_LOSS or not lines:
                can_go_on = config.can_resume and lines and error.code() in _TEMPORARY
                raise CutShort(f"{clip}: {broken}{' Run it again to go on.' if can_go_on else ''}") from error
            _write(out, {"error": broken})
    if summary is None and not broken:
        raise CutShort(f"{clip}: the stream ended without a summary")
    for path in (config.out, config.annotated):
        if path is not None:
            partial(path).replace(path)
    summary = summary or summary_of(lines)
    if config.plot is not None:
        await asyncio.to_thread(_plot, config.plot, clip.name, lines, summary, console)
    flat = config.layout is Layout.flat
    report(summary, resumed=bool(before.lines), complete=not broken, persons_known=not (flat and broken))
    if broken:
        written = [str(path) for path in (config.out, config.annotated, config.plot) if path is not None]
        kept = f" The frames before that are in {', '.join(written)}." if written else ""
        raise CutShort(f"{clip}: {broken}{kept}")


async def _answers(
    stub: Any, clip: Path, message: pb.VideoConfig, limits: pb.Limits
) -> AsyncGenerator[pb.AnalyzeVideoResponse]:
    """The answers to the video; a refusal that lost its status on the way is asked for again.

    Raises:
        grpc.aio.AioRpcError: the call failed.
        CutShort: it failed, and why was lost.
    """
    try:
        async for answer in stub.AnalyzeVideo(_requests(clip, message)):
            yield answer
    except grpc.aio.AioRpcError as error:
        if not lost_its_status(error):
            raise
        refusal = await refusal_of(
            stub.AnalyzeVideo, pb.AnalyzeVideoRequest(config=message), timeout_s=_INFO_TIMEOUT_S
        )
        if refusal is not None:
            raise refusal from error
        seconds = limits.max_video_duration.ToTimedelta().total_seconds()
        raise CutShort(
            f"{clip}: the service ended the call before the upload was complete; its log says why. It "
            f"refuses, for one, videos of which more than {seconds:g} s are to be analysed: see --start and "
            "--end."
        ) from error


def _check(clip: Path, config: AnalysisConfig) -> None:
    """Refuse what would fail only after the whole upload."""
    if not clip.is_file():
        raise BadOption(f"{clip}: {'is a folder' if clip.is_dir() else 'there is no such file'}")
    if kind_of(clip) == "image":
        raise BadOption(f"{clip}: is an image: use `posegate detect`, or `posegate measure` for angles")
    if config.every_nth is not None and config.target_fps is not None:
        raise BadOption("--every-nth and --target-fps: give one of them")
    for option, seconds in (("--start", config.start_s), ("--end", config.end_s)):
        if seconds is not None and not 0 <= seconds <= _MAX_S:
            raise BadOption(f"{option} {seconds:g}: must be a number of seconds from 0 to {_MAX_S:.0f}")
    if not config.angles.measurements:
        if config.angles.options() != AngleConfig().options():
            raise BadOption(
                "--side, --facing, --mirrored, --camera-roll and --baseline are about angles: add --measure"
            )
        if config.plot is not None:
            raise BadOption("--plot draws angles over time: add --measure")
    _check_outputs(clip, config)


def _check_outputs(clip: Path, config: AnalysisConfig) -> None:
    outputs = [path for path in (config.out, config.annotated, config.plot) if path is not None]
    if len({path.resolve() for path in (*outputs, clip)}) <= len(outputs):
        raise BadOption("--out, --annotated, --plot and the clip: must be different files")
    for path in outputs:
        if not path.absolute().parent.is_dir():
            raise BadOption(f"{path}: there is no folder {path.absolute().parent}")
        if path.is_dir() or is_device(path):
            raise BadOption(f"{path}: is {'a folder' if path.is_dir() else 'no file'}")
    if config.annotated is not None and config.annotated.suffix.lower() != ".mp4":
        raise BadOption(f"--annotated {config.annotated}: the video is an MP4; its name must end in .mp4")
    if config.plot is not None:
        plots.check(config.plot)


def _message(config: AnalysisConfig) -> pb.VideoConfig:
    message = pb.VideoConfig(
        model=config.model,
        model_version=config.model_version,
        skeleton=config.skeleton,
        min_score=config.min_score,
        measurements=config.angles.measurements,
        angle_options=config.angles.options() if config.angles.measurements else None,
        include_positions=True,
        smoothing=pb.SMOOTHING_ONE_EURO if config.smooth else pb.SMOOTHING_OFF,
        strict=config.strict,
        layout=pb.FRAME_LAYOUT_FLAT if config.layout is Layout.flat else pb.FRAME_LAYOUT_PERSONS,
    )
    if config.every_nth is not None:
        message.every_nth_frame = config.every_nth
    elif config.target_fps is not None:
        message.target_fps = config.target_fps
    message.start.FromNanoseconds(round(config.start_s * 1e9))
    if config.end_s is not None:
        message.end.FromNanoseconds(round(config.end_s * 1e9))
    if config.annotated is not None:
        message.annotated_video = pb.ANNOTATED_VIDEO_MP4
        message.overlay.CopyFrom(types_pb2.OverlayOptions())
    return message


async def _requests(clip: Path, config: pb.VideoConfig) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    yield pb.AnalyzeVideoRequest(config=config)
    file = await asyncio.to_thread(clip.open, "rb")
    with file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield pb.AnalyzeVideoRequest(chunk=chunk)


def _open_text(files: ExitStack, path: Path | None, end: int) -> TextIO | None:
    """The partial file, cut to its first `end` bytes and open for more."""
    if path is None:
        return None
    file = files.enter_context(partial(path).open("a", encoding="utf-8", buffering=1))
    file.truncate(end)
    return file


def _open_binary(files: ExitStack, path: Path | None) -> BinaryIO | None:
    return None if path is None else files.enter_context(partial(path).open("wb"))


def _write(file: TextIO | None, line: dict[str, Any]) -> None:
    if file is not None:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _earlier(config: AnalysisConfig, head: dict[str, Any], console: Console) -> Earlier:
    """The frames that an interrupted run of the same analysis left."""
    if config.out is None or not partial(config.out).is_file():
        return Earlier()
    if not config.can_resume:
        what = "an annotated video" if config.annotated is not None else "the flat layout"
        console.print(f"{partial(config.out)}: {what} cannot be continued, starting again", soft_wrap=True)
        return Earlier()
    left = earlier(partial(config.out), head)
    if left is None:
        console.print(
            f"{partial(config.out)} is of another video or other options: starting again", soft_wrap=True
        )
    return left or Earlier()


def _needed(line: dict[str, Any]) -> dict[str, Any]:
    """The part of a frame that is needed after it was written."""
    people = [{"track_id": one["track_id"]} for one in line.get("persons", [])]
    return {key: line[key] for key in ("frame_index", "time", "angles")} | {"persons": people}


def _plot(
    path: Path, title: str, lines: list[dict[str, Any]], summary: pb.VideoSummary, console: Console
) -> None:
    curves = Curves({one.name: one.title for one in summary.measurements})
    for line in lines:
        curves.add(line)
    drawn = plots.draw_curves(title, curves.longest(_MAX_CURVES), path.suffix.lower().removeprefix("."))
    write_whole(path, drawn)
    if curves.count() > _MAX_CURVES:
        more = curves.count() - _MAX_CURVES
        console.print(
            f"{path}: the {_MAX_CURVES} longest curves; {more} more are in --out only", soft_wrap=True
        )
