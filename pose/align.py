"""Retargets driving poses to the body and the place of the reference."""

from typing import Final

import numpy as np
from jaxtyping import Float

from pose.adjustment import BONE_OF_JOINT, NOT_ADJUSTED, Adjustment
from pose.bones import (
    HIPS,
    NECK,
    Joints,
    body_ratio,
    bone_lengths,
    carry_along,
    fill_missing,
    joints_of,
    with_lengths,
)
from pose.sequence import PoseSequence
from pose.skeleton import JOINTS

RATIO_RANGE: Final = (0.5, 2.0)
"""Bounds of a bone's ratio around the ratio of the whole bodies."""
MIN_BONES: Final = 3
"""Fewer bones than this seen in both bodies say nothing about proportions."""
HEAD_ROOM, FOOT_ROOM = 0.08, 0.05
"""A figure goes on above its ears and below its ankles, by these parts of its height."""


class NotAlignableError(ValueError):
    """Too few joints to compare two bodies."""


def align_poses(driving: PoseSequence, reference: PoseSequence) -> PoseSequence:
    """Gives the driving motion the reference's proportions and place, on the reference's canvas.

    Every bone is multiplied by the ratio of the two bodies' bones and moves what hangs on it, so joint angles stay
    (after UniAnimate's alignment and animate-x spec §1.6, with these differences of ours: lengths are medians over the
    frames, not those of frame 0, and left and right share a ratio; a bone seen in one body only takes the mean of the
    other ratios; ratios stay within 0.5 to 2 of the whole bodies' one). The neck of the first frame goes onto the
    reference's neck. From there the hips move in the reference's leg lengths, which keeps standing feet on the ground;
    where hips or legs are not seen throughout, the neck moves in the bodies' ratio instead. All in px, so another
    aspect does not bend limbs. Missing joints stay missing.

    Raises:
        NotAlignableError: Fewer than three bones are seen in both.
        ValueError: `reference` has more than one frame.
    """
    if len(reference) != 1:
        raise ValueError(f"the reference pose must be 1 frame, got {len(reference)}; take one with .frame(0)")
    source, target = joints_of(driving), joints_of(reference)
    ratios, whole = _ratios(bone_lengths(target), bone_lengths(source))
    filled = fill_missing(source)
    xy = with_lengths(filled, ratios)
    xy += _root_motion(source, filled, xy, ratios, whole)[:, None]

    start = int(source.visible.any(1).argmax())  # the first frame that shows anything
    place = fill_missing(target)[0, NECK]
    xy += place - xy[start, NECK]
    return carry_along(driving, source, filled, xy, ratios, reference.frame_size)


def fit_to_box(
    driving: PoseSequence, box_xyxy: tuple[float, float, float, float], frame_size: tuple[int, int]
) -> PoseSequence:
    """Scales and moves the whole motion so that the figure fills a box: for a reference without a skeleton.

    One scale and one move for all frames; proportions stay. The box is that of the figure, crown to sole; the joints
    take the part of it between ears and ankles. Widely held arms may reach out of it.

    Args:
        driving: The poses.
        box_xyxy: Left, top, right, bottom in px of `frame_size`.
        frame_size: (width, height) of the new canvas.

    Raises:
        NotAlignableError: The driving clip shows fewer than two joints in every frame.
        ValueError: The box is empty.
    """
    left, top, right, bottom = box_xyxy
    if not (right > left and bottom > top and np.isfinite(box_xyxy).all()):
        raise ValueError(f"box must be (left, top, right, bottom) with right > left and bottom > top, got {box_xyxy}")
    source = joints_of(driving)
    usable = source.visible.sum(1) >= 2
    if not usable.any():
        raise NotAlignableError("the driving clip shows fewer than two joints in every frame; use a clearer video")
    lows, highs = (
        np.median(
            np.stack([reduce(xy[found], axis=0) for xy, found in zip(*_some(source, usable), strict=True)]), axis=0
        )
        for reduce in (np.min, np.max)
    )
    size = np.maximum(highs - lows, 1e-3)
    height = (bottom - top) * (1 - HEAD_ROOM - FOOT_ROOM)
    scale = float(min(height / size[1], 1.5 * (right - left) / size[0]))
    feet = np.array([(lows[0] + highs[0]) / 2, highs[1]])
    shift = np.array([(left + right) / 2, bottom - FOOT_ROOM * (bottom - top)]) - scale * feet
    filled = fill_missing(source)
    return carry_along(driving, source, filled, filled * scale + shift, np.full(len(JOINTS), scale), frame_size)


def adjust_poses(sequence: PoseSequence, adjustment: Adjustment) -> PoseSequence:
    """Changes limbs, size and place by hand, after the alignment.

    The bones are multiplied along the kinematic chain from the neck, which stays: a longer arm moves its hand, a longer
    torso moves the legs, joint angles stay. Then the whole is scaled around the ground under the figure where it is
    first seen, and moved. Missing joints stay missing; an adjustment that changes nothing gives the same poses.
    """
    if adjustment == NOT_ADJUSTED:
        return sequence
    source = joints_of(sequence)
    filled = fill_missing(source)
    ratios = np.ones(len(JOINTS))
    for joint, name in enumerate(BONE_OF_JOINT):
        if name is not None:
            ratios[joint] = getattr(adjustment, name)
    xy = with_lengths(filled, ratios)
    start = int(source.visible.any(1).argmax())
    seen = source.visible[start]
    if seen.any():
        standing = filled[start, seen]
        ground = np.array([standing[:, 0].mean(), standing[:, 1].max()])
        xy = ground + adjustment.scale * (xy - ground)
    xy = xy + np.array([adjustment.shift_x, adjustment.shift_y]) * np.array(sequence.frame_size)
    return carry_along(sequence, source, filled, xy, ratios * adjustment.scale, sequence.frame_size)


def _some(joints: Joints, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return joints.xy[frames], joints.visible[frames]


def _ratios(
    target: Float[np.ndarray, "joints"], source: Float[np.ndarray, "joints"]
) -> tuple[Float[np.ndarray, "joints"], float]:
    """Gives the ratio of every bone, filled and clamped, and that of the whole bodies."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratios = target / source
    finite = np.isfinite(ratios)
    if finite.sum() < MIN_BONES:
        seen = [int(np.isfinite(lengths).sum()) for lengths in (source, target)]
        raise NotAlignableError(
            f"the driving pose shows {seen[0]} bones and the reference {seen[1]}, {int(finite.sum())} of them in both; "
            f"{MIN_BONES} are needed: use a reference that shows its body, give its pose, or switch alignment off"
        )
    whole = float(np.clip(body_ratio(target, source), np.median(ratios[finite]) / 2, np.median(ratios[finite]) * 2))
    ratios = np.where(finite, ratios, np.mean(ratios[finite]))
    return np.clip(ratios, RATIO_RANGE[0] * whole, RATIO_RANGE[1] * whole), whole


def _root_motion(
    source: Joints, filled: np.ndarray, xy: np.ndarray, ratios: np.ndarray, whole: float
) -> Float[np.ndarray, "frames 2"]:
    """The move of each frame that turns the driving clip's root path into one of the new size."""
    path = filled[:, NECK] - filled[:1, NECK]
    shown = source.visible.any(1)
    hips, legs = list(HIPS), [9, 10, 12, 13]
    if source.visible[shown][:, hips].all() and source.visible[:, legs].any(0).all():
        leg = float(ratios[legs].mean())
        old, new = filled[:, hips].mean(1), xy[:, hips].mean(1)
        start = int(shown.argmax())
        return leg * (old - old[start]) - (new - new[start])
    return (whole - 1) * path
