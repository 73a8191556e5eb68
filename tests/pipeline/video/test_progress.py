from __future__ import annotations

from dataclasses import replace

import pytest

from service.media.frame_sampler import Sampling
from service.media.video_reader import VideoFacts
from service.pipeline.video.progress import ProgressReporter, WorkDone

FACTS = VideoFacts(
    container="mp4",
    codec="h264",
    size_wh=(96, 64),
    rotation_deg=0,
    fps=25.0,
    duration_s=16.0,
    frame_count=400,
)
WHOLE = Sampling()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def after(frames: int, facts: VideoFacts | None = FACTS, **changes: object) -> WorkDone:
    """The state after so many frames of 25 per second."""
    done = WorkDone(facts=facts, frames_analyzed=frames, last_time_s=frames / 25, frames_seen=frames)
    return replace(done, **changes)  # type: ignore[arg-type]


def test_a_report_is_due_after_a_second_without_a_frame_and_sooner_with_one() -> None:
    clock = Clock()
    reporter = ProgressReporter(WHOLE, clock)
    assert reporter.patience_s() == 1.0
    assert not reporter.is_due(after(5))
    clock.now += 0.12
    assert reporter.is_due(after(5))
    assert not reporter.is_due(after(0))
    reporter.report(after(5))
    assert not reporter.is_due(after(9))
    clock.now += 0.5
    assert not reporter.is_due(after(5))
    assert reporter.patience_s() == pytest.approx(0.5)
    clock.now += 0.5
    assert reporter.is_due(after(5))
    assert reporter.patience_s() == 0.0


def test_before_the_container_is_open_only_the_upload_is_reported() -> None:
    clock = Clock()
    reporter = ProgressReporter(WHOLE, clock)
    clock.now += 1
    progress = reporter.report(WorkDone(bytes_received=1000))
    assert (progress.frame, progress.total, progress.percent, progress.eta_s) == (0, None, 0.0, None)
    assert (progress.bytes_received, progress.elapsed_s, progress.fps) == (1000, 1.0, 0.0)


def test_progress_is_by_time_with_the_rest_extrapolated() -> None:
    clock = Clock()
    reporter = ProgressReporter(WHOLE, clock)
    clock.now += 2
    progress = reporter.report(after(100))
    assert (progress.frame, progress.total) == (100, 400)
    assert progress.percent == pytest.approx(25)
    assert progress.eta_s == pytest.approx(6)
    assert progress.fps == pytest.approx(50)


def test_the_rest_is_not_extrapolated_from_less_than_a_hundredth_of_the_work() -> None:
    reporter = ProgressReporter(WHOLE, Clock())
    assert reporter.report(after(3)).eta_s is None
    assert reporter.report(after(4)).eta_s is not None


def test_the_rate_is_that_of_the_last_three_seconds() -> None:
    clock = Clock()
    reporter = ProgressReporter(WHOLE, clock)
    for second in range(1, 11):
        clock.now += 1
        progress = reporter.report(after(10 * second if second <= 5 else 50))
    assert progress.fps == 0.0
    assert progress.elapsed_s == 10.0


def test_percents_never_fall_and_stay_below_100_until_the_end() -> None:
    reporter = ProgressReporter(WHOLE, Clock())
    percents = [reporter.report(after(frames)).percent for frames in (100, 400, 20)]
    assert percents == [25.0, 99.9, 99.9]
    final = reporter.final(after(400))
    assert (final.percent, final.frame, final.total, final.eta_s) == (100.0, 400, 400, 0.0)


def test_the_final_rate_is_that_of_the_whole_analysis() -> None:
    clock = Clock()
    reporter = ProgressReporter(WHOLE, clock)
    clock.now += 8
    reporter.report(after(400))
    assert reporter.final(after(400)).fps == pytest.approx(50)


@pytest.mark.parametrize(
    ("facts", "sampling", "total"),
    [
        (FACTS, WHOLE, 400),
        (FACTS, Sampling(every_nth=7), 57),
        (FACTS, Sampling(target_fps=10), 160),
        (FACTS, Sampling(target_fps=100), 400),
        (FACTS, Sampling(start_s=4, end_s=8), 100),
        (FACTS, Sampling(start_s=4, end_s=99), 300),
        (FACTS, Sampling(start_s=20), None),
        (replace(FACTS, fps=None), WHOLE, None),
        (replace(FACTS, duration_s=None), WHOLE, None),
        (replace(FACTS, duration_s=0.01), WHOLE, 10),
    ],
    ids=[
        "whole", "every seventh", "ten a second", "more than there are", "a part", "an end after the end",
        "a start after the end", "no rate", "no length", "never fewer than done",
    ],
)  # fmt: skip
def test_the_total_is_that_of_the_frames_to_analyse(
    facts: VideoFacts, sampling: Sampling, total: int | None
) -> None:
    done = after(10, facts, last_time_s=0.0)
    assert ProgressReporter(sampling, Clock()).report(done).total == total


def test_a_length_that_is_exceeded_is_replaced_by_the_number_of_frames() -> None:
    # 16 s, of which the container admits 0.8.
    wrong = replace(FACTS, duration_s=0.8)
    reporter = ProgressReporter(WHOLE, Clock())
    assert reporter.report(after(10, wrong)).total == 20
    for frames in range(240, 400, 40):
        progress = reporter.report(after(frames, wrong))
        assert progress.total == 400
        assert progress.percent == pytest.approx(max(50, 100 * frames / 400))
    sampled = ProgressReporter(Sampling(every_nth=4), Clock()).report(after(60, wrong))
    assert sampled.total == 100


def test_a_length_that_is_exceeded_tells_nothing_where_only_a_part_is_analysed() -> None:
    wrong = replace(FACTS, duration_s=0.8)
    for sampling in (Sampling(start_s=0.1), Sampling(end_s=0.7), Sampling(target_fps=5)):
        progress = ProgressReporter(sampling, Clock()).report(after(60, wrong))
        assert (progress.total, progress.percent) == (None, 0.0)


def test_without_a_length_progress_is_by_bytes_decoded_once_the_upload_is_complete() -> None:
    unknown = replace(FACTS, duration_s=None, frame_count=None)
    reporter = ProgressReporter(WHOLE, Clock())
    done = after(10, unknown, bytes_received=1000, bytes_decoded=250)
    assert reporter.report(done).percent == 0.0
    assert reporter.report(replace(done, upload_complete=True)).percent == 25.0
    all_read = replace(done, upload_complete=True, bytes_decoded=1000)  # what is left cannot be told
    assert reporter.report(all_read).percent == 25.0
