from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.core.angles import AngleOptions
from service.core.drawing.poses import OverlayStyle
from service.core.geometry import Rgb8
from service.core.poses import Poses
from service.core.skeleton.mapping import plan_mapping
from service.errors import Unimplemented
from service.media.video_writer import NoEncoder
from service.pipeline.sequence_analyzer import FrameAnalysis, SequenceAnalyzer, SequenceConfig
from service.pipeline.video.annotator import Annotator
from service.skeletons import shipped
from tests.pipeline.video.fakes import FakeWriter

COCO = shipped()["coco_17"]
STYLE = OverlayStyle()
BLACK = np.zeros((480, 640, 3), np.uint8)


def person(shift: float = 0.0) -> Poses:
    """One person whose keypoints lie on a slant, `shift` px to the right."""
    keypoints = np.array([[(200 + shift + 10 * k, 50 + 20 * k, 0.9) for k in range(17)]], np.float32)
    box = np.array([(190 + shift, 40, 380 + shift, 400)], np.float32)
    return Poses(boxes_xyxy=box, scores=np.array([0.9], np.float32), keypoints=keypoints)


def analysis(*measurements: str, smooth: bool = False, track: bool = True) -> FrameAnalysis:
    """The second frame of a person who jumps 100 px to the right."""
    config = SequenceConfig(
        plan=plan_mapping(COCO, COCO),
        track=track,
        smooth=smooth,
        measurements=measurements,
        side="both",
        angles=AngleOptions(),
        prominent_only=False,
    )
    sequence = SequenceAnalyzer(config, COCO)
    sequence.add_frame(person(), (640, 480), 0.0)
    return sequence.add_frame(person(100.0), (640, 480), 0.04)


def drawn(seen: FrameAnalysis, style: OverlayStyle = STYLE) -> Rgb8:
    """What the encoder gets for a black image."""
    writers: list[FakeWriter] = []

    def make(size_wh: tuple[int, int], fps: float) -> FakeWriter:
        writers.append(FakeWriter(size_wh, fps))
        return writers[-1]

    annotator = Annotator(make, COCO, style)
    annotator.open((640, 480), 25.0)
    assert annotator.draw(BLACK, seen, 0.04) == b"\x01" * 4
    ((image, time_s),) = writers[0].added
    assert (writers[0].size_wh, writers[0].fps, time_s) == ((640, 480), 25.0, 0.04)
    return image


def columns(image: Rgb8) -> tuple[int, int]:
    """The first and last column that is not black."""
    lit = np.flatnonzero(image.any(axis=(0, 2)))
    return int(lit[0]), int(lit[-1])


def test_a_frame_without_persons_is_encoded_as_it_is() -> None:
    nobody = replace(analysis(track=False), native=Poses.empty(17), poses=Poses.empty(17), prominent=None)
    assert not drawn(nobody).any()


def test_the_persons_are_drawn_and_the_input_is_left_as_it_was() -> None:
    image = drawn(analysis())
    assert image.any()
    assert not BLACK.any()


def test_smoothed_keypoints_are_drawn_where_there_are_some() -> None:
    style = replace(STYLE, boxes=False, labels=False)
    raw, smoothed = columns(drawn(analysis(), style)), columns(drawn(analysis(smooth=True), style))
    assert smoothed[0] < raw[0] - 5  # the filter lags behind the jump


def test_raw_keypoints_are_drawn_under_angles_which_were_measured_on_them() -> None:
    style = replace(STYLE, boxes=False, labels=False)
    measured = drawn(analysis("elbow_side", smooth=True), style)
    assert columns(measured)[0] >= columns(drawn(analysis(), style))[0] - 5
    assert (measured != drawn(analysis(), style)).any()


def test_track_ids_are_drawn_where_tracking_is_on() -> None:
    assert (drawn(analysis()) != drawn(analysis(track=False))).any()


def test_the_end_of_the_file_comes_from_the_encoder_which_is_closed_with_the_annotator() -> None:
    writer = FakeWriter((640, 480), 25.0)
    annotator = Annotator(lambda _size, _fps: writer, COCO, STYLE)
    annotator.open((640, 480), 25.0)
    assert annotator.finish() == b"end"
    annotator.close()
    assert writer.closed == 1


def test_an_annotator_that_was_never_opened_can_be_closed() -> None:
    Annotator(FakeWriter, COCO, STYLE).close()


def test_without_an_encoder_the_field_to_leave_unset_is_named() -> None:
    def none(_size_wh: tuple[int, int], _fps: float) -> FakeWriter:
        raise NoEncoder("h264_nvenc")

    annotator = Annotator(none, COCO, STYLE)
    with pytest.raises(Unimplemented, match="annotated_video") as failed:
        annotator.open((640, 480), 25.0)
    assert failed.value.reason == "NO_ENCODER"
    annotator.close()
