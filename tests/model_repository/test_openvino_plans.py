"""Which shapes the OpenVINO backend compiles, when, and what answers until then; without OpenVINO."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from graphs.config import read_config
from graphs.plans import PlanCache
from tests.model_repository.test_openvino_config import config

SHAPES = "8x8,6x8,4x8,2x8,8x4"


class Planner:
    """Compiles in no time; beyond the first shape only while it is allowed to."""

    def __init__(self, impossible: tuple[int, ...] | None = None) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.allowed = threading.Event()
        self.counted: list[str] = []
        self._impossible = impossible

    def plan(self, shape: tuple[int, ...]) -> Any:
        if self.asked:
            assert self.allowed.wait(10)
        if shape == self._impossible:
            raise RuntimeError("no such kernel")
        self.asked.append(shape)
        return f"plan for {shape}"

    def spread(self, plan: Any, shape: tuple[int, ...]) -> Any:
        assert self.allowed.wait(10)
        return f"{plan}, spread"


def prepared(planner: Planner, *, shapes: str = SHAPES, **parameters: str) -> Any:
    """The `PlanCache` of a model that is ready."""
    plans = PlanCache(
        read_config(config([-1, -1, 3], {"shapes": shapes, **parameters})), planner, planner.counted.append
    )
    plans.prepare()
    return plans


@pytest.mark.parametrize(
    ("parameters", "environment", "expected"),
    [
        ({}, {}, [(8, 8), (6, 8), (4, 8), (2, 8), (8, 4)]),
        ({}, {"POSEGATE_RESTARTED": "1"}, [(8, 8)]),
        ({"prepared_shapes": "8x8,4x8"}, {}, [(8, 8)]),
        ({"prepared_shapes": "8x8,4x8"}, {"POSEGATE_PREPARE_SHAPES": "all"}, [(8, 8), (4, 8)]),
    ],
    ids=["no shape is named", "after a crash", "two are named", "all are demanded"],
)
def test_a_model_is_ready_once_its_shapes_are_compiled_or_the_first_where_the_rest_may_follow(
    monkeypatch: pytest.MonkeyPatch,
    parameters: dict[str, str],
    environment: dict[str, str],
    expected: list[tuple[int, ...]],
) -> None:
    for name in ("POSEGATE_PREPARE_SHAPES", "POSEGATE_RESTARTED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    planner = Planner()
    if len(expected) > 1:
        planner.allowed.set()
    plans = prepared(planner, **parameters)
    assert planner.asked == expected
    planner.allowed.set()
    plans.close()


def test_the_first_shape_answers_at_once_and_runs_several_items_later() -> None:
    planner = Planner()
    plans = prepared(planner, prepared_shapes="8x8,6x8")
    assert plans.plan(((8, 8, 3),))[0] == "plan for (8, 8)"
    planner.allowed.set()
    assert plans.plan(((6, 8, 3),))[0] == "plan for (6, 8), spread"  # it comes after the first shape
    assert plans.plan(((8, 8, 3),))[0] == "plan for (8, 8), spread"
    plans.close()
    assert planner.asked == [(8, 8), (6, 8)]


def test_a_shape_that_is_being_compiled_is_answered_in_the_smallest_that_holds_it() -> None:
    planner = Planner()
    planner.allowed.set()
    plans = prepared(planner, prepared_shapes="8x8", pad_value="114")
    plans.plan(((6, 8, 3),))
    while plans.plan(((6, 8, 3),))[1] != ((6, 8, 3),):
        pass
    planner.allowed.clear()
    for _ in range(3):
        assert plans.plan(((4, 8, 3),)) == ("plan for (6, 8), spread", ((6, 8, 3),))
    planner.allowed.set()
    while plans.plan(((4, 8, 3),))[1] != ((4, 8, 3),):
        pass
    plans.close()
    assert planner.asked == [(8, 8), (6, 8), (4, 8)]
    assert planner.counted.count("padded") >= 4


def test_without_a_value_to_pad_with_a_request_waits_for_its_shape() -> None:
    planner = Planner()
    planner.allowed.set()
    plans = prepared(planner, prepared_shapes="8x8")
    assert plans.plan(((4, 8, 3),)) == ("plan for (4, 8), spread", ((4, 8, 3),))
    assert "padded" not in planner.counted
    plans.close()


def test_the_shape_used_longest_ago_goes_first_and_prepared_ones_stay() -> None:
    planner = Planner()
    planner.allowed.set()
    plans = prepared(planner, prepared_shapes="8x8", max_compiled="3")
    for shape in ((6, 8), (4, 8), (6, 8), (2, 8)):  # the last one takes the place of (4, 8)
        plans.plan(((*shape, 3),))
    assert planner.counted.count("evicted") == 1
    planner.asked.clear()
    for shape in ((8, 8), (6, 8), (2, 8)):
        plans.plan(((*shape, 3),))
    assert planner.asked == []
    plans.plan(((4, 8, 3),))
    assert planner.asked == [(4, 8)]
    plans.close()


def test_a_shape_that_cannot_be_compiled_fails_each_time_and_leaves_the_others_alone() -> None:
    planner = Planner(impossible=(4, 8))
    planner.allowed.set()
    plans = prepared(planner, prepared_shapes="8x8")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no such kernel"):
            plans.plan(((4, 8, 3),))
    assert plans.plan(((8, 8, 3),))[1] == ((8, 8, 3),)
    plans.close()
