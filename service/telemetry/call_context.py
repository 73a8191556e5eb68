"""Context of one call: identity, deadline, span and stage timers; `metrics` counts from it, `tracing` traces.

`RequestInterceptor` begins a `CallContext`. Code that works for the call, in any of its tasks, gets it with
`current()` and records what it did. Outside of calls nothing is counted: inferences of the health monitor are
no traffic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, get_args

from service.core.plan import Plan
from service.telemetry.spans import CallSpan, Stage

STAGES: tuple[Stage, ...] = get_args(Stage)

_MS = {stage: f"{stage}_ms" for stage in STAGES}

_SIZES = 32  # in a log line


class Observer:
    """Observer of calls and of Triton, called at each event; this base class records nothing."""

    def received(self, size: int) -> None:
        """A message of `size` bytes was received."""

    def admitted(self) -> None:
        """A call or a stream was admitted."""

    def shed(self, reason: str) -> None:
        """A call, a stream or an image of a batch was refused because of overload."""

    def call_ended(self, rpc: str, code: str, reason: str, seconds: float) -> None:
        """A call has ended.

        Args:
            rpc: name of the method.
            code: canonical code, such as OK.
            reason: of the error; empty without one.
            seconds: from the first byte of the call to the last.
        """

    def plan_call(self, plan: str, outcome: str) -> None:
        """A call of a tenant with that plan has ended: OK, CANCELLED or the reason of its error."""

    def image_done(self, took_s: Mapping[Stage, float], persons: int | None, *, frame: bool) -> None:
        """The work on an image has ended, with or without success.

        Args:
            took_s: seconds by stage; 0 for a stage that was not reached.
            persons: number of persons detected; None when the work failed or had no detection.
            frame: the image is a frame of a video or a stream.
        """

    def triton(self, *, up: bool, models: Mapping[str, bool]) -> None:
        """Triton was checked: whether it answers, and which of its models are ready."""


@dataclass(frozen=True)
class Timings:
    """Milliseconds of one image in each stage; `queue_ms` is the wait for a thread and for an inference
    slot."""

    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0
    draw_ms: float = 0.0


class _Timed:
    """Adds the time of a block to a stage. A class: as a generator it takes twice the time."""

    __slots__ = ("_stage", "_started", "_timer")

    def __init__(self, timer: StageTimer, stage: Stage) -> None:
        self._timer = timer
        self._stage = stage

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._timer.took(self._stage, self._started, time.perf_counter())


class StageTimer:
    """Stage timer of one image. One task or thread uses it at a time.

    As a context manager it is finished at the end of the block.

    Attributes:
        size_wh: of the upright image, px; None until it is known.
        persons: number of persons detected; None until then.
    """

    def __init__(self, call: CallContext | None = None) -> None:
        self._call = call
        # All stages from the start: a thread may add to one while the rest is read.
        self._took_s: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self.size_wh: tuple[int, int] | None = None
        self.persons: int | None = None

    def took(self, stage: Stage, started: float, ended: float) -> None:
        """Add the time of a stage, from and to time.perf_counter(); a stage may come several times."""
        self._took_s[stage] += ended - started
        if self._call is not None:
            self._call.span.stage(stage, started, ended)

    def add(self, stage: Stage, seconds: float) -> None:
        """Add a duration that was measured elsewhere and ended just now."""
        now = time.perf_counter()
        self.took(stage, now - seconds, now)

    def timed(self, stage: Stage) -> AbstractContextManager[None]:
        """Add the time of the block, whether it succeeds or not."""
        return _Timed(self, stage)

    def timings(self) -> Timings:
        """The durations of the stages until now."""
        return Timings(**{_MS[stage]: seconds * 1e3 for stage, seconds in self._took_s.items()})

    def finish(self) -> None:
        """Count the image; only the first call has an effect."""
        if self._call is not None:
            self._call.done(self._took_s.copy(), self.size_wh, self.persons)
            self._call = None

    def __enter__(self) -> StageTimer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


@dataclass(eq=False)
class CallContext:
    """Facts about the call in progress that every layer may need.

    Attributes:
        request_id: sent by the caller, or generated; empty outside of calls.
        tenant: of the caller; owns the custom skeletons and models that the call may name.
        plan: of the tenant; None where there are no accounts.
        peer: address of the caller, without its port; empty outside of calls.
        deadline: of the call, on time.monotonic()'s clock; infinite without one.
        observer: counts its events.
        span: its trace.
        streaming: whether its images are frames of a video or a stream.
    """

    request_id: str = ""
    tenant: str = "default"
    plan: Plan | None = None
    peer: str = ""
    deadline: float = math.inf
    observer: Observer = field(default_factory=Observer)
    span: CallSpan = field(default_factory=CallSpan)
    streaming: bool = False
    _models: dict[str, None] = field(default_factory=dict)
    _sizes: list[tuple[int, int]] = field(default_factory=list)
    _took_s: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _frames: int = 0
    _persons: int | None = None

    @property
    def party(self) -> str:
        """With whom the call shares its part of the service: its tenant, or its address without accounts."""
        return self.tenant if self.plan is not None else self.peer

    def uses(self, model: str) -> None:
        """Record that this model answers the call, or one image of it."""
        self._models[model] = None

    def stage_timer(self) -> StageTimer:
        """A timer for one image of the call; the image counts once the timer is finished."""
        return StageTimer(self)

    def done(
        self, took_s: Mapping[Stage, float], size_wh: tuple[int, int] | None, persons: int | None
    ) -> None:
        """Count an image of the call on which the work has ended."""
        self.observer.image_done(took_s, persons, frame=self.streaming)
        for stage, seconds in took_s.items():
            self._took_s[stage] += seconds
        if size_wh is not None and self.streaming:
            self._sizes = [size_wh]
        elif size_wh is not None and len(self._sizes) < _SIZES:
            self._sizes.append(size_wh)
        if persons is not None:
            self._frames += self.streaming
            self._persons = (self._persons or 0) + persons

    def facts(self) -> dict[str, Any]:
        """Fields of the log line, over all images: models, sizes, persons, milliseconds by stage."""
        fields: dict[str, Any] = {}
        if self._models:
            models = sorted(self._models)
            fields["model"] = models[0] if len(models) == 1 else models
        if len(self._sizes) == 1:
            fields["width"], fields["height"] = self._sizes[0]
        elif self._sizes:
            fields["sizes"] = [f"{width}x{height}" for width, height in self._sizes]
        if self.streaming:
            fields["frames"] = self._frames
        elif self._persons is not None:
            fields["persons"] = self._persons
        for stage, seconds in self._took_s.items():
            if seconds:
                fields[_MS[stage]] = round(seconds * 1e3, 2)
        return fields


_current: ContextVar[CallContext | None] = ContextVar("call", default=None)


def begin(call: CallContext) -> None:
    """Make a call the current one, in this task and in those that it starts."""
    _current.set(call)


def current() -> CallContext:
    """The current call; outside of calls one without observers."""
    return _current.get() or CallContext()
