"""Plans and manifests for tests; no TensorRT made them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.models.gpus import Gpu
from service.models.manifest import EnginePlan, PartAccuracy, Profile, add_to_manifest

L4 = Gpu("NVIDIA L4", "8.9", "580.65.06")
A100 = Gpu("NVIDIA A100-SXM4-80GB", "8.0", "580.65.06")
H200 = Gpu("NVIDIA H200", "9.0", "580.65.06")
TENSORRT = "10.13.3.9"
BYTES = b"ftrt" + bytes(range(256)) * 4
CONFIG = 'name: "m"\nplatform: "tensorrt_plan"\n'

PLAN = EnginePlan(
    file="model.plan",
    sha256=hashlib.sha256(BYTES).hexdigest(),
    size=len(BYTES),
    library="tensorrt",
    tensorrt=TENSORRT,
    compute_capability="8.9",
    hardware_compatibility="none",
    version_compatible=False,
    gpu="NVIDIA L4",
    driver="580.65.06",
    onnx_sha256=hashlib.sha256(b"graph").hexdigest(),
    weights_sha256="cd" * 32,
    precision="fp16",
    tf32=True,
    optimisation_level=3,
    profiles=(Profile((1, 64, 64, 3), (4, 64, 64, 3), (8, 64, 64, 3)),),
    built_at="2026-01-02T03:04:05+00:00",
    build_s=61.5,
    accuracy={"body": PartAccuracy(120, 0.0001, 0.0004)},
)


def model_folder(repository: Path, data: bytes = BYTES, config: str = CONFIG, **changes: Any) -> Path:
    """A model with one plan and its manifest; `changes` are what the manifest says otherwise."""
    model = repository / "m"
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "config.pbtxt").write_text(config)
    plan = replace(PLAN, **changes)
    (model / "1" / plan.file).write_bytes(data)
    add_to_manifest(model / "1", plan)
    return model
