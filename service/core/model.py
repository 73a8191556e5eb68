"""A model that Triton serves, as described by its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.core.skeleton.template import Skeleton

Family = Literal["yolo_pose", "top_down", ""]
"""Tensor contract of a model; empty where it is unknown, because Triton has not loaded the model."""

BODY_KEYPOINTS = 17
"""Keypoints of a first stage that gives its own to the second: those of COCO."""


@dataclass(frozen=True)
class Model:
    """One version of a served model, as its configuration describes it.

    Attributes:
        name: Triton's name of the model.
        version: Triton's version of it.
        family: which tensor contract it keeps; empty for a model that Triton has not loaded, of which
            nothing but the name is known.
        skeleton: name of its native skeleton.
        keypoint_count: K of its output.
        shapes_hw: the inputs it allows, (height, width) in px; of a model that takes the image, the size up
            to which it goes through shared memory.
        prepared_hw: those of them that are ready when the model is loaded; empty for all of them.
        max_batch_size: images, crops or persons in one request at most; at least 1.
        precision: arithmetic it runs in, as its configuration says.
        licence: SPDX name of the licence of its weights.
        weights: what the weights are.
        source: where the weights come from.
        sha256: digest of the checkpoint, hexadecimal.
        description: what it needs and does not give, for people.
        ready: whether Triton would answer a request for it now.
        first_stage: of a top-down model, the name of the model that finds the persons; else empty.
        takes_body: whether a top-down model also takes the first stage's keypoints.
        tenant: the only one who may use it; empty for everyone.
        takes_image: whether a top-down model takes the image with the boxes of its persons, rather than a
            crop of each.
        candidate_count: rows of `candidates`; 0 for a top-down model.
    """

    name: str
    version: str
    family: Family
    skeleton: str
    keypoint_count: int
    shapes_hw: tuple[tuple[int, int], ...]
    max_batch_size: int = 1
    precision: str = ""
    licence: str = ""
    weights: str = ""
    source: str = ""
    sha256: str = ""
    ready: bool = False
    first_stage: str = ""
    takes_body: bool = False
    tenant: str = ""
    prepared_hw: tuple[tuple[int, int], ...] = ()
    takes_image: bool = False
    description: str = ""
    candidate_count: int = 0

    @property
    def candidates_bytes(self) -> int:
        """Size of `candidates` for one image: float32 rows of box, score and keypoints."""
        return self.candidate_count * (5 + 3 * self.keypoint_count) * 4

    @property
    def typical_hw(self) -> tuple[tuple[int, int], ...]:
        """The inputs of most images: for warm-up, comparison and optimisation profiles."""
        return self.prepared_hw or self.shapes_hw

    @property
    def other_hw(self) -> tuple[tuple[int, int], ...]:
        """The allowed inputs that are not typical."""
        return tuple(shape for shape in self.shapes_hw if shape not in self.typical_hw)


@dataclass(frozen=True)
class PoseModel:
    """A served model together with everything that its inference needs.

    Attributes:
        model: answers the request.
        detector: finds the persons for a model of family `top_down`; None for a model that finds them itself.
        skeleton: native skeleton of `model`.
    """

    model: Model
    detector: Model | None
    skeleton: Skeleton

    @property
    def first(self) -> Model:
        """The model of the first inference, which takes the whole image."""
        return self.detector or self.model
