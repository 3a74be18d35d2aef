"""Draws poses as the coloured stick figures that the explicit indicator reads; the style is part of the model."""

from typing import Final

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pose.sequence import VISIBLE, PoseSequence
from pose.skeleton import BONES, COLOURS, NUM_JOINTS

STICK_SHADE: Final = 0.6
"""Sticks are drawn darker than joints, so that a joint stands out on its stick."""

RIGHT_TOE: Final = NUM_JOINTS
LEFT_TOE: Final = NUM_JOINTS + 1
POINT_COLOURS: Final = (*COLOURS, (170, 255, 255), (255, 255, 0))
"""RGB, one a joint, then the right and the left toe."""

STICKS: Final = (*BONES, (13, LEFT_TOE), (10, RIGHT_TOE))
"""Pairs of points; stick k has colour `POINT_COLOURS[k]`."""


def stick_width(size: tuple[int, int]) -> int:
    """Gives the half width of a stick in px: 4 on the released 480x832 canvas, never below 2."""
    return max(2, round(4 * min(size) / 480))


def draw_poses(
    sequence: PoseSequence, *, size: tuple[int, int] | None = None
) -> UInt8[Tensor, "frames height width 3"]:
    """Draws body and feet, RGB on black, one picture a frame.

    Sticks are ellipses at 0.6 of their colour, joints are full-colour discs on top, both canvas-relative in width
    (the style of the released Animate-X code: no face, no hands). Missing joints and their sticks are left out.

    Args:
        sequence: The poses.
        size: (width, height) of the pictures in px; `sequence.frame_size` by default. Another aspect stretches.

    Raises:
        ValueError: A side of `size` is below 1.
    """
    width, height = size or sequence.frame_size
    if min(width, height) < 1:
        raise ValueError(f"size must be at least 1x1 px, got {width}x{height}")
    points, visible = points_with_toes(sequence)
    scale = np.array([width / sequence.frame_size[0], height / sequence.frame_size[1]])
    limit = 8.0 * max(width, height)  # far outside; OpenCV's fixed-point numbers overflow further out
    points = np.clip(points * scale, -limit, limit)
    frames = np.zeros((len(sequence), height, width, 3), np.uint8)
    for frame, xy, found in zip(frames, points, visible, strict=True):
        _draw_one(frame, xy, found, stick_width((width, height)))
    return torch.from_numpy(frames)


def points_with_toes(sequence: PoseSequence) -> tuple[Float[np.ndarray, "frames 20 2"], np.ndarray]:
    """Joins the 18 joints with the two big toes."""
    xy = sequence.xy.detach().cpu().double().numpy()
    visible = sequence.visible.cpu().numpy()
    if sequence.feet is None:
        toes = np.full((len(sequence), 2, 3), -1.0)
    else:
        toes = sequence.feet[:, [0, 3]].detach().cpu().double().numpy()
    return np.concatenate([xy, toes[..., :2]], 1), np.concatenate([visible, toes[..., 2] >= VISIBLE], 1)


def _draw_one(frame: np.ndarray, xy: np.ndarray, visible: np.ndarray, width: int) -> None:
    """Draws one figure into `frame`."""
    for (start, end), colour in zip(STICKS, POINT_COLOURS, strict=False):
        if visible[start] and visible[end]:
            (x0, y0), (x1, y1) = xy[start], xy[end]
            centre = (int((x0 + x1) / 2), int((y0 + y1) / 2))
            axes = (int(np.hypot(x1 - x0, y1 - y0) / 2), width)
            angle = int(np.degrees(np.arctan2(y1 - y0, x1 - x0)))
            shade = tuple(int(c * STICK_SHADE) for c in colour)
            outline = np.asarray(cv2.ellipse2Poly(centre, axes, angle, 0, 360, 5))
            cv2.fillConvexPoly(frame, outline, shade)
    for (x, y), found, colour in zip(xy[:NUM_JOINTS], visible, POINT_COLOURS, strict=False):
        if found:
            cv2.circle(frame, (int(x), int(y)), width, colour, thickness=-1)
