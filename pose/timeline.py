"""How surely each part of the body was seen over a clip, and the frames that deserve a look."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float

from pose.bones import joints_of
from pose.editing import runs
from pose.sequence import PoseSequence
from pose.skeleton import JOINTS, PARENTS

LIMBS: Final = {
    "head": (0, 14, 15, 16, 17),
    "trunk": (1, 2, 5, 8, 11),
    "right arm": (3, 4),
    "left arm": (6, 7),
    "right leg": (9, 10),
    "left leg": (12, 13),
}
"""Part of the body -> its joints; every joint is in one."""

FARTHEST_MOVE: Final = 0.25
"""A joint that leaves its neighbours in time by this share of the body's height, and comes back, has jumped."""
LONGEST_STRETCH: Final = 1.6
"""A bone so many times longer than it mostly is has a joint in a wrong place; shorter is only foreshortened."""
MOSTLY: Final = 0.5
"""A joint that is seen in more than this share of the frames is missed where it is not."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """Why a frame deserves a look."""

    frame: int
    joint: str | None
    """The joint, or None for the whole body."""
    why: str


def confidence_over_time(
    sequence: PoseSequence, by: Literal["joints", "limbs"] = "limbs"
) -> tuple[tuple[str, ...], Float[np.ndarray, "rows frames"]]:
    """Gives names of rows and the confidence 0..1 of each in every frame; 0 where missing.

    A limb is as sure as the mean of its joints.
    """
    confidence = sequence.confidence.detach().cpu().double().numpy().T
    if by == "joints":
        return JOINTS, confidence
    return tuple(LIMBS), np.stack([confidence[list(joints)].mean(0) for joints in LIMBS.values()])


def gaps(sequence: PoseSequence) -> list[tuple[str, int, int]]:
    """Lists (joint, first, last) of every run of frames in which a joint is missing; last is inclusive."""
    visible = sequence.visible.cpu().numpy()
    return [
        (name, start, stop - 1) for name, seen in zip(JOINTS, visible.T, strict=True) for start, stop in runs(~seen)
    ]


def doubtful_frames(sequence: PoseSequence) -> list[Doubt]:
    """Lists what looks wrong, in order of frames: nobody seen, a joint lost, a joint that jumps, a bone too long.

    A joint that is seen in few frames at most is not a loss: the clip may show a bust.
    """
    joints = joints_of(sequence)
    empty = ~joints.visible.max(axis=1)
    doubts = [Doubt(frame=int(k), joint=None, why="nobody is seen") for k in np.flatnonzero(empty)]
    share = joints.visible.sum(0) / max(1, int((~empty).sum()))
    lost = ~joints.visible & (share > MOSTLY) & ~empty[:, None]
    jumps, stretched = _jumps(joints.xy, joints.visible), _stretched(joints.xy, joints.visible)
    for marks, why in ((lost, "is lost"), (jumps, "jumps away and back"), (stretched & ~jumps, "is too far out")):
        doubts += [Doubt(frame=int(k), joint=JOINTS[j], why=why) for k, j in np.argwhere(marks)]
    return sorted(doubts, key=lambda doubt: doubt.frame)


def _heights(xy: np.ndarray, visible: np.ndarray) -> float:
    """The body's height in px: the median over the frames of the joints' extent, at least 1."""
    shown = visible.sum(1) >= 2
    if not shown.any():
        return 1.0
    extents = [
        float(np.ptp(points[seen], axis=0).max()) for points, seen in zip(xy[shown], visible[shown], strict=True)
    ]
    return max(1.0, float(np.median(extents)))


def _jumps(xy: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Marks joints that are far from where both the frame before and the frame after have them."""
    marks = np.zeros(visible.shape, bool)
    if len(xy) < 3:
        return marks
    middle = (xy[:-2] + xy[2:]) / 2
    away = np.linalg.norm(xy[1:-1] - middle, axis=-1)
    apart = np.linalg.norm(xy[2:] - xy[:-2], axis=-1)
    limit = FARTHEST_MOVE * _heights(xy, visible)
    seen = visible[:-2] & visible[1:-1] & visible[2:]
    # a fast limb turns round too, but then its neighbours are not in one place
    marks[1:-1] = seen & (away > limit) & (apart < away)
    return marks


def _stretched(xy: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Marks joints whose bone is much longer than its median over the clip."""
    parents = np.array([max(parent, 0) for parent in PARENTS])
    lengths = np.linalg.norm(xy - xy[:, parents], axis=-1)
    seen = visible & visible[:, parents]
    seen[:, PARENTS.index(-1)] = False
    marks = np.zeros(visible.shape, bool)
    least = 0.08 * _heights(xy, visible)  # a shoulder seen from the side has next to no length to compare with
    for joint in np.flatnonzero(seen.sum(0) >= 3):
        usual = max(float(np.quantile(lengths[seen[:, joint], joint], 0.75)), least)
        marks[:, joint] = seen[:, joint] & (lengths[:, joint] > LONGEST_STRETCH * usual)
    return marks
