"""Test doubles of Triton and its client: they give scripted answers and record the requests."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from service.core.model import Model, PoseModel
from service.core.poses import Floats
from service.errors import DeadlineExceeded, Unavailable
from service.skeletons import shipped
from service.triton.shared_memory import Loan

Tensors = Mapping[str, NDArray[Any]]

MODEL = Model(
    name="yolo11n_pose",
    version="1",
    family="yolo_pose",
    skeleton="coco_17",
    keypoint_count=17,
    shapes_hw=((384, 640), (480, 640), (640, 480), (640, 640)),
    max_batch_size=8,
    precision="bf16",
    licence="AGPL-3.0",
    weights="yolo11n-pose.pt",
    source="https://example.org/yolo11n-pose.pt",
    sha256="869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0",
    ready=True,
    candidate_count=1000,
)
POSE_MODEL = PoseModel(MODEL, None, shipped()[MODEL.skeleton])


def candidate(
    box_xyxy: tuple[float, float, float, float],
    score: float,
    keypoints: Sequence[tuple[float, float, float]] | None = None,
) -> Floats:
    """One row of `candidates`: (5 + 3K,). Without keypoints: 17 on a slant through the box, score 0.9."""
    x1, y1, x2, y2 = box_xyxy
    points = (
        [(x1 + (x2 - x1) * k / 16, y1 + (y2 - y1) * k / 16, 0.9) for k in range(17)]
        if keypoints is None
        else keypoints
    )
    head = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, score]
    return np.array([*head, *np.array(points, np.float32).ravel()], np.float32)


def rows(*people: Floats, count: int = 1000, keypoint_count: int = 17) -> Floats:
    """(count, 5 + 3K): the given persons, then rows of score 0, as a model fills them up; read-only."""
    filled = np.zeros((count, 5 + 3 * keypoint_count), np.float32)
    for index, person in enumerate(people):
        filled[index] = person
    filled.setflags(write=False)
    return filled


@dataclass(frozen=True, eq=False)
class Call:
    """One requested inference."""

    model: Model
    inputs: Tensors
    outputs: tuple[str, ...]
    deadline: float
    request_id: str


Answer = Floats | Exception | Callable[[NDArray[np.uint8]], Floats]


def no_second_stage(_inputs: Tensors) -> Tensors:
    """The second stage of a test without a top-down model: it must not be called."""
    raise AssertionError("the top-down model was called")


class FakeTritonClient:
    """Test double of service.triton.client.TritonClient, without a connection.

    Attributes:
        answer: of an inference when nothing is scripted: rows, an error, or a function of
            the input image (H, W, 3).
        seconds: duration of an inference; beyond the deadline it fails.
        second_stage: outputs of a top-down model for its inputs.
        script: answers that come first, one for each inference.
        gate: inferences wait until it is set; it is, to begin with.
        entered: set as soon as an inference has begun.
        served: models that are served; None while Triton does not answer.
        version: what server_version says; an error is raised.
        closed: whether `close` was called.
    """

    def __init__(self) -> None:
        self.answer: Answer = rows()
        self.seconds = 0.0
        self.second_stage: Callable[[Tensors], Tensors] = no_second_stage
        self.script: list[Answer] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.calls: list[Call] = []
        self.under_way = 0
        self.most_at_once = 0
        self.cancelled = 0
        self.served: Sequence[Model] | None = [MODEL]
        self.version: str | Exception = "2.51.0"
        self.attached: list[int] = []
        self.closed = False

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
        self.calls.append(Call(model, inputs, tuple(outputs), deadline, request_id))
        answer = self.script.pop(0) if self.script else self.answer
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        self.entered.set()
        try:
            async with asyncio.timeout(deadline - time.monotonic() if deadline < math.inf else None):
                await self.gate.wait()
                await asyncio.sleep(self.seconds)
        except TimeoutError:
            raise DeadlineExceeded("too late") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        try:
            if isinstance(answer, Exception):
                raise answer
            if "images" not in inputs:
                return self.second_stage(inputs)
            found = answer(inputs["images"][0]) if callable(answer) else answer
            return {"candidates": found[None]}
        finally:
            del answer  # else an error and this frame would keep each other

    def lend(self) -> AbstractContextManager[Loan]:
        return nullcontext(Loan())

    def forget(self) -> None:
        """Forget the inferences until now."""
        self.calls.clear()
        self.entered.clear()
        self.most_at_once = 0

    async def close(self) -> None:
        self.closed = True

    async def models(self) -> Sequence[Model]:
        if self.served is None:
            raise Unavailable("away", retry_after_s=1.0)
        return self.served

    async def is_live(self) -> bool:
        return self.served is not None

    async def attach(self, largest_bytes: int) -> None:
        self.attached.append(largest_bytes)

    async def server_version(self) -> str:
        if isinstance(self.version, Exception):
            raise self.version
        return self.version


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Refusal = tuple[grpc.StatusCode, str]
Infer = Callable[[service_pb2.ModelInferRequest, Context], Awaitable[service_pb2.ModelInferResponse]]


def model_config(**changes: Any) -> model_config_pb2.ModelConfig:
    """A configuration that keeps the contract of `yolo_pose`, except for what is changed."""
    parameters = {
        "family": "yolo_pose",
        "skeleton": "coco_17",
        "shapes": "384x640,480x640,640x480,640x640",
        "precision": "bf16",
        "licence": "AGPL-3.0",
        "weights": "yolo11n-pose.pt",
        "source": "https://example.org/yolo11n-pose.pt",
        "sha256": MODEL.sha256,
        **changes.pop("parameters", {}),
    }
    config = model_config_pb2.ModelConfig(
        **{
            "name": "yolo11n_pose",
            "max_batch_size": 8,
            "input": [
                model_config_pb2.ModelInput(
                    name="images", data_type=model_config_pb2.TYPE_UINT8, dims=[-1, -1, 3]
                )
            ],
            "output": [
                model_config_pb2.ModelOutput(
                    name="candidates", data_type=model_config_pb2.TYPE_FP32, dims=[1000, 56]
                )
            ],
            **changes,
        }
    )
    for name, value in parameters.items():
        if value is not None:
            config.parameters[name].string_value = value
    return config


@dataclass(eq=False)
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # untyped
    """Scripted test double of tritonserver's gRPC service, as far as the gateway uses it.

    Attributes:
        configs: the models served, each with its state in the index and the reason for it.
        unconfigured: names whose configuration cannot be had yet.
        script: refusals or whole behaviours for coming inferences, one each, before `answer`.
        answer: rows that an inference gives.
        gate: inferences wait until it is set; it is, to begin with.
        register_refusal: what registering shared memory is answered with; None accepts.
        regions: registered shared memory: name to key.
        control_refusal: what everything but inference is answered with; None answers.
        metadata: that came with inferences.
    """

    configs: dict[str, tuple[model_config_pb2.ModelConfig, str, str]] = field(
        default_factory=lambda: {"yolo11n_pose": (model_config(), "READY", "")}
    )
    unconfigured: set[str] = field(default_factory=set)
    script: list[Refusal | Infer] = field(default_factory=list)
    answer: Floats = field(default_factory=rows)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    register_refusal: Refusal | None = None
    control_refusal: Refusal | None = None
    live: bool = True
    regions: dict[str, str] = field(default_factory=dict)
    requests: list[service_pb2.ModelInferRequest] = field(default_factory=list)
    inputs: list[NDArray[Any]] = field(default_factory=list)
    remaining_s: list[float | None] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    config_requests: int = 0
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def ServerLive(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._control(context)
        return service_pb2.ServerLiveResponse(live=self.live)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._control(context)
        return service_pb2.ServerMetadataResponse(name="triton", version="2.51.0")

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._control(context)
        entries = [
            service_pb2.RepositoryIndexResponse.ModelIndex(
                name=name, version="" if state == "FAILED" else "1", state=state, reason=reason
            )
            for name, (_, state, reason) in self.configs.items()
        ]
        return service_pb2.RepositoryIndexResponse(models=entries)

    async def ModelConfig(self, request: Any, context: Context) -> Any:  # noqa: N802
        await self._control(context)
        self.config_requests += 1
        if request.name in self.unconfigured:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"Request for unknown model: '{request.name}' is not ready"
            )
        return service_pb2.ModelConfigResponse(config=self.configs[request.name][0])

    async def SystemSharedMemoryRegister(self, request: Any, context: Context) -> Any:  # noqa: N802
        if self.register_refusal is not None:
            await context.abort(*self.register_refusal)
        self.regions[request.name] = request.key
        return service_pb2.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryStatus(self, request: Any, context: Context) -> Any:  # noqa: N802
        if request.name not in self.regions:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"Unable to find system shared memory region: '{request.name}'"
            )
        return service_pb2.SystemSharedMemoryStatusResponse()

    async def SystemSharedMemoryUnregister(self, request: Any, context: Context) -> Any:  # noqa: N802
        self.regions.pop(request.name, None)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: N802
        self.requests.append(request)
        self.remaining_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata() or ()))
        step = self.script.pop(0) if self.script else None
        self.entered.set()
        try:
            await self.gate.wait()
            if isinstance(step, tuple):
                await context.abort(*step)
            if callable(step):
                return await step(request, context)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.inputs.append(await self._input(request, context))
        response = infer_response(self.answer[None])
        wanted = request.outputs[0].parameters
        if "shared_memory_region" in wanted:
            self._write(wanted, response)
        return response

    def _write(self, wanted: Any, response: service_pb2.ModelInferResponse) -> None:
        """Move the answer's tensor into shared memory, as Triton does."""
        content = response.raw_output_contents[0]
        response.raw_output_contents[0] = b""
        assert len(content) <= wanted["shared_memory_byte_size"].int64_param
        region = self.regions[wanted["shared_memory_region"].string_param]
        with Path("/dev/shm", region.lstrip("/")).open("r+b") as file:  # noqa: S108
            file.seek(wanted["shared_memory_offset"].int64_param)
            file.write(content)

    async def _input(self, request: Any, context: Context) -> NDArray[Any]:
        """The one input, from the message or from shared memory, as Triton reads it."""
        tensor = request.inputs[0]
        if "shared_memory_region" not in tensor.parameters:
            return np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tensor.shape)
        name = tensor.parameters["shared_memory_region"].string_param
        if name not in self.regions:
            # The wording of tritonserver 2.51.
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
        size = tensor.parameters["shared_memory_byte_size"].int64_param
        offset = tensor.parameters["shared_memory_offset"].int64_param
        region = Path("/dev/shm", self.regions[name].lstrip("/")).read_bytes()  # noqa: ASYNC240, S108
        return np.frombuffer(region, np.uint8, size, offset).reshape(tensor.shape)

    async def _control(self, context: Context) -> None:
        if self.control_refusal is not None:
            await context.abort(*self.control_refusal)


def infer_response(candidates: Floats, *, cut: int = 0) -> service_pb2.ModelInferResponse:
    """An answer with one tensor, `cut` bytes short."""
    raw = candidates.tobytes()
    return service_pb2.ModelInferResponse(
        model_name="yolo11n_pose",
        outputs=[
            service_pb2.ModelInferResponse.InferOutputTensor(
                name="candidates", datatype="FP32", shape=list(candidates.shape)
            )
        ],
        raw_output_contents=[raw[: len(raw) - cut]],
    )


@asynccontextmanager
async def listening(triton: FakeTriton, port: int = 0) -> AsyncIterator[int]:
    """The fake on a port of this machine; on leaving the block it dies at once."""
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)


class BusyThread:
    """Work for a thread that goes on until it is released."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._go_on = threading.Event()

    def __call__(self) -> None:
        self._started.set()
        assert self._go_on.wait(60)

    @property
    def began(self) -> bool:
        """Whether a thread is at it, or was."""
        return self._started.is_set()

    def release(self) -> None:
        self._go_on.set()


async def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Wait until a condition holds; TimeoutError when it does not in a time that no loaded machine takes."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - there is no event for the condition
            await asyncio.sleep(0.005)
