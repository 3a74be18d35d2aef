"""Repairs a clip's keypoints: joints by hand, short gaps, jitter, and its ends. Nothing is changed in place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pose.fixes import ALL, JointFix
from pose.sequence import VISIBLE, PoseSequence
from pose.skeleton import JOINTS

SMOOTH_ORDER: Final = 2
"""Degree of the polynomial that smoothing fits: a parabola keeps the height of a leap, a line would cut it."""
FURTHEST: Final = 4.0
"""A joint may be set so many canvases away from the canvas; further out it is a slip of the keyboard."""

_EXTRAS: Final = (
    ("hands", 4, slice(0, 21)), ("hands", 7, slice(21, 42)), ("face", 0, slice(0, 68)),
    ("feet", 10, slice(0, 3)), ("feet", 13, slice(3, 6)),
)  # fmt: skip
"""Which points hang on which joint: field, joint, points."""


def fix_joint(sequence: PoseSequence, fix: JointFix) -> PoseSequence:
    """Puts a joint where it belongs, with confidence 1, or marks it missing.

    Hand, face and foot points move with the wrist, nose or ankle they hang on, and go missing with it.

    Raises:
        ValueError: The clip has no such frame, or the place is far outside of its canvas.
    """
    if fix.last >= len(sequence):
        raise ValueError(f"frame {fix.last} is not there: the clip has frames 0 to {len(sequence) - 1}")
    joints = list(range(len(JOINTS))) if fix.joint == ALL else [JOINTS.index(fix.joint)]
    frames = slice(fix.first, fix.last + 1)
    xy, confidence = sequence.xy.clone(), sequence.confidence.clone()
    extras: dict[str, Any] = {
        name: points.clone() for name in ("hands", "face", "feet") if (points := getattr(sequence, name)) is not None
    }
    place = None if fix.xy is None else torch.tensor(_checked(fix.xy, sequence.frame_size), dtype=xy.dtype)
    was_there = confidence[frames] >= VISIBLE
    for name, joint, group in _EXTRAS:
        if name not in extras or joint not in joints:
            continue
        points = extras[name][frames, group]
        if place is None:
            points[..., :2], points[..., 2] = -1.0, 0.0
        else:
            shift = (place - xy[frames, joint])[:, None].expand(-1, points.shape[1], -1)
            moves = (points[..., 2] > 0) & was_there[:, joint, None]
            points[..., :2] = torch.where(moves[..., None], points[..., :2] + shift, points[..., :2])
    xy[frames, joints] = -1.0 if place is None else place
    confidence[frames, joints] = 0.0 if place is None else 1.0
    return replace(sequence, xy=xy, confidence=confidence, **extras)


def _checked(xy: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    for value, side in zip(xy, size, strict=True):
        if not -FURTHEST * side <= value <= (1 + FURTHEST) * side:  # also what is not a number
            raise ValueError(f"{xy[0]:g}, {xy[1]:g} is far outside of the canvas of {size[0]}x{size[1]} px")
    return xy


def fill_gaps(sequence: PoseSequence, max_frames: int) -> PoseSequence:
    """Draws a straight line over every gap of at most `max_frames` frames between two sightings of a point.

    Longer gaps, and those at the clip's ends, stay: nothing is ever extrapolated. A filled point has the lower
    confidence of the two sightings. Hands, face and feet are filled alike.

    Raises:
        ValueError: `max_frames` is negative.
    """
    if max_frames < 0:
        raise ValueError(f"max_frames must be 0 or more, got {max_frames}")
    return _over_points(sequence, lambda points: _filled(points, max_frames))


def _filled(points: Float[np.ndarray, "frames points 3"], max_frames: int) -> Float[np.ndarray, "frames points 3"]:
    points = points.copy()
    for track in np.moveaxis(points, 1, 0):
        seen = np.flatnonzero(track[:, 2] >= VISIBLE)
        missing = np.diff(seen) - 1
        for gap in np.flatnonzero((missing > 0) & (missing <= max_frames)):
            before, after = seen[gap], seen[gap + 1]
            share = np.arange(1, missing[gap] + 1)[:, None] / (missing[gap] + 1)
            track[before + 1 : after, :2] = (1 - share) * track[before, :2] + share * track[after, :2]
            track[before + 1 : after, 2] = min(track[before, 2], track[after, 2])
    return points


def smooth(sequence: PoseSequence, window: int) -> PoseSequence:
    """Takes jitter away: every point is moved to a parabola fitted to `window` frames around it (Savitzky-Golay).

    A gap is not smoothed over: each run of sightings is taken alone, with a smaller window where it is shorter.
    Which points are seen, and how surely, stays. 1 leaves all as it is.

    Raises:
        ValueError: `window` is not an odd number of frames.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be an odd number of frames, got {window}; try {max(1, window + 1)}")
    return sequence if window == 1 else _over_points(sequence, lambda points: _smoothed(points, window))


def _smoothed(points: Float[np.ndarray, "frames points 3"], window: int) -> Float[np.ndarray, "frames points 3"]:
    from scipy.signal import savgol_filter  # a third of a second to load, and only this needs it

    points = points.copy()
    for track in np.moveaxis(points, 1, 0):
        for start, stop in runs(track[:, 2] >= VISIBLE):
            length = stop - start
            own = min(window, length - 1 + length % 2)
            if own > SMOOTH_ORDER:  # through fewer points a parabola passes exactly
                track[start:stop, :2] = savgol_filter(track[start:stop, :2], own, SMOOTH_ORDER, axis=0)
    return points


def trim(sequence: PoseSequence, first: int = 0, last: int | None = None) -> PoseSequence:
    """Keeps the frames `first` to `last`, both inclusive, counted from 0; None is the end.

    Raises:
        ValueError: These frames are not there.
    """
    end = len(sequence) - 1 if last is None else last
    if not 0 <= first <= end < len(sequence):
        raise ValueError(f"frames {first} to {end} cannot be kept: the clip has frames 0 to {len(sequence) - 1}")
    return sequence[first : end + 1]


def runs(seen: np.ndarray) -> list[tuple[int, int]]:
    """Lists the runs of true values as (start, stop), stop exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _over_points(sequence: PoseSequence, change: Callable[[np.ndarray], np.ndarray]) -> PoseSequence:
    """Changes body, hands, face and feet alike, each as (x, y, confidence)."""

    def changed(points: Tensor) -> Tensor:
        return torch.from_numpy(change(points.detach().cpu().double().numpy()).astype(np.float32))

    def too(points: Tensor | None) -> Tensor | None:
        return None if points is None else changed(points)

    body = changed(torch.cat([sequence.xy, sequence.confidence[..., None]], dim=-1))
    return replace(
        sequence,
        xy=body[..., :2],
        confidence=body[..., 2],
        hands=too(sequence.hands),
        face=too(sequence.face),
        feet=too(sequence.feet),
    )
