"""What `scripts/bench` compares the service with: the bare model, and Ultralytics' own `predict`."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from scripts.marked_sections import ROOT
from service.core.geometry import Rgb8
from service.core.model import Model
from service.settings import cpu_count

_PEER = ROOT / "scripts" / "ultralytics_peer.py"


class BareModel:
    """The bare model, compiled as the backend compiles it."""

    def __init__(self, model: Model) -> None:
        import openvino

        self._core = openvino.Core()
        self._graph = ROOT / "model_repository" / "cpu" / model.name / model.version / "model.onnx"
        # As the backend has it: OpenVINO emulates bf16 where the CPU lacks it, four times slower than f32.
        native = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._precision = model.precision if native else "f32"
        self._compiled: dict[tuple[tuple[int, ...], bool], Any] = {}

    def loop(self, tensor: Rgb8, in_flight: int, seconds: float) -> tuple[list[float], float]:
        """Latencies in seconds, and the wall time, of so many threads that call it in a loop.

        One in flight runs on all CPUs; several run on one CPU each, which gives the most images
        per second: the highest throughput in both cases.
        """
        compiled = self._compile(tensor.shape, alone=in_flight == 1)
        latencies: list[list[float]] = [[] for _ in range(in_flight)]
        begin = threading.Barrier(in_flight + 1)

        def work(mine: list[float]) -> None:
            request = compiled.create_infer_request()
            begin.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                started = time.perf_counter()
                request.infer([tensor], share_inputs=True, share_outputs=True)
                mine.append(time.perf_counter() - started)

        threads = [threading.Thread(target=work, args=(mine,)) for mine in latencies]
        for thread in threads:
            thread.start()
        begin.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        return [value for mine in latencies for value in mine], time.perf_counter() - started

    def _compile(self, shape: tuple[int, ...], *, alone: bool) -> Any:
        if (shape, alone) not in self._compiled:
            graph = self._core.read_model(self._graph)
            graph.reshape({graph.input(0): list(shape)})
            compiled = self._core.compile_model(
                graph,
                "CPU",
                {
                    "PERFORMANCE_HINT": "LATENCY" if alone else "THROUGHPUT",
                    "INFERENCE_PRECISION_HINT": self._precision,
                    "INFERENCE_NUM_THREADS": cpu_count(),
                },
            )
            # The first inference of a process deadlocks where several threads begin with it together: one has
            # Python's lock, another that of a variable which OpenVINO initialises there.
            compiled.create_infer_request().infer([np.zeros(shape, np.uint8)])
            self._compiled[shape, alone] = compiled
        return self._compiled[shape, alone]


class Ultralytics:
    """Ultralytics' own `predict` on the bytes of an image, in a Python of its own: torch is none of ours.

    Args:
        python: interpreter of an environment with `ultralytics` in it.
        weights: a checkpoint.

    Attributes:
        version: of Ultralytics and torch.
    """

    def __init__(self, python: Path, weights: Path) -> None:
        if not weights.is_file():
            raise SystemExit(f"{weights} is missing: scripts/setup fetches it")
        self._process = subprocess.Popen(  # noqa: S603 - the interpreter that the caller named
            [python, _PEER, weights, str(cpu_count())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.usage = psutil.Process(self._process.pid)
        self.version = self._answer()

    def loop(self, content: bytes, seconds: float) -> tuple[list[float], float]:
        """Latencies in seconds, and the wall time, of calls one after another."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
            file.write(content)
            file.flush()
            self._process.stdin.write(f"{seconds} {file.name}\n")
            self._process.stdin.flush()
            latencies = [float(value) for value in self._answer().split()]
        return latencies, sum(latencies)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        with suppress(BrokenPipeError):  # it has ended
            self._process.stdin.close()
        self._process.wait(60)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit("Ultralytics did not answer: is it installed in that environment?")
        return line.strip()
