from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import grpc
import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.cli.angles import AngleConfig
from service.cli.connection import Target
from service.cli.failures import BadOption
from service.cli.options import BodySide, Facing
from service.cli.plots import Curve
from service.cli.video import AnalysisConfig, CutShort, Layout, _message, analyze
from service.core.geometry import Rgb8
from service.core.poses import Floats
from tests.fakes import candidate, rows
from tests.media.clips import clip, fast_start
from tests.pictures import jpeg
from tests.running import Service, running

ROOT = Path(__file__).parents[2]
WHO = candidate((200, 100, 440, 500), 0.9)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(video_spool=tmp_path) as one:
        one.triton.answer = rows(WHO, candidate((10, 100, 90, 500), 0.8))
        yield one


@pytest.fixture
def config(service: Service, tmp_path: Path) -> AnalysisConfig:
    return AnalysisConfig(
        gateway=Target(service.address),
        angles=AngleConfig(measurements=("elbow_side",)),
        out=tmp_path / "out.jsonl",
        plot=tmp_path / "plot.png",
    )


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_frames_plot_and_table_are_made(
    config: AnalysisConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await analyze(clip, replace(config, annotated=tmp_path / "out.mp4"))
    found = lines(tmp_path / "out.jsonl")
    assert [line["frame_index"] for line in found[1:-1]] == list(range(40))
    assert "summary" in found[-1]
    assert "40 of 40 frames" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "plot.png")) is not None
    assert (tmp_path / "out.mp4").stat().st_size > 500
    assert not any(name.endswith(".partial") for name in os.listdir(tmp_path))  # noqa: PTH208


def numbered(number: int) -> Rgb8:
    """A frame whose brightness tells its number, up to 240."""
    return np.full((64, 96, 3), number + 8, np.uint8)


def crowd(image: Rgb8) -> Floats:
    """People who move, bend their arms and go away for a second, by the brightness of the frame."""
    step = float(image[200:400, 200:440].mean()) - 8
    x = 60 + step
    bend = 40 * np.sin(step / 8)
    points = [(x + 40, 120 + 10 * k, 0.9) for k in range(17)]
    points[5], points[7], points[9] = (x + 20, 180, 0.9), (x + 20, 240, 0.9), (x + 20 + bend, 290, 0.9)
    people = [candidate((x, 100, x + 90, 420), 0.9, points)]
    if not 100 <= step < 130:
        people.append(candidate((400, 100, 480, 420), 0.8))
    if step >= 150:
        people.append(candidate((540, 100, 620, 420), 0.7))
    return rows(*people)


def comparable(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for line in found:
        line.pop("timings", None)
        line.get("summary", {}).pop("wall_time", None)
    return found


def leaves(node: Any, path: str = "") -> dict[str, float]:
    """Every number of a summary by its path; times in seconds."""
    if isinstance(node, dict):
        return {key: value for name in node for key, value in leaves(node[name], f"{path}.{name}").items()}
    if isinstance(node, list):
        return {key: value for i, one in enumerate(node) for key, value in leaves(one, f"{path}.{i}").items()}
    try:
        return {path: float(str(node).removesuffix("s"))}
    except ValueError:
        return {f"{path}={node}": 0.0}


def smoothed(found: list[dict[str, Any]]) -> list[float]:
    """Takes the smoothed values out: filters that had to settle anew are off by a hair."""
    values = []
    for line in found:
        for person in line.get("persons", []):
            values += [one[axis] for one in person.pop("smoothed_keypoints", []) for axis in "xy"]
        for angle in line.get("angles", []):
            for side in ("left", "right"):
                values.append(angle.get(side, {}).pop("smoothed_degrees", 0.0))
    return values


@pytest.mark.parametrize("sampling", [{}, {"every_nth": 4}, {"target_fps": 7.0}, {"start_s": 1.03}])
@pytest.mark.parametrize("share", [0.1, 0.55, 0.62, 0.9])
async def test_an_interrupted_run_is_gone_on_with_as_if_it_had_not_been(
    config: AnalysisConfig, tmp_path: Path, service: Service, sampling: dict[str, Any], share: float
) -> None:
    service.triton.answer = crowd
    clip = tmp_path / "clip.mp4"
    # 60 a second in ticks of 1/90000 s: times that no decimal fraction holds exactly.
    clip.write_bytes(fast_start(count=230, images=numbered, times=[number / 29.97 for number in range(230)]))
    config = replace(config, smooth=True, **sampling)
    await analyze(clip, config)
    complete = lines(tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl").unlink()
    kept = max(2, round(share * len(complete)))
    text = "".join(json.dumps(line) + "\n" for line in complete[:kept])
    (tmp_path / "out.jsonl.partial").write_text(text + '{"frame_index": 14, "ti', encoding="utf-8")
    calls = len(service.triton.calls)
    await analyze(clip, config)
    again = lines(tmp_path / "out.jsonl")
    if share > 0.5:
        assert len(service.triton.calls) - calls < calls
    comparable(complete)
    comparable(again)
    assert smoothed(again) == pytest.approx(smoothed(complete), abs=0.2)
    assert again[:-1] == complete[:-1]
    assert leaves(again[-1]) == pytest.approx(leaves(complete[-1]), abs=0.01)
    assert {one["track_id"] for line in again[1:-1] for one in line["persons"]} == {1, 2, 3}


@pytest.mark.parametrize("container", ["mp4", "avi", "mpegts"])
async def test_damage_of_both_parts_is_in_the_summary_of_an_interrupted_run(
    config: AnalysisConfig, tmp_path: Path, container: str
) -> None:
    content = clip(container, "mpeg4", count=130, images=numbered)
    with av.open(io.BytesIO(content), "r") as file:
        starts = [packet.pos or 0 for packet in file.demux(video=0) if packet.size]
    damaged = bytearray(content)
    for number in (0, 12, 16, 120):
        place = starts[number] - 8 if container == "avi" else starts[number]
        damaged[place : place + 12] = b"\xff" * 12
    path = tmp_path / "clip"
    path.write_bytes(damaged)
    config = replace(config, plot=None)
    await analyze(path, config)
    complete = lines(tmp_path / "out.jsonl")
    damage = {key: int(complete[-1]["summary"][key]) for key in ("frames_damaged", "gaps")}
    assert sum(damage.values()) > 2
    (tmp_path / "out.jsonl").unlink()
    (tmp_path / "out.jsonl.partial").write_text("".join(f"{json.dumps(line)}\n" for line in complete[:112]))
    await analyze(path, config)
    again = lines(tmp_path / "out.jsonl")
    comparable(complete)
    comparable(again)
    assert again[:-1] == complete[:-1]
    assert leaves(again[-1]) == pytest.approx(leaves(complete[-1]), abs=0.01)


async def test_what_was_kept_is_never_written_anew(
    config: AnalysisConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await analyze(clip, config)
    (tmp_path / "out.jsonl").rename(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(b"".join(content[:15]))
    monkeypatch.setattr("service.cli.video._write", full)
    with pytest.raises(OSError, match="full"):
        await analyze(clip, config)
    assert partial.read_bytes() == b"".join(content[:15])


def full(*_arguments: object) -> None:
    raise OSError(28, "full")


@pytest.mark.parametrize("changed", [{"angles": AngleConfig(), "plot": None}, {"annotated": True}])
async def test_a_run_that_cannot_be_gone_on_with_says_so(
    config: AnalysisConfig, tmp_path: Path, changed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await analyze(clip, config)
    (tmp_path / "out.jsonl").rename(tmp_path / "out.jsonl.partial")
    if "annotated" in changed:
        changed = {"annotated": tmp_path / "out.mp4"}
    await analyze(clip, replace(config, **changed))
    assert "starting again" in capsys.readouterr().err
    assert len(lines(tmp_path / "out.jsonl")) == 42


async def test_another_config_starts_anew(config: AnalysisConfig, tmp_path: Path, service: Service) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    (tmp_path / "out.jsonl.partial").write_text('{"clip": "other.mp4"}\n', encoding="utf-8")
    await analyze(clip, config)
    assert len(lines(tmp_path / "out.jsonl")) == 42


@pytest.mark.parametrize("layout", list(Layout))
async def test_the_files_of_a_video_that_breaks_off_are_completed(
    config: AnalysisConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: Layout
) -> None:
    clip = tmp_path / "clip.mp4"
    content = fast_start(count=200)
    clip.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(CutShort, match=r"DATA_LOSS.* The frames before that are in .*out\.jsonl"):
        await analyze(clip, replace(config, layout=layout))
    said = capsys.readouterr().out
    assert "frames until the video broke off" in said
    assert ("2 people tracked" in said) == (layout is Layout.persons), "frames of the flat layout lack it"
    assert "0 people" not in said
    assert sorted(names(tmp_path)) == ["clip.mp4", "out.jsonl", "plot.png"]
    found = lines(tmp_path / "out.jsonl")
    assert found[-1]["error"].startswith("DATA_LOSS: ")
    assert [line["frame_index"] for line in found[1:-1]] == list(range(len(found) - 2))
    assert len(found) > 20


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"every_nth": 2, "target_fps": 5.0}, "--target-fps"),
        ({"start_s": float("nan")}, "--start nan"),
        ({"start_s": 1e30}, "--start 1e"),
        ({"end_s": -1.0}, "--end -1"),
        ({"annotated": "out.jsonl"}, "different files"),
        ({"plot": "none/plot.png"}, "there is no folder"),
        ({"annotated": "clip.mp4"}, "different files"),
        ({"plot": "."}, "is a folder"),
        ({"plot": "plot.gif"}, "plot.gif: must end in .png, .svg, .pdf"),
        ({"annotated": "out.avi"}, "must end in .mp4"),
        ({"angles": AngleConfig()}, "--plot draws angles over time: add --measure"),
        (
            {"angles": AngleConfig(mirrored=True), "plot": None},
            "--mirrored, .* are about angles: add --measure",
        ),
        ({"angles": AngleConfig(("elbow_side",), baseline=("elbow",))}, "--baseline elbow: must be"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_the_upload(
    config: AnalysisConfig, tmp_path: Path, service: Service, changes: dict[str, Any], named: str
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    changes = {key: tmp_path / value if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(BadOption, match=named):
        await analyze(clip, replace(config, **changes))
    assert service.triton.calls == []
    assert names(tmp_path) == ["clip.mp4"]


async def test_a_folder_is_no_clip(config: AnalysisConfig, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="is a folder"):
        await analyze(tmp_path, config)


async def test_a_start_behind_the_end_is_told(
    config: AnalysisConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await analyze(clip, replace(config, start_s=50.0))
    assert "--start is behind the end" in capsys.readouterr().out


async def test_an_image_is_refused_with_the_command_for_it(config: AnalysisConfig, tmp_path: Path) -> None:
    image = tmp_path / "image.mp4"
    image.write_bytes(jpeg((64, 48)))
    with pytest.raises(BadOption, match=r"is an image: use `posegate detect`"):
        await analyze(image, config)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": "whole", "model_version": "2"}, {"model": "whole", "model_version": "2"}),
        ({"skeleton": "coco_17"}, {"skeleton": "coco_17"}),
        ({"min_score": 0.5}, {"min_score": 0.5}),
        ({"layout": Layout.flat}, {"layout": pb.FRAME_LAYOUT_FLAT}),
        ({"smooth": True}, {"smoothing": pb.SMOOTHING_ONE_EURO}),
        ({"every_nth": 3}, {"every_nth_frame": 3}),
        ({"target_fps": 5.0}, {"target_fps": 5.0}),
        (
            {
                "angles": AngleConfig(
                    ("elbow_side",), BodySide.left, Facing.right, True, -3.0, ("elbow_side:left=2",)
                )
            },
            {
                "angle_options": pb.AngleOptions(
                    side=types_pb2.SIDE_LEFT,
                    facing=pb.FACING_IMAGE_RIGHT,
                    mirrored=True,
                    camera_roll_deg=-3.0,
                    baseline=[pb.BaselineAngle(name="elbow_side", side=types_pb2.SIDE_LEFT, degrees=2)],
                )
            },
        ),
    ],
)
def test_every_option_reaches_the_config(
    config: AnalysisConfig, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    message = _message(replace(config, **changes))
    plain = _message(config)
    assert message != plain
    plain.MergeFrom(pb.VideoConfig(**expected))
    assert message == plain


async def test_the_flat_layout_is_a_row_of_numbers_for_each_frame(
    config: AnalysisConfig, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await analyze(clip, replace(config, layout=Layout.flat))
    found = lines(tmp_path / "out.jsonl")
    assert {len(line["values"]) for line in found[1:-1]} == {17 * 6}
    assert all(line["persons"] == [] for line in found[1:-1])


async def test_plot_and_table_have_the_same_titles(
    config: AnalysisConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[str] = []

    def draw(_: str, curves: list[Curve], file_format: str) -> bytes:
        drawn.extend(curve.title for curve in curves)
        return file_format.encode()

    monkeypatch.setattr("service.cli.plots.draw_curves", draw)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    await analyze(clip, replace(config, angles=AngleConfig(("squats_knee_side,elbow_side",))))
    assert set(drawn) == {
        f"{title} · person {number}"
        for title in ("Elbow (side view)", "Squats Knee (side view)")
        for number in (1, 2)
    }
    told = capsys.readouterr().out
    assert "Squats Knee (side view)" in told
    assert "Elbow (side view)" in told
    assert (tmp_path / "plot.png").read_bytes() == b"png"


async def test_a_failure_says_to_run_again_only_where_that_helps(
    config: AnalysisConfig, tmp_path: Path, service: Service
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    with pytest.raises(CutShort) as unknown:
        await analyze(clip, replace(config, model="nobody"))
    assert "NOT_FOUND" in str(unknown.value)
    assert "again" not in str(unknown.value)
    with pytest.raises(CutShort) as away:
        await analyze(clip, replace(config, gateway=Target("127.0.0.1:1")))
    assert "start one with `posegate up`" in str(away.value)
    assert "Run it again" not in str(away.value)  # there are no frames to continue from


@pytest.mark.parametrize(("annotated", "told"), [([], "to go on."), (["--annotated"], "to start again.")])
async def test_after_an_interruption_the_last_line_says_how_to_go_on(
    config: AnalysisConfig, tmp_path: Path, service: Service, annotated: list[str], told: str
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    service.triton.gate.clear()
    files = [
        "--out",
        str(tmp_path / "out.jsonl"),
        *[*annotated, str(tmp_path / "a.mp4")][: 2 * len(annotated)],
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "video", str(clip), *files, "--address", service.address,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asyncio.wait_for(service.triton.entered.wait(), 300)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 300)
    service.triton.gate.set()
    assert process.returncode == 130
    last = err.decode().splitlines()[-1]
    assert last.startswith("posegate: interrupted.")
    assert last.endswith(told)


async def test_damage_that_was_stepped_over_is_reported_and_strict_ends_there(
    config: AnalysisConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = ROOT / "tests" / "cases" / "v_one_bad.mp4"
    config = replace(config, plot=None, out=None, angles=AngleConfig())
    await analyze(clip, config)
    assert "The file is damaged: 1 damaged frame and 0 gaps stepped over" in capsys.readouterr().err
    with pytest.raises(CutShort, match="DATA_LOSS"):
        await analyze(clip, replace(config, strict=True))


@pytest.mark.parametrize(
    ("model", "words"),
    [("missing", "NOT_FOUND: .*missing"), ("", "its log says why.* more than 60 s are to be analysed")],
)
async def test_a_refusal_that_lost_its_status_is_asked_for_again(
    config: AnalysisConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, words: str
) -> None:
    class LosesTheStatus(PoseServiceStub):
        """gRPC's own error in the place of the gateway's, as an upload may have it."""

        def __init__(self, channel: grpc.aio.Channel) -> None:
            super().__init__(channel)  # type: ignore[call-arg]
            method = self.AnalyzeVideo

            def call(requests: Any = None, **options: Any) -> Any:
                if requests is None:
                    return method(**options)
                none = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, none, none, "Internal error from Core")

            self.AnalyzeVideo = call  # type: ignore[assignment]

    monkeypatch.setattr("service.cli.video.PoseServiceStub", LosesTheStatus)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(fast_start())
    with pytest.raises(CutShort, match=words):
        await analyze(clip, replace(config, model=model))
