"""Refusals in words that a stranger understands."""

import pytest

from service.errors import PlanDoesNotAllow


@pytest.mark.parametrize(
    ("limit_name", "limit", "actual", "words"),
    [
        (
            "max_batch_size",
            1,
            2,
            "allows 1 image in a batch, not 2: send fewer at once, or ask for another plan.",
        ),
        (
            "max_video_seconds",
            8,
            9.25,
            "allows 8 seconds of one video or stream, not 9.25: cut it, set `start`",
        ),
        (
            "max_skeletons",
            3,
            4,
            "allows 3 custom skeletons, not 4: delete one first, or ask for another plan.",
        ),
        ("max_skeletons", 0, 1, "allows no custom skeletons: ask for another plan."),
        ("own_models", 0, 1, "allows no models of one's own: ask for another plan."),
    ],
)
def test_what_a_plan_does_not_allow_is_put_into_words(
    limit_name: str, limit: float, actual: float, words: str
) -> None:
    error = PlanDoesNotAllow.of("free", limit_name, limit=limit, actual=actual)
    assert error.message.startswith(f"The plan 'free' {words}")
