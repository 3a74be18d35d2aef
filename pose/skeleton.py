"""The 18 OpenPose body joints: names, bones, sub-trees and colours."""

from typing import Final

JOINTS: Final = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle",
    "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
"""Joint names in OpenPose-18 order. "right" is the person's right, so it is at the left of a frontal picture."""

NUM_JOINTS: Final = len(JOINTS)

PARENTS: Final = (1, -1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15)
"""The parent of each joint in the kinematic tree; the neck is the root (-1)."""

BONES: Final = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""The sticks that OpenPose draws, in its order: bone k has colour `COLOURS[k]`."""

COLOURS: Final = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
"""RGB, one a joint; OpenPose's hue circle."""

MIRROR: Final = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""The joint on the other side: flipping a picture takes joint i to `MIRROR[i]`."""


def subtree(joint: int) -> tuple[int, ...]:
    """Lists `joint` and every joint below it, in index order."""
    found = {joint}
    for _ in range(NUM_JOINTS):  # parents may stand after their children in the OpenPose order
        found |= {j for j, parent in enumerate(PARENTS) if parent in found}
    return tuple(sorted(found))
