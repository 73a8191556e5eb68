"""A rewritten RTMO network inside the real tritonserver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc

from service.models.rtmo import add_rtmo
from service.triton.launch import Launch
from service.triton.process import TritonProcess
from tests.model_repository.tiny_models import BACKENDS, RUNTIME
from tests.models.rtmo_networks import network, persons_in, persons_on


@pytest.mark.parametrize("count", [1, 2])
async def test_triton_answers_what_the_network_says(count: int, tmp_path: Path) -> None:
    public = tmp_path / "rtmo-s.onnx"
    public.write_bytes(network().SerializeToString())
    add_rtmo(tmp_path / "models", public, name="rtmo_s")
    rng = np.random.default_rng(8)
    images = rng.integers(0, 256, (count, 20, 20, 3), np.uint8).repeat(32, 1).repeat(32, 2)
    launch = Launch(
        runtime=RUNTIME,
        model_repository=tmp_path / "models" / "cpu",
        backends=BACKENDS,
        cache=tmp_path / "cache",
    )
    async with TritonProcess(launch) as server:
        client = triton_grpc.InferenceServerClient(server.grpc_url)
        tensor = triton_grpc.InferInput("images", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        result = await client.infer("rtmo_s", [tensor], client_timeout=30)
        await client.close()
    found = result.as_numpy("candidates")
    assert found is not None
    assert found.shape == (count, 1000, 56)
    for rows, image in zip(found, images, strict=True):
        expected = persons_on(image[..., ::-1])
        assert len(expected) > 10
        np.testing.assert_allclose(persons_in(rows), expected, rtol=1e-3, atol=0.02)
