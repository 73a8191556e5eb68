"""The compiled shapes of one graph: prepared, made on demand, evicted."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from graphs.compiler import Plan
from graphs.config import Config
from graphs.shapes import ItemShapes, Shape, holds, size_of


class Planner(Protocol):
    """Port: compiles a graph for one shape."""

    def plan(self, shape: Shape) -> Plan:
        """A plan that runs one item at a time."""

    def spread(self, plan: Plan, shape: Shape) -> Plan:
        """The same that runs several."""


class PlanCache:
    """The compiled shapes of one graph.

    Args:
        config: allowed and prepared shapes, and how many are kept.
        planner: compiles one shape; takes seconds without OpenVINO's cache.
        count: called with `padded`, `compiled` or `evicted` for metrics.
        pause_s: before the work in the background begins, so that other models are ready sooner.
    """

    def __init__(
        self, config: Config, planner: Planner, count: Callable[[str], None], *, pause_s: float = 0.0
    ) -> None:
        self._pause_s = pause_s
        self._closing = threading.Event()
        self._config = config
        self._planner = planner
        self._count = count
        self._shapes = {config.item_shapes(shape): shape for shape in config.shapes}
        self._prepared = {config.item_shapes(shape) for shape in config.prepared}
        self._plans: OrderedDict[ItemShapes, Plan] = OrderedDict()  # the one used longest ago first
        self._compiling: dict[ItemShapes, Future[Plan]] = {}
        self._lock = threading.Lock()
        self._compiler = ThreadPoolExecutor(1)  # reshaping changes the graph: one shape at a time

    def prepare(self) -> None:
        """Compile what the model needs to be ready, and begin with the rest in the background.

        Where a rest may follow, the first shape runs one item at a time at first: callers who wait for a
        server that starts again get their answers one after the other, but sooner.

        Raises:
            RuntimeError: OpenVINO cannot compile a shape.
        """
        first, *others = map(self._config.item_shapes, self._config.prepared)
        if self._config.prepare_all:
            for shapes in (first, *others):
                self._compile(shapes)
            return
        self._keep(first, self._planner.plan(self._shapes[first]))
        self._compiler.submit(self._closing.wait, self._pause_s)
        self._compiler.submit(self._spread, first)
        for shapes in others:
            self._submit(shapes)

    def allows(self, wanted: ItemShapes) -> bool:
        """Whether items of these shapes may be sent at all."""
        return wanted in self._shapes

    def plan(self, wanted: ItemShapes) -> tuple[Plan, ItemShapes]:
        """The plan for items of allowed shapes, and the shapes that it takes; those may be larger.

        Raises:
            RuntimeError: OpenVINO cannot compile the shape.
        """
        with self._lock:
            plan = self._plans.get(wanted)
            if plan is not None:
                self._plans.move_to_end(wanted)
                return plan, wanted
            larger = [shapes for shapes in self._plans if holds(shapes, wanted)]
        compiling = self._submit(wanted)
        if self._config.pad_value is None or not larger:
            return compiling.result(), wanted
        self._count("padded")
        nearest = min(larger, key=size_of)
        with self._lock:
            found = self._plans.get(nearest)
        return (found, nearest) if found is not None else (compiling.result(), wanted)

    def close(self) -> None:
        """End the compiler; the shapes that wait for it are dropped."""
        self._closing.set()
        self._compiler.shutdown(cancel_futures=True)

    def _submit(self, wanted: ItemShapes) -> Future[Plan]:
        with self._lock:
            there = self._plans.get(wanted)
            if there is not None:
                done: Future[Plan] = Future()
                done.set_result(there)
                return done
            if wanted not in self._compiling:
                self._compiling[wanted] = self._compiler.submit(self._compile, wanted)
            return self._compiling[wanted]

    def _compile(self, wanted: ItemShapes) -> Plan:
        shape = self._shapes[wanted]
        try:
            plan = self._planner.spread(self._planner.plan(shape), shape)
        finally:
            with self._lock:
                self._compiling.pop(wanted, None)
        self._keep(wanted, plan)
        return plan

    def _spread(self, wanted: ItemShapes) -> None:
        with self._lock:
            plan = self._plans[wanted]  # a prepared shape stays
        plan = self._planner.spread(plan, self._shapes[wanted])
        with self._lock:
            self._plans[wanted] = plan

    def _keep(self, wanted: ItemShapes, plan: Plan) -> None:
        with self._lock:
            self._plans[wanted] = plan
            spare = [shapes for shapes in self._plans if shapes not in self._prepared and shapes != wanted]
            evicted = spare[: max(0, len(self._plans) - self._config.max_compiled)]
            for shapes in evicted:
                del self._plans[shapes]
        self._count("compiled")
        for _ in evicted:
            self._count("evicted")
