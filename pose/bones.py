"""Bone lengths of a clip and new ones for it: what retargeting and augmentation share."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np  # not torch: a training clip is augmented in a millisecond, and these arrays are tiny
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pose.sequence import PoseSequence
from pose.skeleton import JOINTS, MIRROR, NUM_JOINTS, PARENTS

NECK: Final = JOINTS.index("neck")
HIPS: Final = (JOINTS.index("right_hip"), JOINTS.index("left_hip"))
SHOULDERS: Final = (JOINTS.index("right_shoulder"), JOINTS.index("left_shoulder"))

_PARENT: Final = np.array([max(parent, 0) for parent in PARENTS])
_MIRROR: Final = np.array(MIRROR)
_LEVELS: Final = (
    np.array([0, *SHOULDERS, *HIPS]),
    np.array([3, 6, 9, 12, 14, 15]),
    np.array([4, 7, 10, 13, 16, 17]),
)
"""The tree below the neck, parents first."""


class Joints(NamedTuple):
    """The body joints of a clip as numpy arrays."""

    xy: Float[np.ndarray, "frames joints 2"]
    visible: Bool[np.ndarray, "frames joints"]


def joints_of(sequence: PoseSequence) -> Joints:
    """Takes the body joints out of a sequence, as float64 on the CPU."""
    return Joints(sequence.xy.detach().cpu().double().numpy(), sequence.visible.cpu().numpy())


def bone_lengths(joints: Joints) -> Float[np.ndarray, "joints"]:
    """Measures the bone above each joint: median over the frames, left and right averaged, NaN where never seen.

    The median, because a single frame may be foreshortened (our choice; UniAnimate takes frame 0 alone).
    The neck is the root and has no bone: NaN.
    """
    bones = joints.xy - joints.xy[:, _PARENT]
    lengths = np.hypot(bones[..., 0], bones[..., 1])
    seen = joints.visible & joints.visible[:, _PARENT] & (lengths > 0)
    seen[:, NECK] = False
    lengths = np.sort(np.where(seen, lengths, np.inf), axis=0)
    count = seen.sum(0)
    column = np.arange(NUM_JOINTS)
    low, high = (
        lengths[np.maximum(count - 1, 0) // 2, column],
        lengths[np.minimum(count // 2, len(lengths) - 1), column],
    )
    with np.errstate(invalid="ignore"):
        median = np.where(count > 0, (low + high) / 2, np.nan)
    other = median[_MIRROR]
    return np.where(np.isnan(median), other, np.where(np.isnan(other), median, (median + other) / 2))


def body_ratio(target: Float[np.ndarray, "joints"], source: Float[np.ndarray, "joints"]) -> float:
    """Compares two bodies by their torso, or by the shoulders, or by all bones that both have; NaN without any."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = target / source
    for joint in (HIPS[0], SHOULDERS[0]):
        if np.isfinite(ratios[joint]):
            return float(ratios[joint])
    finite = ratios[np.isfinite(ratios)]
    return float(np.median(finite)) if finite.size else float("nan")


def fill_missing(joints: Joints) -> Float[np.ndarray, "frames joints 2"]:
    """Puts every missing joint on its parent, so that a bone over a gap starts at the nearest joint that was found.

    A missing neck becomes the middle of what was found of shoulders, else hips, else all joints; without any, (0, 0).
    """
    xy, visible = joints.xy.copy(), joints.visible
    for group in (slice(None), list(HIPS), list(SHOULDERS)):  # the last that applies wins
        weight = visible[:, group]
        count = weight.sum(1)
        use = ~visible[:, NECK] & ((count > 0) | isinstance(group, slice))
        if use.any():
            middle = (xy[:, group] * weight[..., None]).sum(1) / np.maximum(count, 1)[:, None]
            xy[use, NECK] = middle[use]
    for level in _LEVELS:
        xy[:, level] = np.where(visible[:, level, None], xy[:, level], xy[:, _PARENT[level]])
    return xy


def with_lengths(
    filled: Float[np.ndarray, "frames joints 2"], ratios: Float[np.ndarray, "joints"]
) -> Float[np.ndarray, "frames joints 2"]:
    """Multiplies the bone above each joint and moves everything below it; angles and the neck stay."""
    moved = filled.copy()
    for level in _LEVELS:
        parent = _PARENT[level]
        moved[:, level] = moved[:, parent] + ratios[level, None] * (filled[:, level] - filled[:, parent])
    return moved


def carry_points(
    points: Tensor | None, anchor: np.ndarray, moved: np.ndarray, factor: float | np.ndarray
) -> Float[np.ndarray, "frames points 3"] | None:
    """Takes hand, face or foot points along with the joint they hang on, multiplied by `factor`."""
    if points is None:
        return None
    array = points.detach().cpu().double().numpy().copy()
    array[..., :2] = moved + factor * (array[..., :2] - anchor)
    return array


def carry_along(
    sequence: PoseSequence,
    source: Joints,
    before: np.ndarray,
    after: np.ndarray,
    ratios: np.ndarray,
    frame_size: tuple[int, int],
) -> PoseSequence:
    """Makes a sequence of moved joints and takes hands, face and feet along, in the sizes of the bones before them."""

    def spread(xy: np.ndarray, roots: Sequence[int], each: int) -> np.ndarray:
        return np.repeat(xy[:, list(roots)], each, axis=1)

    extras = {}
    for name, points, roots, each in (
        ("hands", sequence.hands, (4, 7), 21),
        ("face", sequence.face, (0,), 68),
        ("feet", sequence.feet, (10, 13), 3),
    ):
        sizes = ratios[[14] if name == "face" else list(roots)]
        factor = np.repeat(sizes, each)[None, :, None]
        extras[name] = carry_points(points, spread(before, roots, each), spread(after, roots, each), factor)
    return to_sequence(sequence, after, source.visible, frame_size=frame_size, **extras)


def to_sequence(
    like: PoseSequence,
    xy: np.ndarray,
    visible: np.ndarray,
    *,
    frame_size: tuple[int, int],
    hands: np.ndarray | None = None,
    face: np.ndarray | None = None,
    feet: np.ndarray | None = None,
) -> PoseSequence:
    """Makes a sequence from numpy joints, -1 and confidence 0 where not `visible`; a joint new to `like` gets 1."""
    confidence = like.confidence.detach().cpu().numpy()
    confidence = np.where(visible, np.where(like.visible.cpu().numpy(), confidence, 1.0), 0.0)
    return PoseSequence(
        xy=torch.from_numpy(np.where(visible[..., None], xy, -1.0).astype(np.float32)),
        confidence=torch.from_numpy(confidence.astype(np.float32)),
        frame_size=frame_size,
        fps=like.fps,
        hands=_points(hands),
        face=_points(face),
        feet=_points(feet),
    )


def _points(array: np.ndarray | None) -> Tensor | None:
    """Marks what has no confidence as missing: -1."""
    if array is None:
        return None
    found = array[..., 2:] > 0
    array = np.concatenate([np.where(found, array[..., :2], -1.0), np.where(found, array[..., 2:], 0.0)], -1)
    return torch.from_numpy(array.astype(np.float32))
