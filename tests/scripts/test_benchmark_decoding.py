"""What decoding leaves of the bare model's speed."""

from pathlib import Path

import pytest

from scripts.benchmark_decoding import decode_images, frame_cpu_s, most_of_bare
from service.core.model import Model
from service.media.image import encode
from tests.pictures import plain

CLIP = Path(__file__).parent.parent / "data" / "single_person.mp4"
MODEL = Model("m", "1", family="yolo_pose", skeleton="", keypoint_count=17, shapes_hw=((64, 64), (48, 64)))


@pytest.mark.parametrize(
    ("bare_per_second", "decoding_s", "cpus", "share"),
    [(100.0, 0.0, 2, 1.0), (100.0, 0.02, 2, 0.5), (100.0, 0.01, 1, 0.5), (50.0, 0.01, 2, 0.8)],
    ids=["free", "as long as the model on two CPUs", "one after another", "a quarter of the model"],
)
def test_decoding_takes_its_part_of_the_cpus(
    bare_per_second: float, decoding_s: float, cpus: int, share: float
) -> None:
    assert most_of_bare(bare_per_second, decoding_s, cpus) == pytest.approx(share)


def test_images_are_decoded_for_as_long_as_asked() -> None:
    latencies, wall_s = decode_images(encode(plain((640, 480)), "jpeg"), MODEL, 0.05)
    assert wall_s >= 0.05
    assert 0 < sum(latencies) <= wall_s


def test_a_frame_costs_time() -> None:
    assert frame_cpu_s(CLIP.read_bytes(), MODEL) > 0
