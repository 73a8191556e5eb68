from __future__ import annotations

import numpy as np

from service.core.poses import Floats
from service.tracking import Tracker


def boxes(*centres: tuple[float, float], size: tuple[float, float] = (80, 240)) -> Floats:
    width, height = size
    return np.array(
        [(x - width / 2, y - height / 2, x + width / 2, y + height / 2) for x, y in centres], np.float32
    ).reshape(-1, 4)


def update(tracker: Tracker, found: Floats, time_s: float) -> list[int]:
    return tracker.update(found, np.full(len(found), 0.9, np.float32), time_s)


def test_nobody_is_followed_where_nobody_is() -> None:
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


def test_who_leaves_for_long_comes_back_as_somebody_new() -> None:
    tracker = Tracker()
    update(tracker, boxes((100, 300)), 0.0)
    update(tracker, boxes(), 4.0)
    assert update(tracker, boxes((100, 300)), 8.0) == [2]


def test_somebody_elsewhere_is_somebody_else() -> None:
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
