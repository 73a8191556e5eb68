"""A Python-based Triton backend that computes nothing: it answers at once with candidates that are stored.

It stands in for a GPU in `scripts/bench gateway`. `1/candidates.npz` holds an array (1000, 5 + 3K) for each
input shape, named HxW; every image of that shape gets it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # comes with Triton, not from PyPI

_CONSUMED = b"used_dltensor"  # as in the OpenVINO backend: numpy does not know the name that Triton gives
_rename_capsule = ctypes.pythonapi.PyCapsule_SetName
_rename_capsule.argtypes = (ctypes.py_object, ctypes.c_char_p)


class TritonPythonModel:
    """Answers every request with the stored candidates of its shape."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the candidates."""
        file = Path(args["model_repository"]) / args["model_version"] / "candidates.npz"
        with np.load(file) as stored:
            self._candidates = {name: stored[name] for name in stored.files}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Candidates (N, 1000, 5 + 3K) of every request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        count, height, width, _ = pb_utils.get_input_tensor_by_name(request, "images").shape()
        candidates = self._candidates.get(f"{height}x{width}")
        if candidates is None:
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError(f"nothing stored for {height}x{width}")
            )
        capsule = np.repeat(candidates[None], count, axis=0).__dlpack__()
        tensor = pb_utils.Tensor.from_dlpack("candidates", capsule)
        _rename_capsule(capsule, _CONSUMED)
        return pb_utils.InferenceResponse([tensor])
