"""UTC calendar months: the periods of quotas and of invoices."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import lru_cache


def month_of(moment: datetime) -> str:
    """The month of a moment, as 2026-11."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{utc.year:04}-{utc.month:02}"


def day_of(moment: datetime) -> date:
    """The UTC day of a moment."""
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).date()


def first_day(month: str) -> date:
    """The first day of a month such as 2026-11.

    Raises:
        ValueError: it is not a month.
    """
    if len(month) != len("2026-11"):
        raise ValueError(f"'{month}' is not a month such as 2026-11")
    try:
        return date.fromisoformat(f"{month}-01")
    except ValueError:
        raise ValueError(f"'{month}' is not a month such as 2026-11") from None


def next_month(first: date) -> date:
    """The first day of the month after that of `first`."""
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


@lru_cache(maxsize=8)
def reset_time(month: str) -> datetime:
    """When the quota of a month ends: the first moment of the next one, UTC."""
    following = next_month(first_day(month))
    return datetime(following.year, following.month, following.day, tzinfo=UTC)
