"""The OpenVINO backend inside the real tritonserver, with graphs of a few nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import psutil
import pytest
import pytest_asyncio
import tritonclient.grpc.aio as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from service.triton.launch import Launch
from service.triton.process import TritonProcess
from tests.model_repository.tiny_models import (
    BACKENDS,
    RUNTIME,
    arithmetic,
    matrix_product,
    mean_colour,
    mean_colour_config,
    write_model,
)

ARITHMETIC_TENSORS = """\
input [ { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }, { name: "b" data_type: TYPE_INT32 dims: [ 4 ] } ]
output { name: "sum" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "double" data_type: TYPE_INT32 dims: [ 4 ] }
"""
MATRIX = np.random.default_rng(1).standard_normal((256, 64)).astype(np.float32)
MATRIX_TENSORS = """\
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 256 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 64 ] }
"""
QUEUE = "dynamic_batching { max_queue_delay_microseconds: 300000 }"


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


@pytest_asyncio.fixture(scope="module")
async def triton(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[triton_grpc.InferenceServerClient]:
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "mean", mean_colour(), mean_colour_config("32x64,64x32"))
    write_model(repository, "mean_queued", mean_colour(), mean_colour_config("32x64,64x32", QUEUE))
    lazy = mean_colour_config("64x64,32x64,64x32", parameter("prepared_shapes", "64x64"))
    write_model(repository, "mean_lazy", mean_colour(), lazy)
    write_model(repository, "mean_padded", mean_colour(), lazy + parameter("pad_value", "200"))
    write_model(repository, "arithmetic", arithmetic(), f"max_batch_size: 4\n{ARITHMETIC_TENSORS}")
    write_model(repository, "unbatched", arithmetic(()), f"max_batch_size: 0\n{ARITHMETIC_TENSORS}")
    for precision in ("f32", "bf16"):
        config = MATRIX_TENSORS + parameter("precision", precision)
        write_model(repository, f"matrix_{precision}", matrix_product(MATRIX), config)
    write_model(repository, "matrix_default", matrix_product(MATRIX), MATRIX_TENSORS)
    write_model(repository, "broken", b"this is no graph", mean_colour_config("32x64"))
    write_model(repository, "no_shapes", mean_colour(), mean_colour_config(""))
    write_model(repository, "other_names", matrix_product(MATRIX), f"max_batch_size: 4\n{ARITHMETIC_TENSORS}")
    write_model(
        repository, "wrong_precision", mean_colour(), mean_colour_config("8x8", parameter("precision", "f8"))
    )
    launch = Launch(
        runtime=RUNTIME,
        model_repository=repository,
        backends=BACKENDS,
        cache=tmp_path_factory.mktemp("cache"),
    )
    async with TritonProcess(launch) as server:
        client = triton_grpc.InferenceServerClient(server.grpc_url)
        client.pid = server.pid
        yield client
        await client.close()


async def infer(
    client: triton_grpc.InferenceServerClient, model: str, output: str, **inputs: NDArray[Any]
) -> NDArray[Any]:
    tensors = []
    for name, array in inputs.items():
        tensor = triton_grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    result = await client.infer(model, tensors, client_timeout=30)
    answer: NDArray[Any] | None = result.as_numpy(output)
    assert answer is not None
    return answer


def picture(height: int, width: int, *, batch: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 32)], ids=["landscape", "portrait"])
async def test_every_allowed_shape_is_answered(triton: Any, height: int, width: int) -> None:
    images = picture(height, width)
    assert await infer(triton, "mean", "means", images=images) == pytest.approx(images.mean((1, 2)), abs=1e-3)


async def test_a_batch_equals_its_items_one_by_one(triton: Any) -> None:
    images = picture(32, 64, batch=5)
    together = await infer(triton, "mean", "means", images=images)
    one_by_one = [await infer(triton, "mean", "means", images=image[np.newaxis]) for image in images]
    assert np.array_equal(together, np.concatenate(one_by_one))
    assert len(np.unique(together[:, 0])) == 5


async def test_a_shape_that_was_not_prepared_is_compiled_when_it_is_asked_for(triton: Any) -> None:
    images = picture(32, 64, batch=3)
    for _ in range(2):
        means = await infer(triton, "mean_lazy", "means", images=images)
        assert means == pytest.approx(images.mean((1, 2)), abs=1e-3)


async def test_until_then_it_runs_padded_in_a_larger_one(triton: Any) -> None:
    images = picture(64, 32)
    exact, padded = images.mean((1, 2)), (images.mean((1, 2)) + 200) / 2
    first = await infer(triton, "mean_padded", "means", images=images)
    assert first == pytest.approx(padded, abs=1e-3) or first == pytest.approx(exact, abs=1e-3)
    expected = pytest.approx(exact, abs=1e-3)
    async with asyncio.timeout(120):
        while (await infer(triton, "mean_padded", "means", images=images)) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_shape_that_is_not_allowed_is_refused_with_those_that_are(triton: Any) -> None:
    with pytest.raises(
        InferenceServerException, match=r"\[32, 32, 3\].*its shapes are 32x64, 64x32"
    ) as caught:
        await infer(triton, "mean", "means", images=picture(32, 32))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


async def test_a_refused_request_leaves_its_neighbours_in_the_queue_alone(triton: Any) -> None:
    images = [
        picture(*shape, seed=seed) for seed, shape in enumerate([(32, 64), (33, 64), (64, 32), (32, 64)])
    ]
    before = await executions(triton, "mean_queued")
    answers = await asyncio.gather(
        *(infer(triton, "mean_queued", "means", images=image) for image in images), return_exceptions=True
    )
    assert await executions(triton, "mean_queued") - before < len(images)  # they did share one
    assert isinstance(answers.pop(1), InferenceServerException)
    images.pop(1)
    for image, answer in zip(images, answers, strict=True):
        assert isinstance(answer, np.ndarray)
        assert answer == pytest.approx(image.mean((1, 2)), abs=1e-3)


async def executions(client: triton_grpc.InferenceServerClient, model: str) -> int:
    statistics = await client.get_inference_statistics(model)
    return int(statistics.model_stats[0].execution_count)


@pytest.mark.parametrize(("model", "shape"), [("arithmetic", (3, 4)), ("unbatched", (4,))])
async def test_several_tensors_of_several_types_pass(triton: Any, model: str, shape: tuple[int, ...]) -> None:
    a = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    b = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    assert await infer(triton, model, "sum", a=a, b=b) == pytest.approx(a + b)
    assert np.array_equal(await infer(triton, model, "double", a=a, b=b), 2 * b)


@pytest.mark.parametrize(
    ("model", "tolerance"), [("matrix_f32", 1e-4), ("matrix_default", 1e-4), ("matrix_bf16", 0.5)]
)
async def test_a_model_computes_in_its_own_precision(triton: Any, model: str, tolerance: float) -> None:
    x = np.random.default_rng(3).standard_normal((2, 256)).astype(np.float32)
    assert await infer(triton, model, "y", x=x) == pytest.approx(x @ MATRIX, abs=tolerance)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("broken", "OpenVINO cannot compile model.onnx"),
        ("no_shapes", "parameter shapes must list them"),
        ("other_names", "the graph has no tensor 'a', but x"),
        ("wrong_precision", "parameter precision is 'f8', not one of f32, bf16"),
    ],
)
async def test_a_model_that_cannot_be_served_says_why_and_leaves_the_others_alone(
    triton: Any, model: str, why: str
) -> None:
    index = await triton.get_model_repository_index()
    reasons = {entry.name: entry.reason for entry in index.models if entry.state != "READY"}
    assert why in reasons[model]
    assert await triton.is_model_ready("mean")


async def test_models_leave_the_cpu_to_the_server_first(triton: Any) -> None:
    server = psutil.Process(triton.pid)
    models = server.children()
    assert models
    assert {model.nice() for model in models} == {min(19, server.nice() + 5)}
