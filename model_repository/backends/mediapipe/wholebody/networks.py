"""MediaPipe's tflite files: verified, compiled by OpenVINO in float32, and asked one square at a time.

Everything runs in float32: OpenVINO would choose bfloat16 by itself on processors that have it, and that
moves world landmarks of the pose network by up to half a metre.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager

from wholebody.landmarks import FACE_SIZE, HAND_SIZE, POSE_SIZE

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class WeightsError(Exception):
    """A tflite file is missing, or is not the one it should be; the text names it."""


@dataclass(frozen=True)
class Contract:
    """How one network is asked.

    Attributes:
        file: its file name.
        size: side of its square input in px, (1, size, size, 3) float32.
        signed: pixels go to -1..1 rather than 0..1.
        outputs: names of the outputs that are wanted; what only the others need is not computed.
        in_part: whether the file has operations that OpenVINO does not know. What is wanted needs none of
            them.
    """

    file: str
    size: int
    outputs: tuple[str, ...]
    signed: bool = False
    in_part: bool = False


CONTRACTS: Mapping[str, Contract] = {
    # 39 landmarks, pose flag, heat maps, world landmarks; without the segmentation, a third of the work
    "pose": Contract(
        "pose_landmark_full.tflite", POSE_SIZE, ("Identity", "Identity_1", "Identity_3", "Identity_4")
    ),
    # 21 landmarks, hand flag, world landmarks; without the handedness
    "hand": Contract("hand_landmark_full.tflite", HAND_SIZE, ("Identity", "Identity_1", "Identity_3")),
    "palm_detector": Contract("palm_detection_full.tflite", 192, ("Identity", "Identity_1")),
    "hand_recrop": Contract("hand_recrop.tflite", 256, ("output_crop",)),
    "face": Contract("face_landmark.tflite", FACE_SIZE, ("conv2d_21", "conv2d_31")),
    # without the refinement of lips, eyes and irises
    "attention_face": Contract(
        "face_landmark_with_attention.tflite",
        FACE_SIZE,
        ("output_mesh_identity", "conv_faceflag"),
        in_part=True,
    ),
    "face_detector": Contract(
        "face_detection_short_range.tflite", 128, ("regressors", "classificators"), signed=True
    ),
    "pose_detector": Contract("pose_detection.tflite", 224, ("Identity", "Identity_1"), signed=True),
}


def verify(folder: Path, digests: Mapping[str, str]) -> None:
    """Check that every file the networks need is there, and is the one that `digests` (sha256, hex) names.

    Raises:
        WeightsError: a file is missing, altered, or has no digest to be held against.
    """
    for contract in CONTRACTS.values():
        path = folder / contract.file
        expected = digests.get(contract.file)
        if expected is None:
            raise WeightsError(f"no sha256 is given for {contract.file}")
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise WeightsError(f"{contract.file} cannot be read: {error.strerror}") from error
        if found != expected:
            raise WeightsError(f"{contract.file} is altered: its sha256 is {found}, expected {expected}")


class Network:
    """One request to a compiled network; one thread at a time may ask it."""

    def __init__(self, compiled: ov.CompiledModel, contract: Contract) -> None:
        self._request = compiled.create_infer_request()
        self._input = self._request.get_input_tensor().data[0]
        self._outputs = [self._request.get_tensor(compiled.output(name)) for name in contract.outputs]
        self._scale = np.float32(1 / 127.5 if contract.signed else 1 / 255)
        self._signed = contract.signed
        self.size = contract.size

    def __call__(self, square: Bytes) -> list[Floats]:
        """The wanted outputs for (size, size, 3) uint8 RGB; valid until the next call."""
        np.multiply(square, self._scale, out=self._input)
        if self._signed:
            np.subtract(self._input, np.float32(1), out=self._input)
        self._request.infer()
        return [tensor.data for tensor in self._outputs]


@dataclass(frozen=True, eq=False)
class Networks:
    """One of each network, for one thread."""

    pose: Network
    hand: Network
    palm_detector: Network
    hand_recrop: Network
    face: Network
    attention_face: Network
    face_detector: Network
    pose_detector: Network


@dataclass(frozen=True, eq=False)
class Compiled:
    """Every network, ready.

    Attributes:
        sets: one for each core. The pose detector in them, which is the exception, uses all cores.
        wide_pose: a pose network that uses all cores, for a person who is alone.
    """

    sets: tuple[Networks, ...]
    wide_pose: Network


def compile_networks(folder: Path, threads: int) -> Compiled:
    """Compile the tflite files in `folder` for `threads` cores.

    A network of its own on every core gets more done than one on all of them: the pose network takes 7.7 ms
    on one core and 4.4 ms on two. Memory, 60 MB for a second pose network, is why only that one is there in
    both ways.
    """
    core = ov.Core()

    def compiled(name: str, streams: int) -> ov.CompiledModel:
        contract = CONTRACTS[name]
        model = (read_in_part if contract.in_part else core.read_model)(folder / contract.file)
        results = [model.output(output).get_node() for output in contract.outputs]
        config: dict[str, str | int] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": "NO",  # the machine is shared with other processes
        }
        return core.compile_model(ov.Model(results, model.get_parameters(), name), "CPU", config)

    streams = {name: 1 if name == "pose_detector" else threads for name in CONTRACTS}
    with compile_cache(core):
        models = {name: compiled(name, streams[name]) for name in CONTRACTS}
        wide = compiled("pose", 1) if threads > 1 else None
    sets = tuple(
        Networks(**{name: Network(model, CONTRACTS[name]) for name, model in models.items()})
        for _ in range(threads)
    )
    return Compiled(sets, sets[0].pose if wide is None else Network(wide, CONTRACTS["pose"]))


def read_in_part(file: Path) -> ov.Model:
    """A tflite file with operations that OpenVINO does not know: they become placeholders that cannot be
    compiled, and have to be cut away with the outputs that need them."""
    frontend = FrontEndManager().load_by_framework("tflite")
    return frontend.convert_partially(frontend.load(str(file)))


@contextmanager
def compile_cache(core: ov.Core) -> Iterator[None]:
    """Keep compiled networks in POSEGATE_CACHE_DIR, where it is set: a restart reads them in a fraction of
    the time.

    In a folder of their own, so that the networks do not wait for the shapes of another model; one process
    at a time, because of two that compile the same graph at once OpenVINO lets one fail.
    """
    folder = os.environ.get("POSEGATE_CACHE_DIR")
    if not folder:
        yield
        return
    own = Path(folder) / "mediapipe"
    own.mkdir(parents=True, exist_ok=True)
    with (own / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        core.set_property({"CACHE_DIR": str(own)})
        yield
