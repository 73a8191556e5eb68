"""Which of several forms of an answer a caller prefers, by the header `Accept` (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from service.web.problems import Problem


def preferred(accept: str, offers: Sequence[str]) -> str:
    """The media type to answer with; the first offer where the caller does not mind.

    Raises:
        Problem: 406 where none is accepted.
    """
    if not accept.strip():
        return offers[0]
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    best, best_quality = "", 0.0
    for offer in offers:
        quality = max(
            ((_precision(media), quality) for media, quality in ranges if _fits(media, offer)),
            default=(0, 0.0),
        )[1]
        if quality > best_quality:
            best, best_quality = offer, quality
    if not best:
        raise Problem(
            406, "NOT_ACCEPTABLE", f"None of what {accept[:100]!r} accepts is there, but {', '.join(offers)}."
        )
    return best


def _range(part: str) -> tuple[str, float]:
    media, *parameters = part.lower().split(";")
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 0.0
    return media.strip(), quality


def _fits(media: str, offer: str) -> bool:
    if media in ("*/*", "*"):
        return True
    if media.endswith("/*"):
        return offer.startswith(media[:-1])
    return media == offer


def _precision(media: str) -> int:
    return 0 if media in ("*/*", "*") else 1 if media.endswith("/*") else 2
