"""TensorRT-RTX, which builds engines without a GPU; tests that need it skip where it is not installed."""

from __future__ import annotations

import os
from typing import Any

import pytest

from service.models.engines import load_tensorrt
from service.models.errors import EngineError

INSTALL = ".venv/bin/python -m pip install --no-deps --require-hashes -r scripts/engines.txt"
REQUIRED = os.environ.get("POSEGATE_TEST_ENGINES") == "require"  # as in CI: nothing may be skipped

try:
    RTX: Any = load_tensorrt("tensorrt_rtx_bindings")
except EngineError:
    if REQUIRED:
        raise
    RTX = None

needs_rtx = pytest.mark.skipif(RTX is None, reason=f"TensorRT-RTX is not installed: {INSTALL}")
