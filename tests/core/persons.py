"""People made up for tests."""

from itertools import pairwise

import numpy as np

from service.core.poses import Poses, extents
from service.core.skeleton.template import Edge, Keypoint, Skeleton

ODD_NAMES = (
    "nose", '=HYPERLINK("http://x")', "+1", "-1", "@a", "a,b", 'quo"te', "tab less", "肩", "👁", "'apostrophe",
    "back\\slash", "<script>", "a: b", "# no comment", "{x}", "- item", "null", "＝wide", "x\u00a0y",
    "\ufeffbom",
)  # fmt: skip
ODD = Skeleton(
    name='odd: "names", #1',
    title="",
    keypoints=tuple(Keypoint(name) for name in ODD_NAMES),
    edges=(Edge("nose", "肩"), Edge("+1", "-1", drawing_only=True)),
    flip_pairs=(("a,b", 'quo"te'),),
)


def big_skeleton(count: int = 1000) -> Skeleton:
    """As many points as are allowed, in a chain."""
    names = [f"p{index}" for index in range(count)]
    return Skeleton(
        name="big",
        title="Big",
        keypoints=tuple(Keypoint(name, sigma=0.05) for name in names),
        edges=tuple(Edge(a, b) for a, b in pairwise(names)),
        flip_pairs=tuple(zip(names[: count // 2], names[count // 2 :], strict=False)),
    )


def random_people(
    count: int, skeleton: Skeleton, *, seed: int = 0, size: float = 600.0, positions: bool = False
) -> Poses:
    """People all of whose points are there and inside a square picture."""
    rng = np.random.default_rng(seed)
    shape = (count, len(skeleton.keypoints), 3)
    keypoints = rng.uniform(size * 0.05, size * 0.95, shape).astype(np.float32)
    keypoints[..., 2] = rng.uniform(0.01, 1, shape[:2])
    return Poses(
        boxes_xyxy=extents(keypoints),
        scores=np.linspace(0.9, 0.3, count).astype(np.float32),
        keypoints=keypoints,
        positions=rng.normal(size=shape).astype(np.float32) if positions else None,
        depth_source="measured" if positions else "none",
    )
