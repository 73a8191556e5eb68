"""A rewritten RTMW3D network inside the real tritonserver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc.aio as triton_grpc

from service.models.rtmw import add_rtmw
from service.triton.launch import Launch
from service.triton.process import TritonProcess
from tests.model_repository.tiny_models import BACKENDS, RUNTIME
from tests.models.simcc_networks import HEIGHT, KEYPOINTS, WIDTH, network
from tests.models.test_rtmw import run


@pytest.mark.parametrize("count", [1, 3])
async def test_triton_answers_what_the_graph_says(count: int, tmp_path: Path) -> None:
    public = tmp_path / "rtmw3d-x.onnx"
    public.write_bytes(network().SerializeToString())
    folder = add_rtmw(tmp_path / "models", public, name="rtmw3d_x", family="rtmw3d")
    crops = np.random.default_rng(8).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
    expected = run(onnx.load(folder / "1" / "model.onnx"), crops)
    launch = Launch(
        runtime=RUNTIME,
        model_repository=tmp_path / "models" / "cpu",
        backends=BACKENDS,
        cache=tmp_path / "cache",
    )
    async with TritonProcess(launch) as server:
        client = triton_grpc.InferenceServerClient(server.grpc_url)
        tensor = triton_grpc.InferInput("crops", list(crops.shape), "UINT8")
        tensor.set_data_from_numpy(crops)
        result = await client.infer("rtmw3d_x", [tensor], client_timeout=30)
        await client.close()
    for name, array in expected.items():
        found = result.as_numpy(name)
        assert found is not None
        assert found.shape[:2] == (count, KEYPOINTS)
        np.testing.assert_allclose(found, array, rtol=1e-3, atol=1e-3, equal_nan=True)
    assert np.isfinite(expected["positions"][..., 2]).any()
