"""Client of Triton over gRPC: served models and inference. Errors of tritonclient are translated to the
service's own here, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import re
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn, cast

import numpy as np
import structlog
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from service.core.model import Model
from service.core.poses import Floats
from service.errors import DeadlineExceeded, Overloaded, Unavailable
from service.telemetry.call_context import current
from service.triton.model_config import read_config
from service.triton.shared_memory import Loan, SharedSlots

_log = structlog.get_logger()

Tensors = Mapping[str, NDArray[Any]]

_CONTROL_TIMEOUT_S = 5.0
_RETRY_SOON_S = 0.25  # the queue is full: it empties within a few inferences
_RETRY_LATER_S = 1.0  # Triton or a model is away
# Triton may still read the slot of an abandoned request, and write to it; it rests for longer than any queue
# lets a request wait.
_QUARANTINE_S = 60.0

_CHANNEL = [
    # A custom list replaces tritonclient's own: without the first two the limit is 4 MB again.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.enable_http_proxy", 0),  # the gateway reaches Triton directly, whatever http_proxy says
    # Without these the wait between two attempts grows to two minutes while Triton is away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # of one attempt; 20 s otherwise, for a host that is gone
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]


_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "NOT_FOUND")
_NEVER_BEGUN = re.compile(r"all backends failing|failed to connect|not ready")
_STUB_DIED = re.compile(r"[Ss]tub process .*is not healthy")


class TritonError(Exception):
    """Triton failed in a way that no caller can correct. The text is for the log only."""


class _RegionUnknown(Exception):
    """Triton restarted and does not know the shared memory region any more."""


class TritonClient:
    """One long-lived connection to Triton.

    Args:
        url: host:port of Triton's gRPC endpoint, or a dns:/// target.
        shared_memory: hand tensors over in system shared memory; falls back to gRPC, with a log
            line, where Triton cannot open the region.
        slots: tensors in shared memory at once; requests beyond go over gRPC.
    """

    def __init__(self, url: str, *, shared_memory: bool, slots: int = 32) -> None:
        self.url = url
        self._client = triton_aio.InferenceServerClient(url, channel_args=_CHANNEL)
        self._wants_shared_memory = shared_memory
        self._slot_count = slots
        self._slots: SharedSlots | None = None
        self._had_slots = False
        self._configs: dict[tuple[str, str], Model | None] = {}
        self._not_loaded: dict[tuple[str, str], str] = {}  # why, as it was last logged

    async def close(self) -> None:
        """Close the connection and remove the shared memory."""
        slots = self._slots
        if slots is not None:
            with suppress(InferenceServerException):  # Triton may have ended, its registration with it
                await self._client.unregister_system_shared_memory(
                    slots.name, client_timeout=_CONTROL_TIMEOUT_S
                )
            self._drop(slots)
        await self._client.close()

    def _drop(self, slots: SharedSlots) -> None:
        """Close a region; `attach` may have made another one in the meantime, which stays."""
        slots.close()
        if self._slots is slots:
            self._slots = None

    async def is_live(self) -> bool:
        """Whether Triton is live. Not its readiness, which ends when any one model fails to load."""
        try:
            live = bool(await self._client.is_server_live(client_timeout=_CONTROL_TIMEOUT_S))
        except InferenceServerException:
            live = False
        if not live:
            self._configs.clear()
            self._not_loaded.clear()
        return live

    async def server_version(self) -> str:
        """Triton's own version; Unavailable when it does not answer."""
        try:
            metadata = await self._client.get_server_metadata(client_timeout=_CONTROL_TIMEOUT_S)
        except InferenceServerException as error:
            raise _away() from error
        return str(metadata.version)

    async def models(self) -> Sequence[Model]:
        """Every model that keeps a tensor contract of the service; another one is logged and left out.

        One that did not load, or is still loading, is there by its name: it has no family and is not ready.
        """
        found: list[Model] = []
        try:
            index = await self._client.get_model_repository_index(client_timeout=_CONTROL_TIMEOUT_S)
            for entry in index.models:
                if not entry.version:  # a model that did not load has no version
                    why = entry.reason or "Triton's log says why"  # a configuration that it cannot read
                    found.append(self._not_loaded_model(entry.name, "", why))
                    continue
                model = await self._model(entry.name, entry.version)
                if model is not None:
                    found.append(replace(model, ready=bool(model.family) and entry.state == "READY"))
        except InferenceServerException as error:
            _raise(error)
        return found

    async def _model(self, name: str, version: str) -> Model | None:
        """A model by its configuration, which is asked for once while Triton lives."""
        if (name, version) in self._configs:
            return self._configs[name, version]
        model = None
        try:
            answer = await self._client.get_model_config(name, version, client_timeout=_CONTROL_TIMEOUT_S)
            model = read_config(answer.config, version)
        except InferenceServerException as error:
            if not await self.is_live():
                raise
            # It failed to load, or is on its way: ask again next time.
            return self._not_loaded_model(name, version, error.message())
        except ValueError as error:
            _log.warning("model_refused", model=name, why=str(error))
        self._configs[name, version] = model
        return model

    def _not_loaded_model(self, name: str, version: str, why: str) -> Model:
        """A model that is not loaded, by its name. The reason is logged once, and not at every refresh."""
        if self._not_loaded.get((name, version)) != why:
            self._not_loaded[name, version] = why
            _log.warning("model_not_loaded", model=name, why=why)
        return Model(name, version, family="", skeleton="", keypoint_count=0, shapes_hw=())

    async def attach(self, largest_bytes: int) -> None:
        """Set up the shared memory if it is wanted and not set up; a restart of Triton forgets it.

        Args:
            largest_bytes: tensors of one request, and of its answer where that goes through the memory too.
        """
        if not self._wants_shared_memory:
            return
        current, had_one = self._slots, self._had_slots
        if current is not None:
            # While all slots are lent or rest no inference finds out that Triton has forgotten them.
            if current.has_free or await self._knows(current):
                return
            self._drop(current)
        try:
            slots = SharedSlots(self._slot_count, largest_bytes)
        except OSError as error:
            # The memory of an earlier region is free when the last call that works in it has ended.
            self._wants_shared_memory = had_one
            _log.warning("shared_memory_off", why=str(error))
            return
        try:
            await self._client.register_system_shared_memory(
                slots.name, slots.key, slots.size, client_timeout=_CONTROL_TIMEOUT_S
            )
        except InferenceServerException as error:
            slots.close()
            # Tried once only: a Triton that cannot open it now, in another container, never will.
            self._wants_shared_memory = _status(error) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
            _log.warning("shared_memory_off", why=error.message())
            return
        except BaseException:
            slots.close()
            raise
        self._slots = slots
        self._had_slots = True
        _log.info("shared_memory_on", slots=self._slot_count, slot_bytes=slots.slot_bytes)

    async def _knows(self, slots: SharedSlots) -> bool:
        """Whether Triton has the region, as far as it says."""
        try:
            await self._client.get_system_shared_memory_status(slots.name, client_timeout=_CONTROL_TIMEOUT_S)
        except InferenceServerException as error:
            return "shared memory region" not in error.message()
        return True

    @contextmanager
    def lend(self) -> Iterator[Loan]:
        """A slot of shared memory for one inference, for the time of the block; an empty loan without one."""
        loan = self._slots.lend() if self._slots is not None else Loan()
        try:
            yield loan
        finally:
            if loan.slots is not None and loan.slot is not None:
                # A region that was dropped meanwhile is not to be kept in memory by what waits here.
                loop, slots = asyncio.get_running_loop(), weakref.ref(loan.slots)
                if loan.rests:
                    loop.call_later(_QUARANTINE_S, _give_back, slots, loan.slot)
                elif loan.at_work:
                    (work,) = loan.at_work
                    asyncio.wrap_future(work).add_done_callback(partial(_give_back_after, slots, loan.slot))
                else:
                    loan.slots.give_back(loan.slot)

    async def infer(
        self,
        model: Model,
        inputs: Tensors,
        outputs: Sequence[str],
        *,
        deadline: float,
        request_id: str = "",
        loan: Loan | None = None,
    ) -> Tensors:
        """Run a model.

        Args:
            model: which, and which version.
            inputs: arrays by tensor name, batch first.
            outputs: names of the tensors to return.
            deadline: on the clock of time.monotonic(); also the longest stay in Triton's queue.
            request_id: shown in Triton's log.
            loan: of this client: inputs that lie in it are not copied, and the answer may lie in it too;
                None to lend one for this call only.

        Returns:
            Arrays by tensor name, to be read only while the loan lasts, if there is one.

        Raises:
            Overloaded: Triton's queue is full.
            Unavailable: Triton or the model is away.
            DeadlineExceeded: the deadline passed.
            TritonError: anything else.
        """
        if loan is None:
            with self.lend() as own:
                found = await self.infer(
                    model, inputs, outputs, deadline=deadline, request_id=request_id, loan=own
                )
                return {
                    name: tensor.copy() if own.holds(tensor) else tensor for name, tensor in found.items()
                }
        if deadline <= time.monotonic():
            raise _too_late()
        shared = _shared(inputs, loan)
        if shared is None:
            return await self._infer(model, _inline(inputs), outputs, deadline, request_id)
        try:
            room = _room(model, inputs, outputs, loan)
            return await self._infer(model, shared, outputs, deadline, request_id, room)
        except (asyncio.CancelledError, DeadlineExceeded):
            loan.rests = True
            raise
        except Unavailable as error:
            loan.rests |= not _NEVER_BEGUN.search(str(error.__cause__))
            raise
        except _RegionUnknown:
            if loan.slots is not None:
                self._drop(loan.slots)  # `attach` makes a new one
        return await self._infer(model, _inline(inputs), outputs, deadline, request_id)

    async def _infer(
        self,
        model: Model,
        inputs: list[triton_grpc.InferInput],
        outputs: Sequence[str],
        deadline: float,
        request_id: str,
        room: _Room | None = None,
    ) -> Tensors:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise _too_late()
        with current().span.inference(model.name, model.version) as headers:
            try:
                result = await self._client.infer(
                    model_name=model.name,
                    model_version=model.version,
                    inputs=inputs,
                    outputs=[_requested(name, room) for name in outputs],
                    request_id=request_id,
                    timeout=int(remaining_s * 1e6),
                    client_timeout=remaining_s,
                    headers=headers,
                )
            except InferenceServerException as error:
                if "shared memory region" in error.message():
                    raise _RegionUnknown from error
                _raise(error, deadline)
        return {name: _output(result, name, room) for name in outputs}


def _give_back_after(slots: weakref.ref[SharedSlots], slot: int, work: asyncio.Future[Any]) -> None:
    if not work.cancelled():
        work.exception()  # of interest to nobody any more
    _give_back(slots, slot)


def _give_back(slots: weakref.ref[SharedSlots], slot: int) -> None:
    there = slots()
    if there is not None:
        there.give_back(slot)


@dataclass(frozen=True, eq=False)
class _Room:
    """Where Triton writes the only tensor of an answer: 0.2 MB of candidates would cross gRPC otherwise."""

    tensor: Floats
    region: str
    offset: int


def _room(model: Model, inputs: Tensors, outputs: Sequence[str], loan: Loan) -> _Room | None:
    """Room for the answer in the loan, where its size is known and there is as much."""
    if loan.slots is None or not model.candidate_count or list(outputs) != ["candidates"]:
        return None
    count = len(next(iter(inputs.values())))
    tensor = loan.array((count, model.candidate_count, 5 + 3 * model.keypoint_count), np.float32)
    offset = None if tensor is None else loan.slots.offset(tensor)
    return None if tensor is None or offset is None else _Room(tensor, loan.slots.name, offset)


def _requested(name: str, room: _Room | None) -> triton_grpc.InferRequestedOutput:
    requested = triton_grpc.InferRequestedOutput(name)
    if room is not None:
        requested.set_shared_memory(room.region, room.tensor.nbytes, room.offset)
    return requested


def _input(name: str, tensor: NDArray[Any]) -> triton_grpc.InferInput:
    return triton_grpc.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))


def _inline(inputs: Tensors) -> list[triton_grpc.InferInput]:
    tensors = []
    for name, tensor in inputs.items():
        described = _input(name, tensor)
        described.set_data_from_numpy(np.ascontiguousarray(tensor))
        tensors.append(described)
    return tensors


def _shared(inputs: Tensors, loan: Loan) -> list[triton_grpc.InferInput] | None:
    """The inputs in the memory of the loan; None where it has no room for them."""
    tensors = []
    for name, tensor in inputs.items():
        placed = loan.placed(tensor)
        if placed is None or loan.slots is None:
            return None
        described = _input(name, tensor)
        described.set_shared_memory(loan.slots.name, tensor.nbytes, loan.slots.offset(placed))
        tensors.append(described)
    return tensors


def _output(result: triton_grpc.InferResult, name: str, room: _Room | None) -> NDArray[Any]:
    if room is not None and not any(result.get_response().raw_output_contents):
        return _written(result.get_output(name), name, room)
    try:
        tensor = result.as_numpy(name)
    except ValueError as error:
        raise TritonError(f"the bytes of '{name}' do not fill its shape") from error
    if tensor is None:
        raise TritonError(f"the answer lacks '{name}'")
    return cast("NDArray[Any]", tensor)


def _written(described: Any, name: str, room: _Room) -> NDArray[Any]:
    """The tensor that Triton has written into the room; the answer holds its description only."""
    if described is None:
        raise TritonError(f"the answer lacks '{name}'")
    if described.datatype != "FP32" or tuple(described.shape) != room.tensor.shape:
        raise TritonError(f"'{name}' is not what its configuration says")
    return room.tensor


def _status(error: InferenceServerException) -> str:
    return str(error.status() or "").removeprefix("StatusCode.")


def _away() -> Unavailable:
    return Unavailable(
        "The model server is away: try again.", reason="TRITON_UNAVAILABLE", retry_after_s=_RETRY_LATER_S
    )


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("The deadline passed before the model answered.")


def _raise(error: InferenceServerException, deadline: float | None = None) -> NoReturn:
    """Raise Triton's error as the service's own. Queue full and queue timeout are both UNAVAILABLE in Triton:
    their texts differ."""
    status, text = _status(error), error.message()
    if deadline is not None and (status == "DEADLINE_EXCEEDED" or "Request timeout expired" in text):
        raise _too_late() from error
    if status == "UNAVAILABLE" and "queue size" in text:
        raise Overloaded(
            "The model's queue is full: try again.", reason="QUEUE_FULL", retry_after_s=_RETRY_SOON_S
        ) from error
    # CANCELLED is what a Triton that shuts down answers; NOT_FOUND, a model that went with it. The end of a
    # model process is INTERNAL in Triton, which has to be started again.
    if status in _AWAY or _STUB_DIED.search(text):
        raise _away() from error
    raise TritonError(f"{status}: {text}") from error
