"""AnalyzeVideo over real gRPC, with a scripted model behind it."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1 import types_pb2
from service.core.poses import Floats
from service.errors import Overloaded, Unavailable
from tests.fakes import candidate, rows, until
from tests.media.cases import case
from tests.media.clips import clip, fast_start, sound_only
from tests.media.test_video_reader import patched
from tests.running import Failure, Service, failure_of, running

CROWD = rows(*(candidate((20 * n, 100, 20 * n + 18, 500), 0.9) for n in range(30)))
WHO = candidate((200, 100, 440, 500), 0.9)


@dataclass
class Told:
    """All that a call answered."""

    kinds: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    started: pb.VideoStarted | None = None
    frames: list[pb.FrameResult] = field(default_factory=list)
    progress: list[pb.VideoProgress] = field(default_factory=list)
    annotated: bytes = b""
    summary: pb.VideoSummary | None = None
    failed: Failure | None = None

    def add(self, answer: pb.AnalyzeVideoResponse) -> None:
        kind = answer.WhichOneof("response") or ""
        self.kinds[kind] += 1
        self.order.append(kind)
        match kind:
            case "started":
                self.started = answer.started
            case "frame":
                self.frames.append(answer.frame)
            case "progress":
                self.progress.append(answer.progress)
            case "annotated_chunk":
                self.annotated += answer.annotated_chunk
            case "summary":
                self.summary = answer.summary


async def messages(
    content: bytes, chunk: int, config: dict[str, Any]
) -> AsyncIterator[pb.AnalyzeVideoRequest]:
    yield pb.AnalyzeVideoRequest(config=pb.VideoConfig(**config))
    for start in range(0, len(content), chunk):
        yield pb.AnalyzeVideoRequest(chunk=content[start : start + chunk])


async def analyze(
    service: Service, requests: bytes | AsyncIterator[pb.AnalyzeVideoRequest], **config: Any
) -> Told:
    if isinstance(requests, bytes):
        requests = messages(requests, 1 << 16, config)
    answers = Told()
    try:
        async for answer in service.poses.AnalyzeVideo(requests, timeout=120):
            answers.add(answer)
    except grpc.aio.AioRpcError as error:
        answers.failed = failure_of(error)
    return answers


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(video_spool=tmp_path) as one:
        one.triton.answer = rows(WHO)
        yield one


def spools(folder: Path) -> list[str]:
    """Open files in the folder, named or not."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = descriptor.readlink()
        except OSError:
            continue
        if folder in target.parents:
            found.append(str(target))
    return found


@pytest.mark.parametrize("container", ["mp4", "fast", "matroska", "mpegts", "avi"])
async def test_every_frame_is_answered_in_order_and_the_summary_comes_last(
    service: Service, container: str, tmp_path: Path
) -> None:
    content = fast_start() if container == "fast" else clip(container, "mpeg4")
    answers = await analyze(service, content)
    assert answers.failed is None
    assert [frame.frame_index for frame in answers.frames] == list(range(40))
    assert next(kind for kind in answers.order if kind != "progress") == "started"
    assert answers.order[-1] == "summary"
    times = [frame.time.ToNanoseconds() / 1e9 for frame in answers.frames]
    assert times == pytest.approx([number / 25 for number in range(40)], abs=0.002)
    assert all(len(frame.persons) == 1 and frame.persons[0].track_id == 1 for frame in answers.frames)
    assert answers.summary is not None
    assert (answers.summary.total_frames, answers.summary.frames_analyzed) == (40, 40)
    assert (answers.summary.frames_with_persons, answers.summary.persons_tracked) == (40, 1)
    assert answers.summary.fps == pytest.approx(25, rel=0.01)
    assert not spools(tmp_path)


async def test_progress_never_falls_and_is_100_only_at_the_end(service: Service) -> None:
    answers = await analyze(service, fast_start(count=200))
    percents = [one.percent for one in answers.progress]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert all(percent < 100 for percent in percents[:-1])
    assert answers.progress[-1].frame == answers.progress[-1].total == 200
    seconds = [one.elapsed.ToNanoseconds() / 1e9 for one in answers.progress]
    assert all(later - sooner > 0.1 for sooner, later in pairwise(seconds[:-1]))


async def test_a_length_that_is_not_known_is_not_made_up(service: Service) -> None:
    answers = await analyze(service, clip("mpegts"))
    assert answers.started is not None
    assert not answers.started.video.HasField("duration")
    assert all(not one.HasField("total") for one in answers.progress[:-1])


async def test_looking_ahead_changes_nothing_in_the_results(tmp_path: Path) -> None:
    def by_brightness(image: NDArray[np.uint8]) -> Floats:
        left = float(image.mean())
        return rows(candidate((left, 100, left + 200, 500), 0.9))

    found = []
    for look_ahead in (1, 8):
        async with running(video_spool=tmp_path, video_look_ahead=look_ahead) as service:
            service.triton.answer = by_brightness
            answers = await analyze(service, fast_start())
            assert len(answers.frames) == 40
            for frame in answers.frames:
                frame.ClearField("timings")
            found.append(answers.frames)
    assert found[0] == found[1]


async def test_the_layout_flat_is_one_row_of_numbers(service: Service) -> None:
    # Only the second frame is of this grey.
    service.triton.answer = lambda image: rows() if 19 <= image[320, 500, 0] <= 23 else rows(WHO)
    answers = await analyze(service, fast_start(count=3), layout=pb.FRAME_LAYOUT_FLAT, track=False)
    full, empty, _ = answers.frames
    assert len(full.values) == len(empty.values) == 17 * 6
    assert any(full.values[:51])
    assert not any(full.values[51:])
    assert not any(empty.values)
    assert not full.persons


async def test_smoothed_values_stand_beside_the_raw_ones(service: Service) -> None:
    service.triton.script = [
        rows(candidate((200 + 9 * (number % 2), 100, 440, 500), 0.9)) for number in range(40)
    ]
    answers = await analyze(
        service, fast_start(), smoothing=pb.SMOOTHING_ONE_EURO, measurements=["knee_flexion"]
    )
    raw = [frame.persons[0].keypoints[0].x for frame in answers.frames]
    smooth = [frame.persons[0].smoothed_keypoints[0].x for frame in answers.frames]
    assert np.std(np.diff(smooth)) < 0.5 * np.std(np.diff(raw))
    values = [frame.angles[0].left for frame in answers.frames if frame.angles[0].left.HasField("degrees")]
    assert values
    assert all(value.HasField("smoothed_degrees") for value in values)


async def test_angles_come_with_every_frame_and_a_summary_at_the_end(service: Service) -> None:
    answers = await analyze(service, fast_start(), measurements=["knee_side, elbow_side"])
    assert [angle.name for angle in answers.frames[0].angles] == ["knee_side", "elbow_side"]
    assert answers.frames[0].angles[0].track_id == 1
    assert answers.summary is not None
    assert [one.name for one in answers.summary.measurements] == ["knee_side", "elbow_side"]


async def test_the_annotated_video_is_playable_and_has_every_frame(service: Service) -> None:
    answers = await analyze(
        service, fast_start(size_wh=(320, 240)), annotated_video=pb.ANNOTATED_VIDEO_MP4, every_nth_frame=2
    )
    assert answers.failed is None
    with av.open(io.BytesIO(answers.annotated), mode="r") as video:
        assert video.streams.video[0].codec_context.name == "h264"
        frames = list(video.decode(video=0))
    assert len(frames) == 20
    assert [frame.time for frame in frames] == pytest.approx(
        [number / 12.5 for number in range(20)], abs=0.001
    )
    assert frames[0].to_ndarray(format="rgb24").shape == (240, 320, 3)
    assert answers.order[-1] == "summary"


async def test_frames_are_sampled_by_number_and_by_time(service: Service) -> None:
    nth = await analyze(service, fast_start(), every_nth_frame=7)
    assert [frame.frame_index for frame in nth.frames] == list(range(0, 40, 7))
    beat = await analyze(service, fast_start(), target_fps=10)
    gaps = np.diff([frame.time.ToNanoseconds() / 1e9 for frame in beat.frames])
    assert len(beat.frames) == 16
    assert set(np.round(gaps, 3)) <= {0.08, 0.12}


async def test_a_part_of_the_video_is_analysed(service: Service) -> None:
    config = pb.VideoConfig()
    config.start.FromMilliseconds(800)
    config.end.FromMilliseconds(1000)
    answers = await analyze(service, fast_start(), start=config.start, end=config.end)
    assert [frame.frame_index for frame in answers.frames] == [20, 21, 22, 23, 24]
    assert answers.summary is not None
    assert answers.summary.total_frames == 5


async def test_results_flow_while_the_upload_goes_on(service: Service) -> None:
    content = fast_start(count=200)
    rest = asyncio.Event()

    async def requests() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        yield pb.AnalyzeVideoRequest(chunk=content[: len(content) * 3 // 4])
        await rest.wait()
        yield pb.AnalyzeVideoRequest(chunk=content[len(content) * 3 // 4 :])

    answers = Told()
    async for answer in service.poses.AnalyzeVideo(requests(), timeout=30):
        answers.add(answer)
        if len(answers.frames) == 10:
            rest.set()
    assert len(answers.frames) == 200


async def test_a_file_whose_index_is_at_the_end_is_received_first_and_progress_says_so(
    service: Service,
) -> None:
    content = clip(count=200)
    reported = asyncio.Event()

    async def requests() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
        yield pb.AnalyzeVideoRequest(chunk=content[:1000])
        await reported.wait()
        yield pb.AnalyzeVideoRequest(chunk=content[1000:])

    answers = Told()
    async for answer in service.poses.AnalyzeVideo(requests(), timeout=30):
        answers.add(answer)
        reported.set()
    assert answers.order[0] == "progress"
    assert answers.progress[0].bytes_received == 1000
    assert len(answers.frames) == 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "VIDEO_UNDECODABLE"),
        (b"not a video at all" * 100, "VIDEO_UNDECODABLE"),
        (sound_only(), "VIDEO_UNDECODABLE"),
        (
            b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
            "VIDEO_UNDECODABLE",
        ),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "VIDEO_UNDECODABLE"),
        (clip(size_wh=(2048, 2048), count=1), "VIDEO_TOO_LARGE"),
    ],
    ids=["empty", "noise", "sound only", "playlist", "concat", "too many pixels"],
)
async def test_what_is_no_video_is_refused(service: Service, content: bytes, reason: str) -> None:
    answers = await analyze(service, content)
    assert answers.failed is not None
    assert answers.failed.code == grpc.StatusCode.INVALID_ARGUMENT
    assert answers.failed.reason == reason
    assert "frame" not in answers.kinds


async def test_the_frames_before_the_damage_are_delivered(service: Service, tmp_path: Path) -> None:
    content = fast_start(count=200, gop=10)
    answers = await analyze(service, content[: len(content) * 2 // 3])
    assert answers.failed is not None
    assert (answers.failed.code, answers.failed.reason) == (grpc.StatusCode.DATA_LOSS, "VIDEO_DAMAGED")
    assert 20 < len(answers.frames) < 200
    assert answers.summary is None
    assert not spools(tmp_path)


async def test_more_than_is_allowed_is_refused_with_both_numbers(tmp_path: Path) -> None:
    async with running(max_video_seconds=1.0, video_spool=tmp_path) as service:
        long = await analyze(service, fast_start())
        assert long.failed is not None
        assert (long.failed.code, long.failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "VIDEO_TOO_LONG")
        assert long.failed.metadata == {"limit_seconds": "1", "actual_seconds": "1.600"}
        assert not long.frames
        unknown = await analyze(service, clip("mpegts"))  # does not say how long it is
        assert unknown.failed is not None
        assert unknown.failed.reason == "VIDEO_TOO_LONG"
        assert len(unknown.frames) <= 26
    async with running(max_video_bytes=2000, video_spool=tmp_path) as service:
        large = await analyze(service, clip())
        assert large.failed is not None
        assert large.failed.reason == "VIDEO_TOO_LARGE"
        assert large.failed.metadata["limit_bytes"] == "2000"
    async with running(max_video_frames=5, video_spool=tmp_path) as service:
        many = await analyze(service, fast_start())
        assert many.failed is not None
        assert many.failed.metadata["limit_frames"] == "5"
        assert len(many.frames) == 5
        few = await analyze(service, fast_start(), every_nth_frame=10)
        assert few.failed is None


def wrong_orders() -> Iterator[tuple[str, list[pb.AnalyzeVideoRequest]]]:
    config = pb.AnalyzeVideoRequest(config=pb.VideoConfig())
    chunk = pb.AnalyzeVideoRequest(chunk=clip())
    yield "nothing", []
    yield "chunk first", [chunk, config]
    yield "config twice", [config, chunk, config]
    yield "an empty message", [config, pb.AnalyzeVideoRequest()]
    yield "an empty message first", [pb.AnalyzeVideoRequest()]


@pytest.mark.parametrize(
    "requests", [value for _, value in wrong_orders()], ids=[name for name, _ in wrong_orders()]
)
async def test_the_wrong_order_is_refused(service: Service, requests: list[pb.AnalyzeVideoRequest]) -> None:
    async def send() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        for request in requests:
            yield request

    answers = await analyze(service, send())
    assert answers.failed is not None
    assert answers.failed.code == grpc.StatusCode.INVALID_ARGUMENT


async def test_every_wrong_field_of_the_config_is_named(service: Service) -> None:
    config = pb.VideoConfig(
        target_fps=-1,
        smoothing=pb.SMOOTHING_ONE_EURO,
        track=False,
        min_score=2,
        measurements=["nonsense"],
        layout=7,  # type: ignore[arg-type]
    )
    config.start.FromSeconds(5)
    config.end.FromSeconds(5)
    config.angle_options.camera_roll_deg = 999

    async def send() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=config)

    answers = await analyze(service, send())
    assert answers.failed is not None
    assert {
        "config.target_fps",
        "config.smoothing",
        "config.min_score",
        "config.layout",
        "config.end",
        "config.angle_options.camera_roll_deg",
    } <= set(answers.failed.violations)


MP4 = {"annotated_video": pb.ANNOTATED_VIDEO_MP4}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"angle_options": {}}, "config.angle_options"),
        ({"angle_options": {"mirrored": True}, "measurements": [" , "]}, "config.angle_options"),
        ({"overlay": {}}, "config.overlay"),
        ({"overlay": {"boxes": False}}, "config.overlay"),
        ({"overlay": {"format": types_pb2.OVERLAY_FORMAT_PNG}, **MP4}, "config.overlay.format"),
        ({"overlay": {"jpeg_quality": 90}, **MP4}, "config.overlay.jpeg_quality"),
        ({"overlay": {"space_panel": True}, **MP4}, "config.overlay.space_panel"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
async def test_fields_that_can_be_of_no_effect_are_refused(
    service: Service, config: dict[str, Any], field: str
) -> None:
    answers = await analyze(service, clip(), **config)
    assert answers.failed is not None
    assert answers.failed.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(answers.failed.violations) == [field]


@pytest.mark.parametrize(
    "config",
    [{}, {"overlay": {}, **MP4}, {"angle_options": {}, "measurements": ["splits"]}],
    ids=["nothing", "an overlay", "angles"],
)
async def test_the_config_in_force_is_a_config_too(service: Service, config: dict[str, Any]) -> None:
    first = await analyze(service, fast_start(count=3), **config)
    assert first.started is not None
    in_force = first.started.effective_config

    async def again() -> AsyncIterator[pb.AnalyzeVideoRequest]:
        yield pb.AnalyzeVideoRequest(config=in_force)
        yield pb.AnalyzeVideoRequest(chunk=fast_start(count=3))

    second = await analyze(service, again())
    assert second.failed is None
    assert second.started is not None
    assert second.started.effective_config == in_force


async def test_an_unknown_model_or_skeleton_is_not_found(service: Service) -> None:
    for unknown in ({"model": "nobody"}, {"skeleton": "nothing"}, {"model_version": "77"}):
        answers = await analyze(service, clip(), **unknown)
        assert answers.failed is not None
        assert answers.failed.code == grpc.StatusCode.NOT_FOUND


async def test_a_call_whose_caller_stops_sending_is_ended(tmp_path: Path) -> None:
    async with running(stream_idle_s=0.3, video_spool=tmp_path) as service:

        async def send() -> AsyncIterator[pb.AnalyzeVideoRequest]:
            yield pb.AnalyzeVideoRequest(config=pb.VideoConfig())
            yield pb.AnalyzeVideoRequest(chunk=clip()[:500])
            await asyncio.sleep(20)

        answers = await analyze(service, send())
        assert answers.failed is not None
        assert (answers.failed.code, answers.failed.reason) == (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "UPLOAD_IDLE",
        )
        await until(lambda: not spools(tmp_path))
        assert service.streams.running == 0


async def test_a_caller_who_leaves_stops_the_work_and_frees_everything(
    service: Service, tmp_path: Path
) -> None:
    call = service.poses.AnalyzeVideo(messages(fast_start(count=1500), 1 << 16, {}))
    async for answer in call:
        if answer.HasField("frame") and answer.frame.frame_index == 10:
            break
    call.cancel()
    await until(lambda: service.streams.running == 0)
    seen = len(service.triton.calls)
    assert seen < 750  # of 1500: what was on its way to the caller, and the few frames ahead
    assert service.triton.under_way == 0
    assert not spools(tmp_path)


async def test_a_reader_who_takes_nothing_slows_down_one_stream_only(service: Service) -> None:
    service.triton.answer = CROWD
    call = service.poses.AnalyzeVideo(messages(fast_start(count=1400), 1 << 16, {}))
    await call.read()
    before = -1
    while before != len(service.triton.calls):  # what gRPC buffers is soon full
        before = len(service.triton.calls)
        await asyncio.sleep(0.5)
    assert before < 1400
    other = await analyze(service, fast_start())
    assert len(other.frames) == 40
    call.cancel()


async def test_a_call_whose_reader_never_takes_anything_is_ended(tmp_path: Path) -> None:
    async with running(stream_stall_s=0.5, video_spool=tmp_path) as service:
        service.triton.answer = CROWD
        call = service.poses.AnalyzeVideo(messages(fast_start(count=1400), 1 << 16, {}))
        await call.read()
        await until(lambda: service.streams.running == 0, 60)
        call.cancel()


async def test_one_stream_too_many_is_told_when_to_try_again(tmp_path: Path) -> None:
    async with running(max_streams=1, video_spool=tmp_path) as service:
        first = service.poses.AnalyzeVideo(messages(fast_start(count=1500), 1 << 16, {}))
        await first.read()
        second = await analyze(service, clip())
        assert second.failed is not None
        assert second.failed.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert second.failed.retry_s
        first.cancel()
        await until(lambda: service.streams.running == 0)
        assert (await analyze(service, clip())).failed is None


async def test_streams_that_have_to_end_do_so_after_a_last_progress(service: Service) -> None:
    service.triton.gate.clear()
    analyzing = asyncio.create_task(analyze(service, fast_start()))
    await until(lambda: service.triton.under_way > 0)
    service.streams.end()
    answers = await analyzing
    assert answers.failed is not None
    failed = answers.failed
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert answers.order[-1] == "progress"
    refused = await analyze(service, clip())
    assert refused.failed is not None
    assert refused.failed.code == grpc.StatusCode.UNAVAILABLE


async def test_a_model_that_is_busy_or_away_for_a_moment_is_waited_for(service: Service) -> None:
    service.triton.script = [
        Overloaded("full", retry_after_s=0.05),
        Unavailable("away", retry_after_s=0.05),
    ]
    answers = await analyze(service, fast_start())
    assert answers.failed is None
    assert len(answers.frames) == 40


async def test_an_error_of_the_model_comes_after_the_frames_before_it(service: Service) -> None:
    service.triton.script = [*[rows(WHO)] * 5, RuntimeError("secret")]
    answers = await analyze(service, fast_start())
    assert 3 <= len(answers.frames) <= 5  # frames next to one another may reach the model out of turn
    assert answers.failed is not None
    assert (answers.failed.code, answers.failed.message) == (grpc.StatusCode.INTERNAL, "internal error")


async def test_a_full_disk_is_worth_another_try(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _content: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.media.spool.os.write", full)
    answers = await analyze(service, clip())
    assert answers.failed is not None
    assert (answers.failed.code, answers.failed.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "SPOOL_FULL",
    )
    assert answers.failed.retry_s


async def test_the_limits_are_told(service: Service) -> None:
    info = await service.poses.GetServerInfo(pb.GetServerInfoRequest())
    assert info.limits.max_streams == 4
    assert info.limits.max_video_bytes == 50_000_000
    assert info.limits.max_video_duration.seconds == 60


async def test_a_length_that_is_too_short_is_not_believed_for_ever(service: Service) -> None:
    # 16 s, of which the container admits 0.8: progress goes by the number of frames instead.
    content = fast_start(count=400)
    lie = patched(content, b"mdhd", 16, (10_000).to_bytes(4, "big"))
    lie = patched(lie, b"mvhd", 16, (780).to_bytes(4, "big"))
    service.triton.seconds = 0.01
    answers = await analyze(service, lie)
    assert answers.failed is None
    reported = [one for one in answers.progress[:-1] if one.frame > 40]
    assert reported
    assert {one.total for one in reported} == {400}


async def test_progress_by_bytes_goes_by_what_was_decoded(service: Service) -> None:
    service.triton.seconds = 0.01
    answers = await analyze(service, clip("mpegts", count=400))
    assert answers.failed is None
    for one in answers.progress[:-1]:
        if one.frame < 300:
            assert one.percent < 90
            assert not one.HasField("eta") or one.eta.ToMilliseconds() > 0


async def test_damage_is_stepped_over_and_counted(service: Service) -> None:
    found = await analyze(service, case("v_one_bad.mp4"))
    assert found.failed is None
    assert [frame.frame_index for frame in found.frames] == list(range(40))
    assert [frame.frame_index for frame in found.frames if frame.damaged] == [14]
    assert found.summary is not None
    assert (found.summary.frames_damaged, found.summary.gaps) == (1, 0)
    assert found.progress[-1].frames_damaged == 1


async def test_strict_ends_at_the_damage(service: Service) -> None:
    found = await analyze(service, case("v_one_bad.mp4"), strict=True)
    assert found.failed is not None
    assert found.failed.code is grpc.StatusCode.DATA_LOSS
    assert [frame.frame_index for frame in found.frames] == list(range(14))
    assert found.summary is None


@pytest.mark.parametrize(
    ("name", "rotation_deg", "mirrored", "pixel_aspect", "begin_s"),
    [
        ("v_base.mp4", 0, False, 1.0, 0.0),
        ("v_hflip.mp4", 0, True, 1.0, 0.0),
        ("v_transpose.mp4", 270, True, 1.0, 0.0),
        ("v_sar4_3.mp4", 0, False, 270 / 202, 0.0),
        ("v_late_pictures.mp4", 0, False, 1.0, 1.0),
    ],
)
async def test_how_frames_were_brought_upright_is_reported(
    service: Service, name: str, rotation_deg: int, mirrored: bool, pixel_aspect: float, begin_s: float
) -> None:
    found = await analyze(service, case(name), every_nth_frame=100)
    assert found.started is not None
    video = found.started.video
    assert (video.frame_size.width, video.frame_size.height) == (270, 480)
    assert (video.rotation_deg, video.mirrored) == (rotation_deg, mirrored)
    assert video.pixel_aspect == pytest.approx(pixel_aspect, rel=1e-3)
    assert video.begin.ToTimedelta().total_seconds() == pytest.approx(begin_s)


async def test_a_still_picture_is_referred_to_the_call_for_pictures(service: Service) -> None:
    found = await analyze(service, case("photo_grid.avif"))
    assert found.failed is not None
    assert found.failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "DetectPoses" in found.failed.message
