from service.server.retry_hint import RetryHint


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_pause_grows_with_the_refusals_and_is_bounded() -> None:
    clock = Clock()
    hint = RetryHint(clock, lambda: 0.5)
    for _ in range(400):  # 40 calls a second
        clock.now += 0.025
        hint.ended()
    pauses = [hint.after_refusal(64) for _ in range(1000)]
    assert 1.5 < pauses[0] < 2.0  # 65 calls at 40 a second, less what the memory has lost
    assert pauses == sorted(pauses)
    assert 3.5 < pauses[86] < 4.5
    assert pauses[-1] == 8.0


def test_jitter_spreads_callers_from_half_the_pause_to_one_and_a_half() -> None:
    low, high = (RetryHint(Clock(), lambda jitter=jitter: jitter) for jitter in (0.0, 1.0))  # type: ignore[misc]
    assert high.after_refusal(9) == 3 * low.after_refusal(9)


def test_what_is_long_past_has_no_effect() -> None:
    clock = Clock()
    hint = RetryHint(clock, lambda: 0.5)
    for _ in range(1000):
        hint.after_refusal(0)
    clock.now += 60
    assert hint.after_refusal(0) == 0.25
