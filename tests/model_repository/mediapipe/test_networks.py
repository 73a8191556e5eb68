"""The files are what they should be, or nothing starts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from service.models.mediapipe import FILES
from tests.model_repository.mediapipe.holistic import WEIGHTS
from wholebody.networks import CONTRACTS, Networks, WeightsError, verify

DIGESTS: Mapping[str, str] = {name: member.sha256 for name, member in FILES.items()}


def test_the_files_that_set_up_brings_are_those_the_networks_need() -> None:
    assert {contract.file for contract in CONTRACTS.values()} == set(FILES)
    verify(WEIGHTS, DIGESTS)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    (tmp_path / "weights" / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} cannot be read: No such file"):
        verify(tmp_path / "weights", DIGESTS)


def test_a_file_with_one_bit_changed_is_named(tmp_path: Path) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    file = tmp_path / "weights" / "face_landmark.tflite"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"face_landmark\.tflite is altered"):
        verify(tmp_path / "weights", DIGESTS)


def test_a_file_without_a_digest_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"no sha256 is given for hand_recrop\.tflite"):
        verify(WEIGHTS, {name: digest for name, digest in DIGESTS.items() if name != "hand_recrop.tflite"})


def test_pixels_are_0_to_1_for_landmarks_and_minus_1_to_1_for_detectors(networks: Networks) -> None:
    black, white = np.zeros((256, 256, 3), np.uint8), np.full((256, 256, 3), 255, np.uint8)
    for picture, expected in ((black, 0), (white, 1)):
        networks.pose(picture)
        assert np.allclose(networks.pose._input, expected)
        networks.face_detector(picture[:128, :128])
        assert np.allclose(networks.face_detector._input, 2 * expected - 1)


def test_the_networks_compute_in_float32(networks: Networks) -> None:
    for name in CONTRACTS:
        compiled = getattr(networks, name)._request.get_compiled_model()
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
