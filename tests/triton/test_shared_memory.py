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
    empty = slots.lend().array((0, 3), np.uint8)
    assert empty is not None
    assert empty.shape == (0, 3)


def test_slots_are_whole_pages(slots: SharedSlots) -> None:
    assert slots.slot_bytes == 12_288
    assert slots.size == 3 * 12_288
    assert slots.key == f"/{slots.name}"


def test_another_process_sees_the_tensors_where_they_are_said_to_be(slots: SharedSlots) -> None:
    first = np.arange(300, dtype=np.uint8)[::2]  # not contiguous
    second = np.arange(12, dtype=np.float32).reshape(3, 4)
    loan = slots.lend()
    for tensor, count in ((first, 150), (second, 48)):
        placed = loan.placed(tensor)
        assert placed is not None
        offset = slots.offset(placed)
        assert offset is not None
        assert offset % 64 == 0
        assert seen(slots, offset, count) == tensor.tobytes()


def test_what_was_written_into_an_array_of_the_loan_is_not_copied(slots: SharedSlots) -> None:
    loan = slots.lend()
    array = loan.array((2, 3), np.uint8)
    assert array is not None
    assert loan.placed(array) is array
    assert loan.placed(array[None]) is not None
    turned = loan.placed(array.T)  # Triton reads rows one after the other
    assert turned is not None
    assert slots.offset(turned) != slots.offset(array)
    assert not loan.holds(np.zeros(3))


def test_what_another_process_writes_is_seen(slots: SharedSlots) -> None:
    room = slots.lend().array((2,), np.float32)
    assert room is not None
    answer = np.array([1.5, -2], np.float32)
    with (DEV_SHM / slots.name).open("r+b") as region:
        region.seek(slots.offset(room) or 0)
        region.write(answer.tobytes())
    np.testing.assert_array_equal(room, answer)
    slots.close()  # an array outlives the region
    np.testing.assert_array_equal(room, answer)


def test_two_loans_never_share_a_page(slots: SharedSlots) -> None:
    loans = [slots.lend() for _ in range(3)]
    for number, loan in enumerate(loans):
        assert loan.placed(np.full(10_000, number, np.uint8)) is not None
    assert sorted(loan.slot or 0 for loan in loans) == [0, 12_288, 24_576]
    for number, loan in enumerate(loans):
        assert seen(slots, loan.slot or 0, 10_000) == bytes([number]) * 10_000


def test_no_more_slots_are_lent_than_there_are(slots: SharedSlots) -> None:
    loans = [slots.lend() for _ in range(3)]
    assert all(loan.slot is not None for loan in loans)
    none = slots.lend()
    assert none.slot is None
    assert none.array((1,), np.uint8) is None
    assert none.placed(np.zeros(1, np.uint8)) is None
    assert loans[1].slot is not None
    slots.give_back(loans[1].slot)
    assert slots.lend().slot == loans[1].slot


def test_what_does_not_fit_takes_no_room(slots: SharedSlots) -> None:
    loan = slots.lend()
    assert loan.placed(np.zeros(12_289, np.uint8)) is None
    assert loan.placed(np.zeros(12_200, np.uint8)) is not None
    assert loan.placed(np.zeros(100, np.uint8)) is None
    assert loan.placed(np.zeros(64, np.uint8)) is not None


def test_a_closed_region_is_gone_and_lends_nothing(slots: SharedSlots) -> None:
    assert (DEV_SHM / slots.name).exists()
    slots.close()
    assert not (DEV_SHM / slots.name).exists()
    assert slots.lend().slot is None
    slots.give_back(0)  # of a request that was under way
    assert slots.lend().slot is None
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
