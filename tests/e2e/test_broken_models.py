"""Models that the real Triton cannot load: the others serve, and ListModels says which they are."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import grpc
import pytest

from posegate.v1 import pose_service_pb2 as pb
from posegate.v1.pose_service_pb2_grpc import PoseServiceStub
from service.client import connect
from tests.e2e.conftest import ROOT, start, stop, wait_for
from tests.e2e.test_detect_poses import request_for

pytestmark = pytest.mark.e2e

MODELS = ROOT / "model_repository"


async def test_models_that_do_not_load_are_listed_and_the_others_serve(tmp_path: Path) -> None:
    repository = tmp_path / "cpu"
    shutil.copytree(MODELS / "cpu" / "yolo11n_pose", repository / "yolo11n_pose")
    (tmp_path / "backends").symlink_to(MODELS / "backends")
    # A graph that ends in the middle, a file that is no configuration, and a plan where there is no GPU.
    config = (MODELS / "cpu" / "yolo11n_pose" / "config.pbtxt").read_text("utf-8")
    half = repository / "half_written"
    (half / "1").mkdir(parents=True)
    (half / "config.pbtxt").write_text(config.replace('"yolo11n_pose"', '"half_written"'), encoding="utf-8")
    graph = (MODELS / "cpu" / "yolo11n_pose" / "1" / "model.onnx").read_bytes()
    (half / "1" / "model.onnx").write_bytes(graph[: len(graph) // 2])
    (repository / "nonsense" / "1").mkdir(parents=True)
    (repository / "nonsense" / "config.pbtxt").write_text("no configuration {", encoding="utf-8")
    shutil.copytree(MODELS / "gpu" / "yolov8m_pose", repository / "yolov8m_pose")
    (repository / "yolov8m_pose" / "1").mkdir(exist_ok=True)
    (repository / "yolov8m_pose" / "1" / "model.plan").write_bytes(b"ftrt and no more")

    service = start("up", tmp_path, POSEGATE_MODEL_REPOSITORY=str(repository))
    try:
        await wait_for(service.address, "SERVING")
        async with connect(service.address) as channel:
            stub = PoseServiceStub(channel)
            listed = (await stub.ListModels(pb.ListModelsRequest(), timeout=60)).models
            assert {model.name: model.ready for model in listed} == {
                "half_written": False,
                "nonsense": False,
                "yolo11n_pose": True,
                "yolov8m_pose": False,
            }
            answer = await stub.DetectPoses(request_for("two_people.jpg"), timeout=60)
            assert len(answer.persons) == 3
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.DetectPoses(request_for("two_people.jpg", model="half_written"), timeout=3)
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    finally:
        await asyncio.to_thread(stop, service)
    lines = [json.loads(line) for line in service.log.read_text("utf-8").splitlines()]
    told = {line["model"] for line in lines if line["event"] == "model_not_loaded" and line["why"]}
    assert told == {"half_written", "nonsense", "yolov8m_pose"}
