"""Ultralytics is measured in an environment of its own, which here holds stand-ins for it and for torch."""

import sys
from pathlib import Path

import pytest

from scripts.benchmark_peers import Ultralytics
from service.media.image import encode
from tests.pictures import plain

TORCH = '__version__ = "1"\ndef set_num_threads(count): assert count >= 1\n'
ULTRALYTICS = """
import time
__version__ = "8"
class YOLO:
    def __init__(self, weights): print("says something on stdout")
    def predict(self, image, verbose):
        assert image.shape == (48, 64, 3)
        time.sleep(0.01)
"""


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "torch.py").write_text(TORCH, encoding="utf-8")
    (tmp_path / "ultralytics.py").write_text(ULTRALYTICS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "torch.py"


def test_latencies_come_back_for_every_image(weights: Path) -> None:
    peer = Ultralytics(Path(sys.executable), weights)
    assert peer.version == "Ultralytics 8, torch 1"
    content = encode(plain((64, 48)), "jpeg")
    for _ in range(2):
        latencies, wall_s = peer.loop(content, 0.1)
        assert all(0.01 <= one < 10 for one in latencies)
        assert wall_s == pytest.approx(sum(latencies))
    peer.close()


def test_an_environment_without_it_says_so(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "ultralytics.py").write_text("raise ImportError('not here')", encoding="utf-8")
    with pytest.raises(SystemExit, match="installed"):
        Ultralytics(Path(sys.executable), weights)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"absent\.pt is missing"):
        Ultralytics(Path(sys.executable), tmp_path / "absent.pt")
