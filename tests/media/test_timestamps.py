"""Times and numbers of frames, from the stamps of packets."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest

from service.media.timestamps import PacketClock, Place, PresentationOrder, PresentationTimes, StrayStamps

TS = Fraction(1, 90_000)
FRAME = 3600  # ticks, 25 frames a second


def clock(*, may_jump: bool = True) -> PacketClock:
    return PacketClock(TS, FRAME, may_jump=may_jump)


def test_stamps_that_rise_stay_as_they_are() -> None:
    one = clock()
    for number in range(5):
        stamps = one.read(7200 + number * FRAME, number * FRAME, FRAME)
        assert (stamps.pts, stamps.dts, stamps.jumped) == (7200 + number * FRAME, number * FRAME, False)


def test_a_second_copy_goes_on_behind_the_first() -> None:
    one = clock()
    read = [one.read(7200 + n % 40 * FRAME, n % 40 * FRAME, FRAME) for n in range(80)]
    assert [stamps.dts for stamps in read] == [n * FRAME for n in range(80)]
    assert [stamps.pts for stamps in read] == [7200 + n * FRAME for n in range(80)]
    assert [n for n, stamps in enumerate(read) if stamps.jumped] == [40]


@pytest.mark.parametrize(("may_jump", "dts"), [(True, 2 * FRAME), (False, 20 * 90_000)])
def test_a_leap_ahead_is_closed_only_where_the_clock_may_jump(may_jump: bool, dts: int) -> None:
    one = clock(may_jump=may_jump)
    one.read(0, 0, FRAME)
    one.read(FRAME, FRAME, FRAME)
    stamps = one.read(20 * 90_000, 20 * 90_000, FRAME)
    assert stamps.dts == dts
    assert stamps.jumped is may_jump


def test_a_pause_is_kept() -> None:
    one = clock()
    one.read(0, 0, FRAME)
    assert one.read(5 * 90_000, 5 * 90_000, FRAME).dts == 5 * 90_000


def test_packets_without_stamps_are_counted_on() -> None:
    one = clock()
    assert [one.read(None, None, ticks).dts for ticks in (None, 7200, 0, None)] == [0, 3600, 10_800, 14_400]


def placed(order: PresentationOrder, stamp: int, *, key_frame: bool = False) -> tuple[int, int]:
    """Number and stamp of a frame that has a place."""
    _, place, _ = order.place(stamp, key_frame=key_frame)
    assert place is not None
    return place.number, place.stamp


def test_frames_are_numbered_in_the_order_of_presentation() -> None:
    order = PresentationOrder(by_decoding=False)
    for stamp in (0, 4, 2, 1, 3):
        order.sent(stamp)
    assert [placed(order, stamp, key_frame=stamp == 0) for stamp in range(5)] == [(n, n) for n in range(5)]


def test_lost_frames_keep_their_numbers() -> None:
    order = PresentationOrder(by_decoding=False)
    for stamp in range(6):
        order.sent(stamp)
    assert [placed(order, stamp)[0] for stamp in (0, 1, 4, 5)] == [0, 1, 4, 5]


def test_frames_before_the_first_that_can_be_decoded_do_not_count() -> None:
    order = PresentationOrder(by_decoding=False)
    for stamp in (-2, -1, 0, 1):
        order.sent(stamp)
    assert [placed(order, stamp, key_frame=True)[0] for stamp in (0, 1)] == [0, 1]


def test_without_presentation_stamps_times_are_given_out_in_order() -> None:
    order = PresentationOrder(by_decoding=True)
    for stamp in range(8):
        order.sent(stamp)
    # I P B B B P B B in decoding order; each frame carries the stamp of its own packet.
    decoded = [0, 3, 2, 4, 1, 6, 7, 5]
    assert [placed(order, stamp, key_frame=stamp == 0) for stamp in decoded] == [(n, n) for n in range(8)]


def test_without_presentation_stamps_frames_behind_a_loss_have_no_place_up_to_a_key_frame() -> None:
    order = PresentationOrder(by_decoding=True)
    for stamp in range(6):
        order.sent(stamp)
        if stamp == 2:
            order.damaged(lost=True)
    assert placed(order, 0, key_frame=True) == (0, 0)
    assert order.place(3, key_frame=False)[1] is None
    lost, place, damaged = order.place(4, key_frame=True)
    assert [one.number for one in lost] == [1, 2, 3]
    assert (place, damaged) == (Place(4, 4), False)
    assert placed(order, 5) == (5, 5)


def test_behind_damage_every_frame_is_given_or_lost_and_none_comes_too_late() -> None:
    order = PresentationOrder(by_decoding=False)
    for stamp in range(8):
        order.sent(stamp)
        if stamp == 2:
            order.damaged(lost=True)
    placed(order, 0, key_frame=True)
    lost, place, damaged = order.place(4, key_frame=False)
    assert ([one.number for one in lost], place, damaged) == ([1, 2, 3], Place(4, 4), True)
    assert order.place(1, key_frame=False) == ([], None, True)  # it is lost already
    assert order.place(6, key_frame=True) == ([Place(5, 5)], Place(6, 6), False)
    assert order.place(7, key_frame=False) == ([], Place(7, 7), False)


def test_a_first_key_frame_that_is_lost_is_still_frame_0() -> None:
    order = PresentationOrder(by_decoding=False)
    for stamp in (10, 8, 11, 12):  # 8 leads the key frame, and depends on frames that are not there
        order.sent(stamp)
        if stamp == 10:
            order.damaged(lost=True)
    lost, place, _ = order.place(12, key_frame=True)
    assert (lost, place) == ([Place(0, 10), Place(1, 11)], Place(2, 12))
    assert order.left_out == 1


def test_numbers_go_on_behind_frames_that_were_passed_over() -> None:
    order = PresentationOrder(by_decoding=False)
    order.sent(0)
    order.place(0, key_frame=True)
    order.restart(20, passed=20, leading=[])
    for stamp in (20, 22, 21):
        order.sent(stamp)
    assert [placed(order, stamp)[0] for stamp in (20, 21, 22)] == [20, 21, 22]


def test_two_frames_of_one_packet_have_two_numbers() -> None:
    order = PresentationOrder(by_decoding=False)
    for stamp in (0, 1):
        order.sent(stamp)
    numbers = [placed(order, stamp)[0] for stamp in (0, 0, 1)]
    assert numbers == [0, 1, 2]


def test_times_count_from_the_first_frame_and_rise() -> None:
    times = PresentationTimes(TS, Fraction(1, 25))
    stamps = [133_200, 136_800, 136_800, 100_000, 150_000]
    given = [times.at(stamp, FRAME) for stamp in stamps]
    assert given[:3] == [0, Fraction(1, 25), Fraction(2, 25)]
    assert all(earlier < later for earlier, later in pairwise(given))
    assert times.zero == 133_200


def test_a_frame_without_a_stamp_follows_the_one_before() -> None:
    times = PresentationTimes(TS, Fraction(1, 25))
    assert [times.at(stamp, None) for stamp in (0, None, None)] == [0, Fraction(1, 25), Fraction(2, 25)]


@pytest.mark.parametrize(
    ("stamps", "good"),
    [
        ([(0, 0), (4, 4), (8, 8)], [(0, 0), (4, 4), (8, 8)]),
        ([(4, 0), (9999, 9996), (12, 8)], [(4, 0), (7, 4), (12, 8)]),
        ([(104, 100), (4, 0), (112, 108)], [(104, 100), (108, 104), (112, 108)]),
        ([(104, 100), (-99999, 104), (112, 108)], [(104, 100), (104, 104), (112, 108)]),
        ([(100, 100), (0, 0), (4, 4)], [(100, 100), (0, 0), (4, 4)]),
        ([(0, 0), (5000, 5000), (5004, 5004)], [(0, 0), (5000, 5000), (5004, 5004)]),
        ([(0, 0), (None, 5000), (8, 8)], [(0, 0), (None, 4), (8, 8)]),
        ([(0, None), (4, None), (9999, None)], [(0, None), (4, None), (9999, None)]),
    ],
    ids=["even", "far ahead", "back", "presentation", "another clock", "a leap", "no presentation", "none"],
)
def test_a_single_stamp_far_from_its_neighbours_is_damaged(
    stamps: list[tuple[int, int]], good: list[tuple[int, int]]
) -> None:
    strays = StrayStamps(Fraction(1, 100))
    found = []
    for (pts, dts), (_, behind) in zip(stamps, [*stamps[1:], (None, None)], strict=True):
        better = strays.between(pts, dts, behind)
        found.append((pts, dts) if better is None else (better.pts, better.dts))
    assert found == good
