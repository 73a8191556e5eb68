"""When the OpenVINO backend answers which request; without a Triton and without OpenVINO."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.model_repository.test_openvino_config import config
from tests.model_repository.tiny_models import BACKENDS

LONG_S = 30.0  # ends a test that hangs; nothing waits as long otherwise


@dataclass
class Sender:
    """Keeps the response to one request; a second one is an error, as in Triton."""

    response: Future[Any] = field(default_factory=Future)

    def send(self, response: Any, flags: int) -> None:
        assert flags == 1  # the final one
        self.response.set_result(response)


@dataclass
class Request:
    """A request for the means of images."""

    images: NDArray[np.uint8] | None
    cancelled: bool = False
    sender: Sender = field(default_factory=Sender)

    def get_response_sender(self) -> Sender:
        return self.sender

    def is_cancelled(self) -> bool:
        return self.cancelled

    def requested_output_names(self) -> list[str]:
        return ["scores"]

    @property
    def means(self) -> list[float]:
        """The answer."""
        response = self.sender.response.result(LONG_S)
        assert response.error is None
        (tensor,) = response.output_tensors
        return [float(mean) for mean in tensor]

    @property
    def error(self) -> tuple[str, str]:
        """Text and code of the error that answers it."""
        found = self.sender.response.result(LONG_S).error
        return found.message, found.code


class Error(SimpleNamespace):
    """`TritonError`."""

    CANCELLED, INVALID_ARG, INTERNAL = "CANCELLED", "INVALID_ARG", "INTERNAL"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message=message, code=code)


class Runs:
    """Stands in for inference: the mean of an image, once that value may end. A mean of 255 is no result."""

    def __init__(self) -> None:
        self._gates: dict[int, threading.Event] = {}
        self._lock = threading.Lock()

    def gate(self, value: int) -> threading.Event:
        with self._lock:
            return self._gates.setdefault(value, threading.Event())

    def open(self, *values: int) -> None:
        for value in values:
            self.gate(value).set()

    def __call__(self, item: Any, *, alone: bool) -> Sequence[NDArray[np.float32]]:
        (image,) = item.inputs
        value = int(image.mean())
        assert self.gate(value).wait(LONG_S)
        if value == 255:
            raise RuntimeError("no result")
        return [np.array([value], np.float32)]


class Planner:
    """Stands in for the compiler."""

    def __init__(self, *_: Any) -> None:
        pass

    def plan(self, shape: tuple[int, ...]) -> Any:
        return SimpleNamespace(outputs={"scores": 0})

    def spread(self, plan: Any, shape: tuple[int, ...]) -> Any:
        return plan


@pytest.fixture(name="backend")
def loaded(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`model.py`, as Triton loads it."""
    triton = ModuleType("triton_python_backend_utils")
    vars(triton).update(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        TritonError=Error,
        InferenceResponse=lambda output_tensors, error=None: SimpleNamespace(
            output_tensors=output_tensors, error=error
        ),
        Logger=SimpleNamespace(log_error=lambda text: None, log_info=lambda text: None),
        get_input_tensor_by_name=lambda request, name: request.images,
    )
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    spec = importlib.util.spec_from_file_location("openvino_model", BACKENDS / "openvino" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "Compiler", Planner)
    monkeypatch.setattr(module, "to_tensor", lambda name, array: array)
    return module


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def model(backend: ModuleType, runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A model of images of 2 × 2 px, on two streams: OpenVINO has three items at the same time."""
    monkeypatch.setattr(backend, "run", runs)
    monkeypatch.setattr(backend, "_NICENESS", 0)  # for the thread that runs the tests, there is no way back
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").touch()
    instance = backend.TritonPythonModel()
    monkeypatch.setattr(instance, "_count", lambda event: None)
    instance.initialize(
        {
            "model_name": "means",
            "model_version": "1",
            "model_repository": str(tmp_path),
            "model_config": json.dumps(config([-1, -1, 3], {"shapes": "2x2", "threads": "2"})),
        }
    )
    yield instance
    runs.open(*range(256))
    instance.finalize()


def request(*values: int, size: int = 2) -> Request:
    """A batch of images, each of one value."""
    return Request(np.stack([np.full((size, size, 3), value, np.uint8) for value in values]))


def test_a_request_is_answered_while_its_neighbour_is_still_at_work(model: Any, runs: Runs) -> None:
    slow, quick = request(1), request(2)
    model.execute([slow, quick])
    runs.open(2)
    assert quick.means == [2]
    assert not slow.sender.response.done()
    runs.open(1)
    assert slow.means == [1]


def test_the_next_requests_are_taken_while_the_last_ones_are_at_work(model: Any, runs: Runs) -> None:
    first, second, third = request(1), request(2), request(3)
    model.execute([first, second])
    runs.open(2)
    assert second.means == [2]
    model.execute([third])
    runs.open(3)
    assert third.means == [3]
    assert not first.sender.response.done()
    runs.open(1)
    assert first.means == [1]


def test_the_items_of_a_request_are_one_answer_in_their_order(model: Any, runs: Runs) -> None:
    batch = request(5, 4, 3)
    runs.open(3, 4)
    model.execute([batch])
    assert not batch.sender.response.done()
    runs.open(5)
    assert batch.means == [5, 4, 3]


def test_every_request_gets_one_answer_whatever_becomes_of_its_neighbours(model: Any, runs: Runs) -> None:
    good, half, late = request(7), request(8, 255), request(9)
    strange, unreadable, empty = request(1, size=3), Request(None), Request(np.zeros((0, 2, 2, 3), np.uint8))
    late.cancelled = True
    runs.open(7, 8, 9, 255)
    model.execute([strange, half, unreadable, late, empty, good])
    assert good.means == [7]
    assert half.error == ("inference failed", "INTERNAL")
    assert unreadable.error == ("inference failed", "INTERNAL")
    assert late.error == ("the request was cancelled", "CANCELLED")
    assert empty.error == ("the batch is empty", "INVALID_ARG")
    assert strange.error == ("means takes no images [3, 3, 3]: its shapes are 2x2", "INVALID_ARG")


def test_an_answer_that_cannot_be_sent_ends_no_thread(
    model: Any, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.open(1, 2, 3, 4)
    lost = request(1), request(2), request(3)
    for one in lost:
        one.sender.response.set_result("the caller has gone")  # a second answer raises
    model.execute([lost[0]])
    model.execute(lost[1:])
    after = request(4)
    model.execute([after])
    assert after.means == [4]


def test_a_result_that_cannot_be_handed_over_is_answered_with_an_error(
    backend: ModuleType, model: Any, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(name: str, array: Any) -> Any:
        raise RuntimeError("DLPack has no such type")

    runs.open(1, 2, 3)
    monkeypatch.setattr(backend, "to_tensor", strange)
    alone, *others = request(1), request(2), request(3)
    model.execute([alone])
    model.execute(others)
    for one in (alone, *others):
        assert one.error == ("inference failed", "INTERNAL")


def test_the_end_of_the_model_waits_for_its_answers(model: Any, runs: Runs) -> None:
    last = request(1), request(2)
    model.execute(last)
    ending = threading.Thread(target=model.finalize)
    ending.start()
    runs.open(1, 2)
    ending.join(LONG_S)
    assert not ending.is_alive()
    assert all(one.sender.response.done() for one in last)
