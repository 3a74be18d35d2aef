"""Other programs' joint orders, brought to ours: COCO-17, OpenPose 18 and 25, COCO-WholeBody 133 and 134."""

from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pose.track import Person

_COCO: Final = (0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""Index in COCO-17 of each OpenPose joint; COCO has no neck."""
_BODY_25: Final = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
_BODY_25_FEET: Final = (22, 23, 24, 19, 20, 21)


class Points(NamedTuple):
    """(x, y, confidence) of one person, in our order; missing: (-1, -1, 0)."""

    body: Float[np.ndarray, "18 3"]
    hands: Float[np.ndarray, "42 3"] | None = None
    face: Float[np.ndarray, "68 3"] | None = None
    feet: Float[np.ndarray, "6 3"] | None = None

    def person(self) -> Person:
        """Makes a `Person` of the points."""
        body = torch.from_numpy(self.body.astype(np.float32))
        return Person.from_joints(
            body[:, :2], body[:, 2], hands=_tensor(self.hands), face=_tensor(self.face), feet=_tensor(self.feet)
        )


KNOWN_LAYOUTS: Final = {
    17: "COCO",
    18: "OpenPose 18",
    25: "OpenPose BODY_25",
    133: "COCO-WholeBody",
    134: "COCO-WholeBody with a neck (rtmlib to_openpose)",
}


def to_points(points: Float[np.ndarray, "joints 3"], *, where: str) -> Points:
    """Sorts (x, y, confidence) of a known number of joints into ours; the neck of COCO is between the shoulders.

    Args:
        points: One person.
        where: What the message should name, such as "dance.json frame 3".

    Raises:
        ValueError: An unknown number of joints, or a number that is not finite.
    """
    if len(points) not in KNOWN_LAYOUTS:
        known = ", ".join(f"{count} ({name})" for count, name in KNOWN_LAYOUTS.items())
        raise ValueError(f"{where} has {len(points)} joints; known are {known}")
    bad = np.argwhere(~np.isfinite(points))
    if len(bad):
        raise ValueError(
            f"{where}: joint {bad[0][0]} is {points[bad[0][0]].tolist()}, not finite numbers; "
            "mark a missing joint with confidence 0"
        )
    points = mark_missing(points)
    if len(points) == 18:
        return Points(points)
    if len(points) == 25:
        return Points(points[list(_BODY_25)], feet=points[list(_BODY_25_FEET)])
    if len(points) == 17:
        return Points(_from_coco(points))
    if len(points) == 133:
        body, rest = _from_coco(points[:17]), points[17:]
    else:
        body, rest = points[:18], points[18:]
    feet, face, left, right = np.split(rest, (6, 74, 95))
    return Points(body, hands=np.concatenate([right, left]), face=face, feet=np.concatenate([feet[3:], feet[:3]]))


def mark_missing(points: Float[np.ndarray, "joints 3"]) -> Float[np.ndarray, "joints 3"]:
    """Gives points without confidence, or at (-1, -1), our mark of missing; cuts confidence to 1."""
    missing = (points[:, 2] <= 0) | (points[:, :2] == -1).all(-1)
    points = np.where(missing[:, None], np.array([-1.0, -1.0, 0.0]), points)
    return np.concatenate([points[:, :2], points[:, 2:].clip(0, 1)], -1)


def _from_coco(points: np.ndarray) -> np.ndarray:
    body = points[list(_COCO)].copy()
    left, right = points[5], points[6]
    body[1] = [*(left[:2] + right[:2]) / 2, min(left[2], right[2])] if min(left[2], right[2]) > 0 else (-1, -1, 0)
    return body


def _tensor(points: np.ndarray | None) -> Tensor | None:
    return None if points is None else torch.from_numpy(points.astype(np.float32))
