"""Plans: the shipped ones, and every mistake in a file at once."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.accounts.plans import BadPlans, load_plans, parse_plans
from service.core.plan import Plan

GOOD = """
[team]
calls_per_month = 1000
max_batch_size = 4
max_skeletons = 3
max_video_seconds = 7.5
own_models = true
calls_at_once = 3
streams_at_once = 0
calls_per_second = 0.5
burst = 2
batch_counts = "picture"
"""


def test_three_plans_ship() -> None:
    assert load_plans() == {
        "free": Plan(
            name="free",
            calls_per_month=300,
            max_batch_size=1,
            max_skeletons=0,
            max_video_seconds=8,
            own_models=False,
            calls_at_once=2,
            streams_at_once=1,
            calls_per_second=2,
            burst=5,
        ),
        "standard": Plan(
            name="standard",
            calls_per_month=5400,
            max_batch_size=10,
            max_skeletons=None,
            max_video_seconds=15,
            own_models=False,
            calls_at_once=8,
            streams_at_once=2,
            calls_per_second=20,
            burst=50,
        ),
        "pro": Plan(
            name="pro",
            calls_per_month=None,
            max_batch_size=None,
            max_skeletons=None,
            max_video_seconds=None,
            own_models=True,
            calls_at_once=64,
            streams_at_once=16,
            calls_per_second=200,
            burst=400,
        ),
    }


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(GOOD)
    plan = load_plans(file)["team"]
    assert (plan.calls_per_month, plan.max_video_seconds, plan.batch_counts) == (1000, 7.5, "picture")
    assert load_plans()["pro"].calls_per_month is None


def test_every_mistake_is_told_at_once() -> None:
    content = GOOD.replace("max_batch_size = 4", "max_batch_size = 0").replace("burst = 2", 'burst = "two"')
    content = content.replace("own_models = true", "own_models = 1\ncolour = 3").replace(
        "calls_at_once", "call"
    )
    content = content.replace("[team]", '["Big Team"]').replace("0.5", "nan")
    with pytest.raises(BadPlans) as caught:
        parse_plans(content)
    lines = str(caught.value).splitlines()
    told = (
        "name must be",
        "max_batch_size",
        "burst",
        "own_models",
        "colour",
        "calls_at_once",
        "calls_per_second",
    )
    for words in told:
        assert any(words in line for line in lines), words
    assert len(lines) == len(told) + 1  # `call` is unknown, and calls_at_once is missing


@pytest.mark.parametrize(
    "content",
    [
        "",
        "free = 3",
        "[free",
        "[free]",
        "[free]\ncalls_per_month = true",
        "a = " + "[" * 5000,
        "[free.x]\ny=1",
    ],
)
def test_what_is_no_file_of_plans_is_refused(content: str) -> None:
    with pytest.raises(BadPlans):
        parse_plans(content)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadPlans, match="No such file"):
        load_plans(tmp_path / "none.toml")
    (tmp_path / "latin").write_bytes(b"# \xe9")
    with pytest.raises(BadPlans, match="UTF-8"):
        load_plans(tmp_path / "latin")


@given(st.text())
def test_any_text_is_a_file_of_plans_or_refused(content: str) -> None:
    with suppress(BadPlans):
        assert parse_plans(content)
