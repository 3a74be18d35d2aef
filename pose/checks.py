"""What would make a render fail or look bad, found before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pose.bones import HIPS, NECK, SHOULDERS, joints_of
from pose.plausible import why_implausible
from pose.sequence import PoseSequence
from pose.skeleton import JOINTS
from pose.timeline import doubtful_frames

FEWEST_JOINTS: Final = 8
"""Of 18; a bust with both arms has more."""
MOST_EMPTY: Final = 0.1
"""Share of frames without anybody that is worth a word."""
MOST_DOUBTFUL: Final = 0.05
MOST_OUTSIDE: Final = 0.05
"""Share of a limb's sightings that may lie outside of the picture."""
MOST_UNLIKE: Final = 1.6
"""Two shapes of picture that differ by this factor leave much of one unused."""
EDGE: Final = 0.005
"""A joint this close to the border, as a share of the picture, is where a limb was cut off."""

_ENDS: Final = {"right hand": (3, 4), "left hand": (6, 7), "right foot": (9, 10), "left foot": (12, 13)}
"""Name -> the joint before and the joint at the end of a limb."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, why it matters, and what to do."""

    what: str
    why: str
    fix: str
    stops: bool = False
    """Whether the render would fail, not only look bad."""

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.fix}"


def check_driving(driving: PoseSequence, *, num_people: int = 1) -> list[Finding]:
    """Looks at a motion alone: nobody, several people, empty frames, few joints, cut-off limbs, jumping joints."""
    joints = joints_of(driving)
    shown = joints.visible.max(axis=1)
    if not shown.any():
        return [
            Finding(
                what="nobody is seen in any frame of the motion",
                why="there is nothing to follow",
                fix="use a clip that shows a whole body, or another detector",
                stops=True,
            )
        ]
    found = []
    if num_people > 1:
        found.append(
            Finding(
                what=f"{num_people} people are in the clip",
                why="one of them moves the character",
                fix="choose one by --person N, 1 being the leftmost",
            )
        )
    return [*found, *_empty(shown), *_few(joints.visible[shown]), *_cut_off(driving, joints.visible), *_jumpy(driving)]


def check_reference(reference: PoseSequence | None) -> list[Finding]:
    """Looks at the skeleton of the picture to animate; None when there is none."""
    if reference is None:
        return [
            Finding(
                what="no skeleton was found in the picture",
                why="the motion is fitted to the figure's outline, not to its limbs",
                fix="give one with --reference-pose K.json, or adjust by hand with --adjust",
            )
        ]
    wrong = why_implausible(reference)
    if wrong is None:
        return []
    return [
        Finding(
            what="the skeleton of the picture cannot be a body",
            why=wrong,
            fix="use a picture that shows the whole body from the front, or give --reference-pose K.json",
        )
    ]


def check_shapes(driving_size: tuple[int, int], canvas: tuple[int, int]) -> list[Finding]:
    """Compares the shape of the driving clip with that of the video to make, both (width, height) in px."""
    ratio = (driving_size[0] / driving_size[1]) / (canvas[0] / canvas[1])
    if 1 / MOST_UNLIKE <= ratio <= MOST_UNLIKE:
        return []
    return [
        Finding(
            what=f"the motion was filmed on {driving_size[0]}x{driving_size[1]}, the video is {canvas[0]}x{canvas[1]}",
            why="a motion that goes sideways or up leaves a picture of another shape",
            fix="give --width and --height in the shape of the clip, or a picture of that shape",
        )
    ]


def check_aligned(aligned: PoseSequence) -> list[Finding]:
    """Looks at the motion where it will be drawn: which limbs leave the picture, and how long."""
    joints = joints_of(aligned)
    width, height = aligned.frame_size
    outside = joints.visible & ((joints.xy < 0) | (joints.xy > np.array([width, height]))).any(-1)
    seen = joints.visible.sum(0)
    share = outside.sum(0) / np.maximum(seen, 1)
    leaving = [JOINTS[k].replace("_", " ") for k in np.flatnonzero(share > MOST_OUTSIDE)]
    if not leaving:
        return []
    frames = np.flatnonzero(outside.any(1))
    return [
        Finding(
            what=f"the motion leaves the picture in {len(frames)} of {len(aligned)} frames, first in {frames[0]} "
            f"({_listed(leaving)})",
            why="what is outside is cut off, and comes back as a guess",
            fix="make the figure smaller with --adjust scale=0.8, move it with --adjust shift_x=0.1 or shift_y=0.1, "
            "or use --fit contain",
        )
    ]


def _empty(shown: np.ndarray) -> list[Finding]:
    empty = np.flatnonzero(~shown)
    if len(empty) <= MOST_EMPTY * len(shown):
        return []
    return [
        Finding(
            what=f"nobody is seen in {len(empty)} of {len(shown)} frames, first in {empty[0]}",
            why="the model gets no pose there",
            fix="cut them off, or fill short gaps: studio pose edit --fill-gaps 8 --first N --last N",
        )
    ]


def _few(visible: np.ndarray) -> list[Finding]:
    mean = float(visible.sum(1).mean())
    if mean >= FEWEST_JOINTS:
        return []
    trunk = visible[:, [NECK, *SHOULDERS, *HIPS]].any(0)
    return [
        Finding(
            what=f"only {mean:.0f} of 18 joints are seen on average",
            why="the motion is little more than a guess" if trunk.all() else "not even the trunk is seen",
            fix="use a clip that shows more of the body, or another detector",
        )
    ]


def _cut_off(driving: PoseSequence, visible: np.ndarray) -> list[Finding]:
    """Limbs that end before their hand or foot in most frames, or at the border."""
    xy = driving.xy.detach().cpu().double().numpy() / np.array(driving.frame_size)
    border = ((xy < EDGE) | (xy > 1 - EDGE)).any(-1)
    cut = []
    for name, (before, end) in _ENDS.items():
        limb = visible[:, before] | visible[:, end]
        gone = limb & (~visible[:, end] | border[:, end])
        if limb.any() and gone.sum() > limb.sum() / 2:
            cut.append(name)
    legs = visible[:, [9, 10, 12, 13]].any()
    if not legs:
        cut.append("both legs")
    if not cut:
        return []
    return [
        Finding(
            what=f"cut off in most frames: {_listed(cut)}",
            why="the model makes up what it is not shown",
            fix="use a clip that shows the whole body, or a picture that is cut off alike",
        )
    ]


def _jumpy(driving: PoseSequence) -> list[Finding]:
    frames = sorted({doubt.frame for doubt in doubtful_frames(driving) if doubt.joint is not None})
    if len(frames) <= MOST_DOUBTFUL * len(driving):
        return []
    return [
        Finding(
            what=f"joints are lost or jump in {len(frames)} of {len(driving)} frames, first in {frames[0]}",
            why="limbs flicker in the video",
            fix="repair them on the Pose page or with studio pose edit --fill-gaps 8 --smooth 7"
            if len(frames) <= len(driving) / 2
            else "find the keypoints again with another detector, such as dwpose, or use a clearer clip",
        )
    ]


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
