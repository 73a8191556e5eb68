"""Videos and streams through the running service, with real weights."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from tests.e2e.conftest import DATA, Service
from tests.e2e.test_lifecycle import posegate
from tests.fakes import until

if TYPE_CHECKING:
    from posegate.v1.pose_service_pb2_grpc import PoseServiceAsyncStub

pytestmark = pytest.mark.e2e


async def requests(content: bytes, config: dict[str, Any]) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(**config))
    for start in range(0, len(content), 1 << 16):
        yield pb.AnalyzeVideoRequest(chunk=content[start : start + (1 << 16)])


async def analyze(
    stub: PoseServiceAsyncStub, content: bytes, **config: Any
) -> tuple[list[pb.FrameResult], pb.VideoSummary, bytes]:
    frames, annotated, summary = [], b"", None
    async for answer in stub.AnalyzeVideo(requests(content, config), timeout=120):
        if answer.HasField("frame"):
            frames.append(answer.frame)
        elif answer.HasField("annotated_chunk"):
            annotated += answer.annotated_chunk
        elif answer.HasField("summary"):
            summary = answer.summary
    assert summary is not None
    return frames, summary, annotated


def bottoms(frames: Sequence[pb.FrameResult]) -> dict[int, list[float]]:
    """Lower edge of every person's box over the frames, by number."""
    found: dict[int, list[float]] = {}
    for frame in frames:
        for person in frame.persons:
            found.setdefault(person.track_id, []).append(person.box.y2)
    return found


@pytest.mark.parametrize("sampling", [{}, {"every_nth_frame": 12}, {"target_fps": 3}], ids=str)
async def test_three_people_keep_their_numbers(stub: PoseServiceAsyncStub, sampling: dict[str, Any]) -> None:
    frames, summary, _ = await analyze(stub, (DATA / "two_people.mp4").read_bytes(), **sampling)
    people = bottoms(frames)
    assert summary.persons_tracked == len(people) == 3
    # The acrobat, the woman in front and the one behind never change places from top to bottom.
    spans = sorted((min(edges), max(edges)) for edges in people.values())
    assert spans[0][1] < spans[1][0]
    assert spans[1][1] < spans[2][0]
    assert all(len(edges) == len(frames) for edges in people.values())


async def test_frames_are_answered_as_pictures_are(stub: PoseServiceAsyncStub) -> None:
    frames, _, _ = await analyze(stub, (DATA / "single_person.mp4").read_bytes(), every_nth_frame=33)
    with av.open(str(DATA / "single_person.mp4")) as video:
        images = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]
    for frame in frames:
        content = cv2.imencode(".png", images[frame.frame_index])[1].tobytes()
        request = pb.DetectPosesRequest(image=types_pb2.Image(content=content))
        alone = await stub.DetectPoses(request, timeout=60)
        for person, single in zip(frame.persons, alone.persons, strict=True):
            points = [(one.x, one.y) for one in person.keypoints]
            others = [(one.x, one.y) for one in single.keypoints]
            assert np.abs(np.subtract(points, others)).max() < 0.1


async def test_the_annotated_video_shows_the_people(stub: PoseServiceAsyncStub) -> None:
    content = (DATA / "single_person.mp4").read_bytes()
    frames, summary, annotated = await analyze(
        stub,
        content,
        every_nth_frame=10,
        annotated_video=pb.ANNOTATED_VIDEO_MP4,
        measurements=["knee_flexion"],
    )
    with av.open(io.BytesIO(annotated), mode="r") as video:
        drawn = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    with av.open(str(DATA / "single_person.mp4")) as video:
        plain = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)][::10]
    assert len(drawn) == len(plain) == len(frames) == 10
    for frame, after, before in zip(frames, drawn, plain, strict=True):
        box = frame.persons[0].box
        changed = np.abs(after - before).max(axis=2) > 90
        inside = changed[int(max(box.y1, 0)) : int(box.y2), int(max(box.x1, 0)) : int(box.x2)]
        assert inside.mean() > 5 * changed[1300:].mean()
        assert inside.mean() > 0.01
    assert summary.measurements[0].left.frames_measured > 5


async def test_a_live_stream_is_answered_in_order(stub: PoseServiceAsyncStub) -> None:
    picture = (DATA / "two_people.jpg").read_bytes()

    async def frames() -> AsyncIterator[pb.StreamPosesRequest]:
        yield pb.StreamPosesRequest(config=pb.StreamConfig())
        for number in range(12):
            yield pb.StreamPosesRequest(frame=pb.StreamFrame(frame_id=str(number), encoded=picture))

    answers = [answer async for answer in stub.StreamPoses(frames(), timeout=60)]
    results = [answer.result for answer in answers if answer.HasField("result")]
    assert [result.frame_id for result in results] == [str(number) for number in range(12)]
    assert [person.track_id for person in results[-1].persons] == [1, 2, 3]


async def test_a_caller_who_leaves_leaves_nothing_behind(
    service: Service, stub: PoseServiceAsyncStub
) -> None:
    content = (DATA / "two_people.mp4").read_bytes()
    call = stub.AnalyzeVideo(requests(content, {"annotated_video": pb.ANNOTATED_VIDEO_MP4}))
    async for answer in call:
        if answer.HasField("frame") and answer.frame.frame_index == 5:
            break
    call.cancel()
    await until(lambda: not any("(deleted)" in file.path for file in service.process.open_files()))


def test_the_command_line_writes_frames_a_video_and_a_plot(service: Service, tmp_path: Path) -> None:
    out, annotated, plot = tmp_path / "r.jsonl", tmp_path / "a.mp4", tmp_path / "angles.png"
    done = posegate(
        "video", DATA / "single_person.mp4", "--measure", "knee_flexion,elbow_side", "--every-nth", "5",
        "--out", out, "--annotated", annotated, "--plot", plot, address=service.address,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "20 of 100 frames" in done.stdout
    assert "Knee Flexion" in done.stdout
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["frame_index"] for line in lines[1:-1]] == list(range(0, 100, 5))
    assert lines[-1]["summary"]["frames_analyzed"] == "20"
    drawn = cv2.imread(str(plot))
    assert drawn is not None
    assert drawn.shape[1] == 1200
    assert annotated.stat().st_size > 10_000
    assert not list(tmp_path.glob("*.partial"))
