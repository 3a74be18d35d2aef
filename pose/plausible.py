"""Whether a skeleton that a detector found in one picture can be a body at all.

A detector that is out of its depth does not say so: it puts joints on ears, flowers and rocks. A motion that is aligned
to such a body tears the character apart, so it is better to know the character's box alone.
"""

from typing import Final

import numpy as np

from pose.bones import HIPS, NECK, SHOULDERS, joints_of
from pose.sequence import PoseSequence
from pose.skeleton import JOINTS, MIRROR, PARENTS

MOST_UNEVEN: Final = 2.2
"""A bone may be so many times longer than its twin on the other side: foreshortening, not two bodies."""
MOST_OUT_OF_LINE: Final = 3.0
"""A bone may be so many times longer or shorter than its parent within an arm or a leg."""
LEAST_BONES: Final = 6
"""Fewer bones with both ends tell nothing about proportions."""


def why_implausible(body: PoseSequence) -> str | None:
    """Says what is wrong with the skeleton of frame 0, or None when it could be a body.

    It must have a neck, a shoulder and a hip, enough bones, limbs that match left and right and within themselves, and
    hips below the neck on the picture, since a reference stands.
    """
    joints = joints_of(body.frame(0))
    xy, visible = joints.xy[0], joints.visible[0]
    if not visible[NECK] or not visible[list(SHOULDERS)].any() or not visible[list(HIPS)].any():
        return "it has no trunk: neck, shoulder and hip"
    if xy[list(HIPS), 1][visible[list(HIPS)]].mean() <= xy[NECK, 1]:
        return "its hips are above its neck"
    parents = np.array([max(parent, 0) for parent in PARENTS])
    lengths = np.where(visible & visible[parents], np.hypot(*(xy - xy[parents]).T), np.nan)
    lengths[NECK] = np.nan
    if np.isfinite(lengths).sum() < LEAST_BONES:
        return f"it has {np.isfinite(lengths).sum()} bones, {LEAST_BONES} are needed"
    for joint in (3, 4, 6, 7, 9, 10, 12, 13):  # elbows, wrists, knees, ankles
        name, length = JOINTS[joint].replace("_", " "), lengths[joint]
        for other, most, what in (
            (MIRROR[joint], MOST_UNEVEN, "the one on the other side"),
            (PARENTS[joint] if joint in (4, 7, 10, 13) else joint, MOST_OUT_OF_LINE, "the bone before it"),
        ):
            pair = sorted((length, lengths[other]))
            if np.isfinite(pair).all() and pair[1] > most * max(pair[0], 1e-6):
                return f"the bone to the {name} and {what} are {pair[1] / max(pair[0], 1e-6):.1f} to 1"
    return None
