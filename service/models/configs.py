"""Checks every config.pbtxt of a model repository against the tensor contract and the serving rules.

python -m service.models.configs model_repository
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.skeletons import known
from service.triton.model_config import parse_config, read_config

_PARAMETERS = ("family", "skeleton", "weights", "licence", "source", "sha256", "precision")


def problems(path: Path) -> Iterator[str]:
    """Problems of one config.pbtxt, a sentence each."""
    try:
        config = parse_config(path.read_text(encoding="utf-8"))
    except ValueError as error:
        yield f"is not a ModelConfig: {error}"
        return
    if config.name != path.parent.name:
        yield f"names the model '{config.name}', its folder '{path.parent.name}'"
    given = {name: value.string_value for name, value in config.parameters.items()}
    missing = [name for name in _PARAMETERS if not given.get(name)]
    if missing:
        yield f"lacks the parameters {', '.join(missing)}"
    try:
        model = read_config(config, "1")
    except ValueError as error:
        yield str(error)
        return
    if model is None:
        return
    skeleton = known(path.parents[2] / "skeletons").get(model.skeleton)
    if skeleton is None:
        yield f"names skeleton '{model.skeleton}', which neither ships nor lies in skeletons/"
    elif len(skeleton.keypoints) != model.keypoint_count:
        count = len(skeleton.keypoints)
        yield f"gives {model.keypoint_count} keypoints, skeleton '{skeleton.name}' has {count}"
    if model.family == "yolo_pose":
        for height, width in model.shapes_hw:
            if height % 32 or width % 32:
                yield f"allows {height}x{width}, which is not a multiple of 32"
    yield from _queue_problems(config)


def _queue_problems(config: Any) -> Iterator[str]:
    """A queue without a bound grows until memory ends; one that delays answers the wrong callers first.

    On a CPU, Triton has one gateway, which bounds what waits there; see `service.models.repository.QUEUE`.
    """
    if config.platform != "tensorrt_plan" and config.backend != "tensorrt":
        return
    policy = config.dynamic_batching.default_queue_policy
    if policy.max_queue_size < 1:
        yield "has a queue without a bound: set max_queue_size"
    if policy.timeout_action != policy.REJECT:
        yield "does not REJECT what waited too long"
    if config.dynamic_batching.preferred_batch_size:
        yield "prefers batch sizes, which Triton advises against for a single optimisation profile"


def main(root: Path) -> int:
    """Check every config.pbtxt below `root`; 1 if any has a problem."""
    paths = sorted(root.glob("*/*/config.pbtxt"))
    found = [f"{path}: {problem}" for path in paths for problem in problems(path)]
    print("\n".join(found) if found else f"{len(paths)} model configurations keep the contract")
    return 1 if found or not paths else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
