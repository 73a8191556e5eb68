"""The connection to Triton, against a server that says what Triton says."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs
from tritonclient.grpc import model_config_pb2, service_pb2

from service.errors import DeadlineExceeded, Overloaded, PosegateError, Unavailable
from service.triton.client import _QUARANTINE_S, TritonClient, TritonError
from tests.fakes import (
    MODEL,
    BusyThread,
    Context,
    FakeTriton,
    candidate,
    infer_response,
    listening,
    model_config,
    rows,
    until,
)
from tests.pictures import noise

ONE = rows(candidate((10, 20, 110, 220), 0.9))
PICTURE = noise((640, 384))[None]
DEV_SHM = Path("/dev/shm")  # noqa: S108


@asynccontextmanager
async def connected(
    triton: FakeTriton, *, shared_memory: bool = False, slots: int = 2
) -> AsyncIterator[TritonClient]:
    async with listening(triton) as port:
        client = TritonClient(f"127.0.0.1:{port}", shared_memory=shared_memory, slots=slots)
        try:
            async with asyncio.timeout(30):  # one attempt to connect has two seconds, and may not do
                await client._client._channel.channel_ready()
            if shared_memory:
                await client.attach(PICTURE.nbytes)
            yield client
        finally:
            await client.close()


async def infer(client: TritonClient, *, within_s: float = 30.0, request_id: str = "") -> np.ndarray:
    outputs = await client.infer(
        MODEL,
        {"images": PICTURE},
        ["candidates"],
        deadline=time.monotonic() + within_s,
        request_id=request_id,
    )
    assert list(outputs) == ["candidates"]
    return outputs["candidates"]


def went_by(triton: FakeTriton) -> list[str]:
    """How each request's tensor came."""
    return [
        "memory" if "shared_memory_region" in request.inputs[0].parameters else "message"
        for request in triton.requests
    ]


def regions() -> list[str]:
    return [path.name for path in DEV_SHM.glob(f"posegate-{os.getpid()}-*")]


@pytest.fixture(autouse=True)
def _no_region_is_left() -> Any:
    assert regions() == []
    yield
    assert regions() == []


# --- inference ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared_memory", [False, True], ids=["message", "shared memory"])
async def test_tensors_arrive_whole_and_answers_come_back(shared_memory: bool) -> None:
    triton = FakeTriton(answer=ONE)
    async with connected(triton, shared_memory=shared_memory) as client:
        candidates = await infer(client, within_s=5, request_id="id-1")
    np.testing.assert_array_equal(candidates, ONE[None])
    assert candidates.dtype == np.float32
    np.testing.assert_array_equal(triton.inputs[0], PICTURE)
    (request,) = triton.requests
    assert (request.model_name, request.model_version, request.id) == (MODEL.name, MODEL.version, "id-1")
    assert request.inputs[0].datatype == "UINT8"
    assert [output.name for output in request.outputs] == ["candidates"]
    assert went_by(triton) == ["memory" if shared_memory else "message"]
    # Triton gets to know the deadline for its queue, and gRPC for the call.
    assert 4e6 < request.parameters["timeout"].int64_param <= 5e6
    assert triton.remaining_s[0] == pytest.approx(5, abs=1)


async def test_candidates_come_back_in_shared_memory_where_the_slot_has_room() -> None:
    triton = FakeTriton(answer=ONE)
    async with listening(triton) as port:
        client = TritonClient(f"127.0.0.1:{port}", shared_memory=True, slots=1)
        await client.attach(PICTURE.nbytes + MODEL.candidates_bytes)
        candidates = await infer(client)
        await client.close()
    assert "shared_memory_region" in triton.requests[0].outputs[0].parameters
    np.testing.assert_array_equal(candidates, ONE[None])  # a copy: the region is gone


@pytest.mark.parametrize(
    ("code", "text", "expected", "reason", "retried"),
    [
        pytest.param(
            "UNAVAILABLE",
            "[request id: 7] Exceeds maximum queue size",
            Overloaded,
            "QUEUE_FULL",
            True,
            id="queue full",
        ),
        pytest.param(
            "UNAVAILABLE", "Request timeout expired", DeadlineExceeded, "DEADLINE_EXCEEDED", False,
            id="too long in the queue",
        ),
        pytest.param(
            "UNAVAILABLE", "Socket closed", Unavailable, "TRITON_UNAVAILABLE", True, id="Triton went"
        ),
        pytest.param(
            "UNAVAILABLE", "Request for unknown model: 'yolo11n_pose' is not ready", Unavailable,
            "TRITON_UNAVAILABLE", True, id="model not ready",
        ),
        pytest.param(
            "NOT_FOUND", "Request for unknown model: 'yolo11n_pose' is not found", Unavailable,
            "TRITON_UNAVAILABLE", True, id="model gone",
        ),
        pytest.param("CANCELLED", "", Unavailable, "TRITON_UNAVAILABLE", True, id="Triton shuts down"),
        pytest.param(
            "DEADLINE_EXCEEDED", "", DeadlineExceeded, "DEADLINE_EXCEEDED", False, id="deadline"
        ),
        pytest.param("INVALID_ARGUMENT", "unexpected shape", TritonError, None, False, id="bad tensor"),
        pytest.param("INTERNAL", "/opt/model.py: boom", TritonError, None, False, id="backend failed"),
        pytest.param(
            "INTERNAL", "Stub process is not healthy.", Unavailable,
            "TRITON_UNAVAILABLE", True, id="stub died",
        ),
        pytest.param("RESOURCE_EXHAUSTED", "message too large", TritonError, None, False, id="too large"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shared_memory", [False, True], ids=["message", "shared memory"])
async def test_errors_of_triton_become_errors_of_the_domain(
    code: str,
    text: str,
    expected: type[Exception],
    reason: str | None,
    retried: bool,
    shared_memory: bool,
) -> None:
    triton = FakeTriton(answer=ONE, script=[(grpc.StatusCode[code], text)])
    async with connected(triton, shared_memory=shared_memory) as client:
        with pytest.raises(expected) as failed:
            await infer(client)
        np.testing.assert_array_equal(await infer(client), ONE[None])  # the next one works
    if isinstance(failed.value, PosegateError):
        assert failed.value.reason == reason
        assert bool(failed.value.retry_after_s) == retried
        assert text not in failed.value.message or not text  # Triton's words are for the log
    assert failed.value.__cause__ is not None


async def test_triton_is_never_called_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with connected(FakeTriton(answer=ONE)) as client:
        np.testing.assert_array_equal(await infer(client), ONE[None])


async def test_a_refused_connection_is_unavailable() -> None:
    client = TritonClient("127.0.0.1:1", shared_memory=False)
    try:
        with pytest.raises(Unavailable) as failed:
            await infer(client)
        assert failed.value.retry_after_s
        assert not await client.is_live()
        with pytest.raises(Unavailable):
            await client.models()
        with pytest.raises(Unavailable):
            await client.server_version()
    finally:
        await client.close()


# The next one where a loaded machine took the whole time before Triton had the request.
WITHIN_S = (0.2, 2.0, 20.0)


async def test_a_triton_that_does_not_answer_in_time_is_left_at_the_deadline() -> None:
    triton = FakeTriton()
    triton.gate.clear()
    async with connected(triton) as client:
        for within_s in WITHIN_S:
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await infer(client, within_s=within_s)
            assert time.monotonic() - started < within_s + 20
            if triton.requests:
                break
        await until(lambda: triton.cancelled > 0)  # and Triton hears of it


@pytest.mark.parametrize("within_s", [0.0, -1.0])
async def test_a_deadline_that_has_passed_asks_nothing(within_s: float) -> None:
    triton = FakeTriton()
    async with connected(triton, shared_memory=True) as client:
        with pytest.raises(DeadlineExceeded):
            await infer(client, within_s=within_s)
    assert triton.requests == []


async def test_an_answer_larger_than_four_megabytes_comes_through() -> None:
    large = rows(candidate((0, 0, 10, 10), 0.9), count=25_000)
    assert large.nbytes > 5_000_000
    async with connected(FakeTriton(answer=large)) as client:
        assert (await infer(client)).shape == (1, 25_000, 56)


# --- shared memory ------------------------------------------------------------------------------------


async def cut_short(_request: service_pb2.ModelInferRequest, _context: Context) -> Any:
    return infer_response(ONE[None], cut=8)


async def lost(_request: service_pb2.ModelInferRequest, _context: Context) -> Any:
    return service_pb2.ModelInferResponse(model_name=MODEL.name)


async def test_more_requests_than_slots_go_by_message() -> None:
    triton = FakeTriton(answer=ONE)
    triton.gate.clear()
    async with connected(triton, shared_memory=True, slots=2) as client:
        tasks = [asyncio.create_task(infer(client)) for _ in range(4)]
        await until(lambda: len(triton.requests) == 4)
        triton.gate.set()
        await asyncio.gather(*tasks)
        await infer(client)
    assert sorted(went_by(triton)[:4]) == ["memory", "memory", "message", "message"]
    assert went_by(triton)[4] == "memory"
    for tensor in triton.inputs:
        np.testing.assert_array_equal(tensor, PICTURE)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param((grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size"), id="queue full"),
        pytest.param((grpc.StatusCode.INTERNAL, "boom"), id="failed"),
        pytest.param((grpc.StatusCode.UNAVAILABLE, "Request for model: 'x' is not ready"), id="not ready"),
        pytest.param(cut_short, id="answer cut short"),
    ],
)
async def test_a_slot_comes_back_whatever_goes_wrong(step: Any) -> None:
    triton = FakeTriton(answer=ONE, script=[step] * 5)
    async with connected(triton, shared_memory=True, slots=1) as client:
        for _ in range(5):
            with pytest.raises((PosegateError, TritonError)):
                await infer(client)
        await infer(client)
    assert went_by(triton) == ["memory"] * 6


async def test_an_answer_without_the_tensor_asked_for_is_tritons_error() -> None:
    triton = FakeTriton(script=[lost])
    async with connected(triton) as client:
        with pytest.raises(TritonError, match="candidates"):
            await infer(client)


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_the_slot_of_an_abandoned_request_rests_before_it_is_written_again(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Triton may still read it: a cancelled request that has begun runs to its end.
    loop, ends_of_rest = asyncio.get_running_loop(), []
    call_later = loop.call_later

    def recorded(seconds: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        if seconds == _QUARANTINE_S:
            ends_of_rest.append(partial(callback, *args))
        return call_later(seconds, callback, *args)

    monkeypatch.setattr(loop, "call_later", recorded)
    triton = FakeTriton(answer=ONE)
    triton.gate.clear()
    async with connected(triton, shared_memory=True, slots=1) as client:
        if how == "cancelled":
            task = asyncio.create_task(infer(client))
            await triton.entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            for within_s in WITHIN_S:
                with pytest.raises(DeadlineExceeded):
                    await infer(client, within_s=within_s)
                if triton.requests:
                    break
                ends_of_rest.pop()()
        await until(lambda: triton.cancelled == 1)
        triton.gate.set()
        await infer(client)
        (end_of_rest,) = ends_of_rest
        end_of_rest()
        await infer(client)
    assert went_by(triton) == ["memory", "message", "memory"]


async def test_the_slot_of_a_request_whose_connection_broke_rests_too() -> None:
    triton = FakeTriton(answer=ONE, script=[(grpc.StatusCode.UNAVAILABLE, "Socket closed")])
    async with connected(triton, shared_memory=True, slots=1) as client:
        with pytest.raises(Unavailable):
            await infer(client)
        await infer(client)
    assert went_by(triton) == ["memory", "message"]


async def test_a_restart_while_all_slots_rest_brings_the_memory_back_at_once() -> None:
    triton = FakeTriton(answer=ONE, script=[(grpc.StatusCode.UNAVAILABLE, "Socket closed")] * 2)
    async with connected(triton, shared_memory=True, slots=2) as client:
        await asyncio.gather(infer(client), infer(client), return_exceptions=True)
        await client.attach(PICTURE.nbytes)
        assert len(triton.regions) == 1  # Triton has it still: the slots rest
        await infer(client)
        triton.regions.clear()
        await client.attach(PICTURE.nbytes)
        await infer(client)
    assert went_by(triton) == ["memory", "memory", "message", "memory"]


async def test_the_slot_of_a_request_that_never_left_does_not_rest() -> None:
    triton = FakeTriton(answer=ONE)
    async with listening(triton) as port:
        client = TritonClient(f"127.0.0.1:{port}", shared_memory=True, slots=1)
        await client.attach(PICTURE.nbytes)
    while await client.is_live():
        pass
    with pytest.raises(Unavailable):
        await infer(client)
    with client.lend() as loan:
        assert loan.slot is not None
    await client.close()


async def test_the_slot_of_work_that_was_given_up_is_lent_again_once_its_thread_is_free() -> None:
    busy = BusyThread()
    async with connected(FakeTriton(), shared_memory=True, slots=1) as client:
        with ThreadPoolExecutor(1) as threads:
            with client.lend() as loan:
                loan.at_work.append(threads.submit(busy))
            with client.lend() as other:
                assert other.slot is None
            busy.release()
        await until(lambda: client._slots is not None and client._slots.has_free)
        with client.lend() as loan:
            assert loan.slot is not None


async def test_a_dropped_region_is_not_kept_in_memory_by_slots_that_rest() -> None:
    triton = FakeTriton(answer=ONE, script=[(grpc.StatusCode.UNAVAILABLE, "Socket closed")])
    async with connected(triton, shared_memory=True, slots=2) as client:
        (name,) = regions()
        with pytest.raises(Unavailable):
            await infer(client)
        triton.regions.clear()
        await infer(client)
        gc.collect()
        assert name not in Path("/proc/self/maps").read_text()  # noqa: ASYNC240


async def test_memory_that_an_earlier_region_still_takes_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    triton = FakeTriton(answer=ONE)
    async with connected(triton, shared_memory=True) as client:
        triton.regions.clear()
        await infer(client)
        with monkeypatch.context() as full:
            full.setattr(os, "posix_fallocate", Mock(side_effect=OSError(28, "No space left on device")))
            await client.attach(PICTURE.nbytes)
        await client.attach(PICTURE.nbytes)
        await infer(client)
    assert went_by(triton) == ["memory", "message", "memory"]


async def test_a_tensor_in_lent_memory_is_read_there_and_the_answer_is_written_there() -> None:
    triton = FakeTriton(answer=ONE)
    async with listening(triton) as port:
        client = TritonClient(f"127.0.0.1:{port}", shared_memory=True, slots=1)
        await client.attach(PICTURE.nbytes + MODEL.candidates_bytes)
        deadline = time.monotonic() + 30
        for _ in range(2):
            with client.lend() as loan:
                tensor = loan.array(PICTURE.shape, np.uint8)
                assert tensor is not None
                tensor[...] = PICTURE
                found = await client.infer(
                    MODEL, {"images": tensor}, ["candidates"], deadline=deadline, loan=loan
                )
                assert loan.holds(found["candidates"])
                np.testing.assert_array_equal(found["candidates"], ONE[None])
        await client.close()
    assert went_by(triton) == ["memory", "memory"]
    np.testing.assert_array_equal(triton.inputs[0], PICTURE)


async def test_lent_memory_of_a_region_that_triton_forgot_is_sent_by_message() -> None:
    triton = FakeTriton(answer=ONE)
    async with connected(triton, shared_memory=True) as client:
        with client.lend() as loan:
            tensor = loan.array(PICTURE.shape, np.uint8)
            assert tensor is not None
            tensor[...] = PICTURE
            triton.regions.clear()
            deadline = time.monotonic() + 30
            found = await client.infer(
                MODEL, {"images": tensor}, ["candidates"], deadline=deadline, loan=loan
            )
        np.testing.assert_array_equal(found["candidates"], ONE[None])
    np.testing.assert_array_equal(triton.inputs[-1], PICTURE)


async def test_a_slot_that_triton_never_heard_of_is_free_at_once() -> None:
    triton = FakeTriton(answer=ONE)
    async with connected(triton, shared_memory=True, slots=1) as client:
        with pytest.raises(DeadlineExceeded):
            await infer(client, within_s=-1)
        await infer(client)
    assert went_by(triton) == ["memory"]


async def test_after_a_restart_of_triton_requests_go_on_by_message_and_then_in_memory_again() -> None:
    triton = FakeTriton(answer=ONE)
    async with connected(triton, shared_memory=True) as client:
        await infer(client)
        triton.regions.clear()  # what a restart does
        np.testing.assert_array_equal(await infer(client), ONE[None])  # nobody notices
        await infer(client)
        await client.attach(PICTURE.nbytes)
        await infer(client)
        assert len(regions()) == 1
    assert went_by(triton) == ["memory", "memory", "message", "message", "memory"]


async def test_a_late_answer_about_the_old_region_leaves_the_new_one_alone() -> None:
    triton = FakeTriton(answer=ONE)
    release = asyncio.Event()

    async def forgotten_late(_request: Any, context: Context) -> Any:
        await release.wait()
        await context.abort(grpc.StatusCode.NOT_FOUND, "Unable to find shared memory region: 'old'")

    async with connected(triton, shared_memory=True) as client:
        triton.script.append(forgotten_late)
        late = asyncio.create_task(infer(client))
        await until(lambda: len(triton.requests) == 1)
        triton.regions.clear()
        await infer(client)
        await client.attach(PICTURE.nbytes)
        release.set()
        await late
        triton.requests.clear()
        await infer(client)
    assert went_by(triton) == ["memory"]


async def test_attaching_twice_registers_once() -> None:
    triton = FakeTriton()
    async with connected(triton, shared_memory=True) as client:
        await client.attach(PICTURE.nbytes)
        assert len(triton.regions) == len(regions()) == 1
    assert triton.regions == {}  # unregistered on closing


async def test_shared_memory_that_is_off_is_not_set_up() -> None:
    triton = FakeTriton()
    async with connected(triton, shared_memory=False) as client:
        await client.attach(PICTURE.nbytes)
        assert triton.regions == {}
        assert regions() == []


@pytest.mark.parametrize(
    ("refusal", "attempts"),
    [
        ((grpc.StatusCode.INTERNAL, "Unable to open shared memory region: '/posegate-1'"), 1),
        ((grpc.StatusCode.UNIMPLEMENTED, "no shared memory here"), 1),
        ((grpc.StatusCode.UNAVAILABLE, "Socket closed"), 2),
    ],
    ids=["another container", "not supported", "Triton just went"],
)
async def test_a_refused_region_means_messages_with_one_log_line(
    refusal: tuple[grpc.StatusCode, str], attempts: int
) -> None:
    triton = FakeTriton(answer=ONE, register_refusal=refusal)
    async with connected(triton) as plain:
        url = plain.url
        client = TritonClient(url, shared_memory=True)
        with capture_logs() as lines:
            await client.attach(PICTURE.nbytes)
            await client.attach(PICTURE.nbytes)
        assert [line["event"] for line in lines] == ["shared_memory_off"] * attempts
        assert refusal[1] in lines[0]["why"]
        await infer(client)
        assert regions() == []
        await client.close()
    assert went_by(triton) == ["message"]


async def test_a_host_without_enough_shared_memory_means_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = FakeTriton(answer=ONE)
    async with connected(triton) as plain:
        client = TritonClient(plain.url, shared_memory=True)
        with capture_logs() as lines:
            await client.attach(os.statvfs(DEV_SHM).f_blocks * os.statvfs(DEV_SHM).f_frsize)
            await client.attach(1)
        assert [line["event"] for line in lines] == ["shared_memory_off"]
        await infer(client)
        await client.close()
    assert went_by(triton) == ["message"]


async def test_cancelling_while_the_region_is_registered_leaves_none_behind() -> None:
    triton = FakeTriton()
    begun = asyncio.Event()

    async def hang(request: Any, context: Context) -> Any:
        begun.set()
        await asyncio.sleep(10)

    triton.SystemSharedMemoryRegister = hang  # type: ignore[method-assign]
    async with connected(triton) as plain:
        client = TritonClient(plain.url, shared_memory=True)
        task = asyncio.create_task(client.attach(PICTURE.nbytes))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert regions() == []
        await client.close()


# --- models -------------------------------------------------------------------------------------------


async def test_no_models_are_a_normal_answer() -> None:
    async with connected(FakeTriton(configs={})) as client:
        assert await client.models() == []


async def test_a_model_is_what_its_configuration_says() -> None:
    async with connected(FakeTriton()) as client:
        assert await client.models() == [MODEL]
        assert await client.server_version() == "2.51.0"
        assert await client.is_live()


async def test_a_model_that_is_not_ready_is_listed_as_such() -> None:
    triton = FakeTriton()
    async with connected(triton) as client:
        assert [model.ready for model in await client.models()] == [True]
        triton.configs["yolo11n_pose"] = (model_config(), "UNAVAILABLE", "unloaded")
        assert [model.ready for model in await client.models()] == [False]


async def test_configurations_are_asked_for_once_and_again_after_triton_was_away() -> None:
    triton = FakeTriton()
    async with connected(triton) as client:
        await client.models()
        await client.models()
        assert triton.config_requests == 1
        triton.control_refusal = (grpc.StatusCode.UNAVAILABLE, "")
        assert not await client.is_live()
        triton.control_refusal = None
        await client.models()
        assert triton.config_requests == 2


async def test_a_triton_that_says_it_is_not_live_is_not() -> None:
    async with connected(FakeTriton(live=False)) as client:
        assert not await client.is_live()


def misfit(**changes: Any) -> dict[str, tuple[model_config_pb2.ModelConfig, str, str]]:
    return {
        "bad": (model_config(name="bad", **changes), "READY", ""),
        "good": (model_config(name="good"), "READY", ""),
    }


@pytest.mark.parametrize(
    ("triton", "event"),
    [
        pytest.param(FakeTriton(configs=misfit(parameters={"skeleton": None})), "model_refused", id="misfit"),
        pytest.param(FakeTriton(configs=misfit(parameters={"family": None})), None, id="not for us"),
        pytest.param(
            FakeTriton(configs={**misfit(), "bad": (model_config(), "FAILED", "no such file")}),
            "model_not_loaded",
            id="failed to load",
        ),
        pytest.param(
            FakeTriton(configs=misfit(), unconfigured={"bad"}), "model_not_loaded", id="still loading"
        ),
    ],
)
async def test_one_bad_model_leaves_the_others_and_is_told_of_once(
    triton: FakeTriton, event: str | None
) -> None:
    async with connected(triton) as client:
        with capture_logs() as lines:
            for _ in range(3):
                found = {model.name: model for model in await client.models()}
                assert found.pop("good").ready
                # One that did not load is told of by its name, and is not ready.
                assert [*found] == (["bad"] if event == "model_not_loaded" else [])
                assert not any(model.ready or model.family for model in found.values())
    assert [line["event"] for line in lines] == ([event] if event else [])


async def test_a_model_that_was_still_loading_is_there_once_it_has() -> None:
    triton = FakeTriton(unconfigured={"yolo11n_pose"})
    async with connected(triton) as client:
        assert [(model.name, model.ready) for model in await client.models()] == [(MODEL.name, False)]
        triton.unconfigured.clear()
        assert await client.models() == [MODEL]


@pytest.mark.parametrize(
    ("call", "code", "expected"),
    [
        ("models", grpc.StatusCode.UNAVAILABLE, Unavailable),
        ("models", grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable),
        ("models", grpc.StatusCode.INTERNAL, TritonError),
        # Who asks for the version can do without it.
        ("server_version", grpc.StatusCode.UNAVAILABLE, Unavailable),
        ("server_version", grpc.StatusCode.INTERNAL, Unavailable),
    ],
)
async def test_a_triton_that_fails_at_control_is_unavailable_or_an_error(
    call: str, code: grpc.StatusCode, expected: type[Exception]
) -> None:
    triton = FakeTriton(control_refusal=(code, "no"))
    async with connected(triton) as client:
        ask: Callable[[], Any] = getattr(client, call)
        with pytest.raises(expected):
            await ask()


async def test_triton_coming_back_after_a_while_is_noticed_soon() -> None:
    # gRPC waits longer and longer before it connects again, up to two minutes, unless it is told to.
    triton, took_s = FakeTriton(), []
    async with listening(triton) as port:
        client = TritonClient(f"127.0.0.1:{port}", shared_memory=False)
        assert await client.is_live()
    for _ in range(5):
        for _ in range(28):
            assert not await client.is_live()
            await asyncio.sleep(0.1)
        async with listening(triton, port):
            back = time.monotonic()
            while not await client.is_live():  # noqa: ASYNC110 - it is another side's state
                await asyncio.sleep(0.05)
            took_s.append(time.monotonic() - back)
        if took_s[-1] < 1.2:
            break
    assert min(took_s) < 1.2  # a loaded machine takes longer once, pauses that grow do so every time
    await client.close()
