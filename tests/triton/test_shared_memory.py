"""Slots in shared memory: lent, filled, given back, removed."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.triton.shared_memory import SharedSlots

DEV_SHM = Path("/dev/shm")  # noqa: S108


@pytest.fixture
def slots() -> Iterator[SharedSlots]:
    slots = SharedSlots(count=3, slot_bytes=10_000)
    yield slots
    slots.close()


def seen(slots: SharedSlots, offset: int, count: int) -> bytes:
    """What another process sees at that place of the region."""
    return (DEV_SHM / slots.name).read_bytes()[offset : offset + count]


def test_nothing_at_all_fits_into_a_slot(slots: SharedSlots) -> None:
    lent = slots.lend([])
    assert lent is not None
    assert lent.offsets == []


def test_slots_are_whole_pages(slots: SharedSlots) -> None:
    assert slots.slot_bytes == 12_288
    assert slots.size == 3 * 12_288
    assert slots.key == f"/{slots.name}"


def test_another_process_sees_the_tensors_where_they_are_said_to_be(slots: SharedSlots) -> None:
    first = np.arange(300, dtype=np.uint8)[::2]  # not contiguous
    second = np.arange(12, dtype=np.float32).reshape(3, 4)
    lent = slots.lend([first, second])
    assert lent is not None
    slot, offsets = lent.slot, lent.offsets
    assert offsets[0] == slot
    assert all(offset % 64 == 0 for offset in offsets)
    assert seen(slots, offsets[0], 150) == first.tobytes()
    assert seen(slots, offsets[1], 48) == second.tobytes()


def test_two_loans_never_share_a_page(slots: SharedSlots) -> None:
    loans = [slots.lend([np.full(10_000, number, np.uint8)]) for number in range(3)]
    starts = sorted(loan.slot for loan in loans if loan is not None)
    assert starts == [0, 12_288, 24_576]
    for number, loan in enumerate(loans):
        assert loan is not None
        assert seen(slots, loan.slot, 10_000) == bytes([number]) * 10_000


def test_no_more_slots_are_lent_than_there_are(slots: SharedSlots) -> None:
    tensor = np.zeros(1, np.uint8)
    loans = [slots.lend([tensor]) for _ in range(3)]
    assert all(loans)
    assert slots.lend([tensor]) is None
    assert loans[1] is not None
    slots.give_back(loans[1].slot)
    again = slots.lend([tensor])
    assert again is not None
    assert again.slot == loans[1].slot


def test_what_does_not_fit_takes_no_slot(slots: SharedSlots) -> None:
    assert slots.lend([np.zeros(12_289, np.uint8)]) is None
    assert slots.lend([np.zeros(12_200, np.uint8), np.zeros(100, np.uint8)]) is None
    assert all(slots.lend([np.zeros(12_288, np.uint8)]) for _ in range(3))


def test_a_closed_region_is_gone_and_lends_nothing(slots: SharedSlots) -> None:
    assert (DEV_SHM / slots.name).exists()
    slots.close()
    assert not (DEV_SHM / slots.name).exists()
    assert slots.lend([np.zeros(1, np.uint8)]) is None
    slots.give_back(0)  # of a request that was under way
    assert slots.lend([np.zeros(1, np.uint8)]) is None
    slots.close()


def test_a_region_that_was_removed_meanwhile_can_still_be_closed(slots: SharedSlots) -> None:
    (DEV_SHM / slots.name).unlink()
    slots.close()


def test_two_regions_have_different_names(slots: SharedSlots) -> None:
    other = SharedSlots(count=1, slot_bytes=1)
    try:
        assert other.name != slots.name
    finally:
        other.close()


def test_a_host_without_that_much_shared_memory_says_so_at_once_and_keeps_nothing() -> None:
    # Not later, with SIGBUS in the middle of a request.
    room = os.statvfs(DEV_SHM)
    with pytest.raises(OSError, match="space"):
        SharedSlots(count=1, slot_bytes=room.f_frsize * (room.f_blocks + 1))
    assert list(DEV_SHM.glob(f"posegate-{os.getpid()}-*")) == []


def test_an_answer_has_room_behind_the_tensors_where_the_slot_is_large_enough(slots: SharedSlots) -> None:
    loan = slots.lend([np.zeros(100, np.uint8)], room=8)
    assert loan is not None
    assert loan.room == loan.slot + 128
    answer = np.array([1.5, -2], np.float32)
    with (DEV_SHM / slots.name).open("r+b") as region:
        region.seek(loan.room)
        region.write(answer.tobytes())
    read = slots.read(loan.room, (2,), np.dtype(np.float32))
    np.testing.assert_array_equal(read, answer)
    slots.close()  # the copy outlives the region
    np.testing.assert_array_equal(read, answer)


def test_tensors_that_fill_the_slot_are_lent_without_room(slots: SharedSlots) -> None:
    loan = slots.lend([np.zeros(12_288, np.uint8)], room=1)
    assert loan is not None
    assert loan.room is None
