"""Sets of annotated keypoints: COCO, COCO-WholeBody, CrowdPose, OCHuman, all in COCO's JSON layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from service.skeletons import shipped

Layout = Literal["coco", "coco_wholebody", "crowdpose"]

WHOLE_BODY_KEYS = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
"""Fields of an annotation whose points in a row are `coco_wholebody_133`
(github.com/jin-s13/COCO-WholeBody, data_format.md)."""

BODY, FEET, FACE, HANDS = range(17), range(17, 23), range(23, 91), range(91, 133)

CROWDPOSE = (
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
)  # fmt: skip
"""Keypoints of CrowdPose in order; `head` and `neck` are in no COCO skeleton."""

CROWDPOSE_SIGMAS = (
    0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079,
)  # fmt: skip
"""github.com/Jeff-sjtu/CrowdPose, crowdpose-api, `kpt_oks_sigmas`."""

CROWDPOSE_AREA = 0.53
"""Area of a person by that of the box, where annotations have none; as crowdpose-api computes it."""


class DatasetError(ValueError):
    """The file holds no annotated keypoints that can be evaluated; the text says why."""


@dataclass(frozen=True)
class Image:
    """An annotated image: its number in the set, and its file."""

    id: int
    file_name: str


@dataclass(frozen=True)
class Part:
    """Keypoints that are judged together.

    Attributes:
        name: `body`, `feet`, `face`, `hands` or `all`.
        indices: positions in the skeleton of the set.
        sigmas: OKS sigma of each.
    """

    name: str
    indices: tuple[int, ...]
    sigmas: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A set of annotations.

    Attributes:
        layout: of the file.
        images: in the order of the file.
        annotations: of persons, as pycocotools reads them; `keypoints` holds all K points of the set.
        category: the number of the category person.
        names: of the K keypoints.
        skeleton: template that a service is asked for.
        sigmas: of the K keypoints.
        places: where each of the K keypoints is in what the service answers; −1 where it is not.
    """

    layout: Layout
    images: tuple[Image, ...]
    annotations: tuple[Mapping[str, Any], ...]
    category: int
    names: tuple[str, ...]
    skeleton: str
    sigmas: tuple[float, ...]
    places: tuple[int, ...] = ()

    def supplied_by(self, names: Sequence[str]) -> Dataset:
        """The set with `places` for a service that answers with these keypoints, in this order."""
        order = {name: index for index, name in enumerate(names)}
        return replace(self, places=tuple(order.get(name, -1) for name in self.names))

    def parts(self, supplied: Sequence[str]) -> list[Part]:
        """What is judged, of a model that supplies these keypoints; for whole-body sets by part."""
        whole = [index for index, name in enumerate(self.names) if name in set(supplied)]
        if self.layout != "coco_wholebody":
            return [self._part("body", whole)]
        ranges = {"body": BODY, "feet": FEET, "face": FACE, "hands": HANDS}
        parts = [
            self._part(name, list(indices)) for name, indices in ranges.items() if set(indices) <= set(whole)
        ]
        return [*parts, self._part("all", whole)] if len(whole) == len(self.names) else parts

    def _part(self, name: str, indices: Sequence[int]) -> Part:
        return Part(name, tuple(indices), tuple(self.sigmas[index] for index in indices))


def read_dataset(path: Path, *, limit: int | None = None) -> Dataset:
    """Read an annotation file.

    Args:
        path: JSON in COCO's layout.
        limit: the first so many images; None for all.

    Raises:
        DatasetError: it is no such file.
        OSError: it cannot be read.
    """
    try:
        data = json.loads(path.read_bytes())
        layout, category = _layout(data)
        images = tuple(Image(int(one["id"]), str(one["file_name"])) for one in data["images"])[:limit]
        if len({image.id for image in images}) != len(images):
            raise DatasetError(f"{path}: two images have the same id")
        chosen = {image.id for image in images}
        annotations = tuple(
            _annotation(one, layout)
            for one in data["annotations"]
            if one["image_id"] in chosen and one.get("category_id", category) == category
        )
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DatasetError(
            f"{path} holds no keypoints in COCO's layout (images, annotations, categories): {error!r}"
        ) from error
    if not images:
        raise DatasetError(f"{path} holds no images")
    if layout == "crowdpose":
        return Dataset(layout, images, annotations, category, CROWDPOSE, "coco_17", CROWDPOSE_SIGMAS)
    template = shipped()["coco_wholebody_133" if layout == "coco_wholebody" else "coco_17"]
    count = len(template.names)
    if any(len(one["keypoints"]) != 3 * count for one in annotations):
        raise DatasetError(f"{path}: an annotation has not the {count} keypoints of {template.name}")
    return Dataset(
        layout, images, annotations, category, template.names, template.name, template.sigmas or ()
    )


def _layout(data: Mapping[str, Any]) -> tuple[Layout, int]:
    person = next((one for one in data["categories"] if one.get("keypoints")), None)
    if person is None:
        raise DatasetError("no category has keypoints")
    category = int(person["id"])
    if any("face_kpts" in one for one in data["annotations"]):
        return "coco_wholebody", category
    if len(person["keypoints"]) == len(CROWDPOSE):
        return "crowdpose", category
    if tuple(person["keypoints"]) != shipped()["coco_17"].names:
        raise DatasetError(
            f"its category has {len(person['keypoints'])} keypoints, which are neither COCO's 17 nor "
            "CrowdPose's 14"
        )
    return "coco", category


def _annotation(raw: Mapping[str, Any], layout: Layout) -> Mapping[str, Any]:
    """An annotation with everything that pycocotools reads."""
    keys = WHOLE_BODY_KEYS if layout == "coco_wholebody" else WHOLE_BODY_KEYS[:1]
    keypoints = [float(value) for key in keys for value in raw[key]]
    _, _, width, height = raw["bbox"]
    return {
        "id": raw["id"],
        "image_id": raw["image_id"],
        "category_id": raw.get("category_id", 1),
        "bbox": list(raw["bbox"]),
        "area": raw.get("area", width * height * CROWDPOSE_AREA),
        "iscrowd": raw.get("iscrowd", 0),
        "keypoints": keypoints,
        "num_keypoints": sum(value > 0 for value in keypoints[2::3]),
    }
