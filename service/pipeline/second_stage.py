"""Tensors of top-down models from and to the persons of an image. Pure; for worker threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.core.geometry import Affine, Rgb8
from service.core.model import Model
from service.core.poses import Poses
from service.core.topdown import (
    bodies_in_crops,
    crop_people,
    frame_persons,
    in_frame,
    lift,
    poses_from_crops,
)


def second_inputs(
    model: Model, image: Rgb8, persons: Poses, chunk: slice
) -> tuple[dict[str, NDArray[Any]], list[Affine]]:
    """Tensors of a top-down model for some of an image's persons, and the maps from image px to theirs."""
    some = persons.select(chunk)
    if model.takes_image:
        part, affine = frame_persons(image, some.boxes_xyxy)
        others = np.delete(persons.keypoints, chunk, axis=0)
        boxes, bodies = in_frame(affine, some.boxes_xyxy, np.concatenate([some.keypoints, others]))
        return {"image": part[None], "boxes": boxes[None], "bodies": bodies[None]}, [affine] * len(some)
    crops, affines = crop_people(image, some.boxes_xyxy, model.shapes_hw[0])
    inputs: dict[str, NDArray[Any]] = {"crops": crops}
    if model.takes_body:
        inputs["body"] = bodies_in_crops(some.keypoints, affines)
    return inputs, affines


def assemble(
    persons: Poses,
    affines: Sequence[Affine],
    outputs: Mapping[str, NDArray[Any]],
    keypoint_names: tuple[str, ...],
) -> Poses:
    """The persons with the keypoints that a top-down model gave, in px of the image; lifted to 3D where its
    positions are relative."""
    poses = poses_from_crops(persons, affines, outputs["keypoints"], outputs["scores"], outputs["positions"])
    if poses.depth_source != "lifted" or poses.positions is None:
        return poses
    return replace(poses, positions=lift(poses.keypoints, poses.positions, keypoint_names))


def join(parts: Sequence[Poses], keypoint_count: int) -> Poses:
    """Concatenate the persons of several batches; positions stay when any batch has them."""
    if not parts:
        return Poses.empty(keypoint_count)
    sources = [part.depth_source for part in parts if part.positions is not None]
    positions = None
    if sources:
        positions = np.concatenate(
            [
                np.full(part.keypoints.shape, np.nan, np.float32)
                if part.positions is None
                else part.positions
                for part in parts
            ]
        )
    return Poses(
        boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        keypoints=np.concatenate([part.keypoints for part in parts]),
        positions=positions,
        depth_source=sources[0] if sources else "none",
    )
