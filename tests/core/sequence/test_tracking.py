from __future__ import annotations

import numpy as np
import pytest

from service.core.poses import Floats
from service.core.sequence.tracking import Tracker


def boxes(*centres: tuple[float, float], size: tuple[float, float] = (80, 240)) -> Floats:
    width, height = size
    return np.array(
        [(x - width / 2, y - height / 2, x + width / 2, y + height / 2) for x, y in centres], np.float32
    ).reshape(-1, 4)


def update(tracker: Tracker, found: Floats, time_s: float) -> list[int]:
    return tracker.update(found, np.full(len(found), 0.9, np.float32), time_s)


def test_zero_persons_give_no_track() -> None:
    tracker = Tracker()
    assert update(tracker, boxes(), 0.0) == []
    assert tracker.count == 0


def test_people_keep_their_numbers_while_they_move_past_each_other() -> None:
    tracker = Tracker()
    for number in range(90):
        x = 4.0 * number
        found = update(tracker, boxes((100 + x, 300), (500 - x, 420)), number / 30)
        assert found == [1, 2]


def test_the_order_of_the_boxes_does_not_matter() -> None:
    tracker = Tracker()
    assert update(tracker, boxes((100, 300), (500, 300)), 0.0) == [1, 2]
    assert update(tracker, boxes((500, 300), (100, 300)), 0.1) == [2, 1]


def test_who_leaves_for_a_second_and_returns_keeps_the_number() -> None:
    for step in (0, 60, 180):
        tracker = Tracker()
        for number in range(30):
            update(tracker, boxes((600, 300), (100, 300)), number / 30)
        for number in range(30, 60):
            assert update(tracker, boxes((600, 300)), number / 30) == [1]
        assert update(tracker, boxes((600, 300), (100 + step, 300)), 2.0) == [1, 2], step
    assert tracker.count == 2


def test_a_person_who_leaves_for_long_comes_back_with_a_new_track_id() -> None:
    tracker = Tracker()
    update(tracker, boxes((100, 300)), 0.0)
    update(tracker, boxes(), 4.0)
    assert update(tracker, boxes((100, 300)), 8.0) == [2]


def test_a_person_elsewhere_has_another_track_id() -> None:
    tracker = Tracker()
    update(tracker, boxes((100, 300)), 0.0)
    assert update(tracker, boxes((900, 300)), 0.1) == [2]


def test_few_pictures_a_second_are_enough() -> None:
    tracker = Tracker()
    for number in range(10):
        assert update(tracker, boxes((100 + 90 * number, 300)), number / 2) == [1]


def test_two_people_never_have_one_number() -> None:
    rng = np.random.default_rng(5)
    tracker = Tracker()
    for number in range(200):
        centres = rng.uniform(0, 400, (6, 2))
        found = update(tracker, boxes(*map(tuple, centres)), number / 10)
        assert len(set(found)) == 6


def test_times_that_stand_still_do_no_harm() -> None:
    tracker = Tracker()
    assert [update(tracker, boxes((100, 300)), 1.0) for _ in range(3)] == [[1], [1], [1]]


@pytest.mark.parametrize("rate", [30, 10, 5])
@pytest.mark.parametrize("speed", [150, 300, 600])
def test_persons_who_cross_keep_their_track_ids(speed: int, rate: int) -> None:
    # One hides the other for a moment; heights are 340 px, so this is a walk to a run.
    rng = np.random.default_rng(speed + rate)
    for _ in range(10):
        tracker = Tracker()
        last: list[int] = []
        for step in range(1200 * rate // speed):
            x = speed * step / rate
            centres = [(200 + x, 400.0), (1400 - x, 400.0)]
            hidden = abs(centres[0][0] - centres[1][0]) < 100
            found = boxes(*(centres[:1] if hidden else centres), size=(120, 340))
            found += rng.normal(0, 3, found.shape).astype(np.float32)
            numbers = update(tracker, found, step / rate)
            last = last if hidden else numbers
            if step == 0:
                assert numbers == [1, 2]
        assert last == [1, 2]
        assert tracker.count == 2


def test_a_duplicate_detection_takes_no_track_id() -> None:
    tracker = Tracker()
    whole, half = (100.0, 100.0, 300.0, 500.0), (100.0, 100.0, 200.0, 500.0)
    points = np.array([[(120 + 5 * k, 120 + 20 * k, 0.9) for k in range(17)]], np.float32)
    seen = []
    for number in range(60):
        twice = 20 <= number < 23
        found = np.array([whole, half] if twice else [half if number > 30 else whole], np.float32)
        keypoints = np.repeat(points, len(found), axis=0)
        scores = np.full(len(found), 0.9, np.float32)
        seen.append(tracker.update(found, scores, number / 30, keypoints))
    assert {tuple(numbers) for numbers in seen} == {(1,), (1, 2)}
    assert tracker.count == 1


def test_a_person_close_before_another_is_no_duplicate() -> None:
    tracker = Tracker()
    found = np.array([(100, 100, 300, 500), (120, 260, 220, 490)], np.float32)  # a child before an adult
    points = np.stack(
        [np.array([(x1 + 5 * k, y1 + h * k / 17, 0.9) for k in range(17)], np.float32)
         for x1, y1, h in ((110, 110, 380), (125, 265, 220))]
    )  # fmt: skip
    scores = np.full(2, 0.9, np.float32)
    assert [tracker.update(found, scores, number / 30, points) for number in range(9)] == [[1, 2]] * 9
    assert tracker.count == 2


def test_times_far_from_zero_do_no_harm() -> None:
    tracker = Tracker()
    assert [update(tracker, boxes((100, 300)), 1e12 + number) for number in range(3)] == [[1], [1], [1]]
