from __future__ import annotations

import pytest

from service.servicers.responses.durations import duration, duration_of_ns


@pytest.mark.parametrize(
    ("seconds", "parts"),
    [(0.0, (0, 0)), (1.5, (1, 500_000_000)), (-1.5, (-1, -500_000_000)), (-0.25, (0, -250_000_000)),
     (0.9999999999, (1, 0)), (86400.000000001, (86400, 1))],
)  # fmt: skip
def test_seconds_are_rounded_to_nanoseconds_and_both_fields_have_one_sign(
    seconds: float, parts: tuple[int, int]
) -> None:
    message = duration(seconds)
    assert (message.seconds, message.nanos) == parts


def test_nanoseconds_are_exact_where_seconds_as_a_float_would_not_be() -> None:
    message = duration_of_ns(1_763_000_000_123_456_789)
    assert (message.seconds, message.nanos) == (1_763_000_000, 123_456_789)
    assert message.ToNanoseconds() == 1_763_000_000_123_456_789
