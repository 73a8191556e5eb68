"""The chain for one person of an image: pose, then hands and face from where the bodies have them.

The networks and their squares are those of MediaPipe Holistic for still images
(`mediapipe/modules/holistic_landmark`, Apache-2.0). What differs: the pose's square comes from a first
stage's body keypoints where those are good enough; the pose that is found has to agree with that body; and
hands and faces get further looks (`hands`, `faces`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wholebody import association, landmarks, rois, ssd
from wholebody.faces import Face, Head, find_face
from wholebody.fusion import AGREE, ARMS, Body, from_first_stage, fuse, reconcile, with_arm, with_wrist
from wholebody.hands import MIN_FLAG as MIN_HAND_FLAG
from wholebody.hands import Arm, Hand, find_hand
from wholebody.keypoints import BLAZEPOSE_COUNT, BODY_FROM_BLAZEPOSE
from wholebody.networks import Network, Networks
from wholebody.rois import Roi

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MIN_FLAG = 0.5
"""From which probability on a pose counts as there (`tensors_to_pose_landmarks_and_segmentation.pbtxt`)."""

MIN_WRIST_VISIBILITY = 0.1
"""Below it Holistic looks for no hand (`hand_landmarks_left_and_right_cpu`)."""

WRIST_APART, MIN_LONE_VISIBILITY = 0.5, 0.8
"""A wrist that the first stage has so far away from the pose, in lengths of the torso, or not at all, has
to be so visible before Holistic's look is taken: at wrongly placed wrists, bare skin and folds pass for
hands."""

BOX_MARGIN = 1.25
"""How much of the surroundings of a person's box the pose detector sees."""

HAND_FROM_POSE = ((15, 17, 19), (16, 18, 20))
"""BlazePose's wrist, little and index finger of the left and the right hand."""

SAME_HAND = 0.3
"""Two hands whose points are nearer, in extents of the larger, are one."""

POSE_ANCHORS = ssd.anchors(224, (8, 16, 32, 32, 32))


@dataclass(frozen=True, eq=False)
class Subject:
    """One person to look at.

    Attributes:
        image: (h, w, 3) uint8 RGB; the whole of it.
        box: (4,) the person's by the first stage: x1, y1, x2, y2, px.
        body: (17, 3) the first stage's keypoints, px and score; may be NaN.
        others: (M, 17, 3) the same of the other persons in the image.
    """

    image: Bytes
    box: Floats
    body: Floats
    others: Floats

    @property
    def box_side(self) -> float:
        """Longer side of the box in px."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))

    @property
    def unit(self) -> float:
        """The person's unit of length in px; see `association`."""
        return association.unit_of(self.body, self.box_side)


@dataclass(frozen=True, eq=False)
class Pose:
    """BlazePose's 33 points: (33, 2) px of the image, (33,) visibility, (33, 3) metres, upright."""

    points: Floats
    visibility: Floats
    world: Floats

    @property
    def body(self) -> Floats:
        """(17, 2) COCO keypoints, px."""
        return np.asarray(self.points[BODY_FROM_BLAZEPOSE])


@dataclass(frozen=True, eq=False)
class Parts:
    """What was found of one person. A part that is None was not seen."""

    body: Body
    pose: Pose | None = None
    left_hand: Hand | None = None
    right_hand: Hand | None = None
    face: Face | None = None


def detect_pose_square(image: Bytes, detector: Network, region: Roi | None = None) -> Roi | None:
    """The pose detector's square for the most prominent person in a region, or the whole of an image."""
    around = region or _whole(image)
    return None if not around.usable else _detect(_cut_black(image, around, detector.size), around, detector)


def find_pose(image: Bytes, square: Roi, network: Network) -> Pose | None:
    """The body in a square, None when the network sees no person in it."""
    return _pose(rois.cut_out(image, square, network.size), square, network) if square.usable else None


def find_own_pose(person: Subject, network: Network, networks: Networks) -> Pose | None:
    """The person's own pose: one that agrees with the first stage's body, or None.

    Where the first answer is another person's, or not close, the neighbours are hidden, and then the square
    is drawn tighter; the answer that agrees best counts.

    Args:
        person: whose.
        network: the pose network to ask.
        networks: the others.
    """
    best: Pose | None = None
    least = np.inf
    for square, cut in _pose_squares(person, network, networks):
        pose = _pose(cut, square, network)
        if pose is None or association.is_anothers(pose.body, person.body, person.others, person.unit):
            continue
        agreement = association.compare(pose.body, person.body, person.unit)
        if agreement.common < association.MIN_COMMON:
            if _lies_in_box(pose, person):
                return pose
            continue
        if agreement.close:
            return pose
        if agreement.same and agreement.apart < least:
            best, least = pose, agreement.apart
    return best


def body_of(person: Subject, pose: Pose | None) -> Body:
    """The body in 2D and 3D, before anything is known of the hands."""
    if pose is None:
        return from_first_stage(person.body)
    return fuse(
        person.body,
        pose.body,
        pose.visibility[BODY_FROM_BLAZEPOSE],
        pose.world[BODY_FROM_BLAZEPOSE],
        person.unit,
        association.on_limbs(pose.body, person.others),
    )


def find_side_hand(
    person: Subject, pose: Pose | None, body: Body, side: int, networks: Networks
) -> Hand | None:
    """The left (0) or right (1) hand."""
    arm = _arm(person, pose, body, side)
    return None if arm is None else find_hand(person.image, arm, networks)


def find_own_face(person: Subject, pose: Pose | None, networks: Networks) -> Face | None:
    """The person's face."""
    head = Head(None if pose is None else pose.points[:11], person.body[:5], person.unit, person.others)
    return find_face(person.image, head, networks)


def put_together(
    person: Subject, pose: Pose | None, body: Body, left: Hand | None, right: Hand | None, face: Face | None
) -> Parts:
    """All parts of one person: no hand twice, arms where the hands are, 3D where 2D is."""
    left, right = _one_each(left, right, body)
    for side, hand in enumerate((left, right)):
        if hand is not None and hand.score > MIN_HAND_FLAG:
            if pose is not None:
                body = _arm_of_hand(body, pose, side, hand, person.unit)
            body = with_wrist(body, side, hand.points[0], hand.score, person.unit)
    if pose is not None:
        body = reconcile(body, pose.body)
    return Parts(body, pose, left, right, face)


def find_parts(person: Subject, networks: Networks) -> Parts:
    """Everything of one person, one network after the other; `networks` are asked by this thread only."""
    pose = find_own_pose(person, networks.pose, networks)
    body = body_of(person, pose)
    left, right = (find_side_hand(person, pose, body, side, networks) for side in (0, 1))
    return put_together(person, pose, body, left, right, find_own_face(person, pose, networks))


def _pose_squares(person: Subject, network: Network, networks: Networks) -> Iterator[tuple[Roi, Bytes]]:
    """Squares for the pose network with what is in them, the likeliest first."""
    image, size = person.image, network.size
    square = rois.pose_from_body(person.body, person.box_side)
    if square is None:
        region = _region(person)
        if not region.usable:
            return
        for hide in (False, True) if len(person.others) else (False,):
            seen = _cut_black(image, region, networks.pose_detector.size)
            if hide:
                seen = association.hide_others(seen, region, person.body, person.others)
            found = _detect(seen, region, networks.pose_detector)
            if found is not None and found.usable:
                yield found, rois.cut_out(image, found, size)
    elif square.usable:
        cut = rois.cut_out(image, square, size)
        yield square, cut
        if len(person.others):
            yield square, association.hide_others(cut, square, person.body, person.others)
    tight = rois.pose_from_box(person.box, person.body)
    if tight.usable:
        cut = rois.cut_out(image, tight, size)
        yield tight, association.hide_others(cut, tight, person.body, person.others)


def _pose(cut: Bytes, square: Roi, network: Network) -> Pose | None:
    raw, flag, heatmap, world = network(cut)
    if not flag[0, 0] > MIN_FLAG:
        return None
    found = landmarks.pose(raw[0], heatmap[0], world[0])
    return Pose(
        points=rois.to_image(found.points[:BLAZEPOSE_COUNT], square),
        visibility=found.visibility[:BLAZEPOSE_COUNT],
        world=rois.turn_upright(found.world[:BLAZEPOSE_COUNT], square),
    )


def _detect(cut: Bytes, around: Roi, detector: Network) -> Roi | None:
    raw, logits = detector(cut)
    found = ssd.best_keypoints(raw[0], logits[0, :, 0], POSE_ANCHORS, detector.size)
    if found is None:
        return None
    centre, edge = rois.to_image(found, around)[:2]
    return rois.pose_from_alignment(centre, edge)


def _arm(person: Subject, pose: Pose | None, body: Body, side: int) -> Arm | None:
    """What is known of an arm; the two bodies' estimates of it where they differ. None without any."""
    elbow, wrist = ARMS[side]
    estimates: list[tuple[Floats, Floats, float]] = []
    if np.isfinite(body.points[[elbow, wrist]]).all() and body.scores[wrist] > 0:
        estimates.append((body.points[elbow], body.points[wrist], float(body.scores[wrist])))
    fingers = None
    if pose is not None:
        rows = BODY_FROM_BLAZEPOSE[[elbow, wrist]]
        seen = float(pose.visibility[rows[1]])
        first, joint = person.body[wrist], pose.points[rows[1]]
        for row, mine in ((elbow, pose.points[rows[0]]), (wrist, joint)):
            if not np.linalg.norm(mine - body.points[row]) <= AGREE * person.unit:
                estimates.append((pose.points[rows[0]], joint, seen))
                break
        apart = np.linalg.norm(first[:2] - joint) > AGREE * person.unit
        if apart and first[2] > 0 and np.isfinite(person.body[[elbow, wrist]]).all():
            estimates.append((person.body[elbow, :2], first[:2], float(first[2])))
        agreed = np.linalg.norm(first[:2] - joint) <= WRIST_APART * person.unit
        if seen > (MIN_WRIST_VISIBILITY if agreed else MIN_LONE_VISIBILITY):
            fingers = pose.points[list(HAND_FROM_POSE[side])]
    estimates = _distinct(estimates, person.unit)
    if not estimates:
        return None
    elbows, wrists, scores = zip(*estimates, strict=True)
    return Arm(
        elbows=np.stack(elbows),
        wrists=np.stack(wrists),
        scores=np.array(scores, np.float32),
        fingers=fingers,
        unit=person.unit,
        others=person.others,
    )


def _distinct(
    estimates: list[tuple[Floats, Floats, float]], unit: float
) -> list[tuple[Floats, Floats, float]]:
    kept: list[tuple[Floats, Floats, float]] = []
    for estimate in estimates:
        if all(np.linalg.norm(estimate[1] - other[1]) > AGREE * unit / 2 for other in kept):
            kept.append(estimate)
    return kept


def _arm_of_hand(body: Body, pose: Pose, side: int, hand: Hand, unit: float) -> Body:
    """The arm as the pose network has it, where the hand hangs on that one and not on the body's."""
    elbow, wrist = ARMS[side]
    rows = BODY_FROM_BLAZEPOSE[[elbow, wrist]]
    root = hand.points[0]
    from_body = float(np.linalg.norm(body.points[wrist] - root))
    from_pose = float(np.linalg.norm(pose.points[rows[1]] - root))
    if not from_pose < from_body - AGREE / 2 * unit:
        return body
    return with_arm(body, side, pose.points[rows[0]], pose.points[rows[1]], hand.score)


def _one_each(left: Hand | None, right: Hand | None, body: Body) -> tuple[Hand | None, Hand | None]:
    """Both hands, unless they are the same one: then it goes to the wrist it is nearer to."""
    if left is None or right is None:
        return left, right
    extent = max(float(np.ptp(hand.points, axis=0).max()) for hand in (left, right))
    if np.median(np.linalg.norm(left.points - right.points, axis=1)) > SAME_HAND * extent:
        return left, right
    to_left = np.linalg.norm(left.points[0] - body.points[ARMS[0][1]])
    to_right = np.linalg.norm(right.points[0] - body.points[ARMS[1][1]])
    return (left, None) if to_left <= to_right else (None, right)


def _lies_in_box(pose: Pose, person: Subject) -> bool:
    middle = pose.body[[*association.SHOULDERS, *association.HIPS]].mean(0)
    x1, y1, x2, y2 = person.box
    return bool(x1 <= middle[0] <= x2 and y1 <= middle[1] <= y2)


def _region(person: Subject) -> Roi:
    x1, y1, x2, y2 = (float(value) for value in person.box)
    return Roi((x1 + x2) / 2, (y1 + y2) / 2, BOX_MARGIN * max(x2 - x1, y2 - y1))


def _cut_black(image: Bytes, around: Roi, size: int) -> Bytes:
    return rois.cut_out(image, around, size, border=cv2.BORDER_CONSTANT)


def _whole(image: Bytes) -> Roi:
    height, width = image.shape[:2]
    return Roi(width / 2, height / 2, float(max(width, height)))
