"""TensorRT-RTX, which builds engines without a GPU; tests that need it skip where it is not installed."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.models.engines import load_tensorrt
from scripts.models.errors import EngineError

try:
    RTX: Any = load_tensorrt("tensorrt_rtx_bindings")
except EngineError:
    RTX = None

needs_rtx = pytest.mark.skipif(
    RTX is None,
    reason="TensorRT-RTX is not installed: "
    ".venv/bin/python -m pip install --no-deps --require-hashes -r scripts/engines.txt",
)
