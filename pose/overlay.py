"""Lays a skeleton over a picture, for the eye; what the model reads is drawn by `pose.draw`."""

from collections.abc import Collection
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from pose.draw import POINT_COLOURS, STICKS, points_with_toes
from pose.sequence import PoseSequence
from pose.skeleton import JOINTS

RING: Final = (255, 255, 255)
"""RGB of the ring around a marked joint."""
DIMMED: Final = 0.62
"""The picture is darkened to this share, so that colours stand out on a light ground too."""


def draw_overlay(
    picture: UInt8[np.ndarray, "height width 3"] | UInt8[Tensor, "height width 3"] | None,
    sequence: PoseSequence,
    frame: int = 0,
    *,
    marked: Collection[str] = (),
    longest_side: int = 720,
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Draws the skeleton of one frame over its picture, RGB, with a ring around the `marked` joints.

    The result has the shape of the canvas with the given longest side in px; the picture is stretched onto it, so it
    must show the canvas. Without a picture the ground is dark. Missing joints and their sticks are left out.

    Raises:
        ValueError: The clip has no such frame.
    """
    if not 0 <= frame < len(sequence):
        raise ValueError(f"frame {frame} is not there: the clip has frames 0 to {len(sequence) - 1}")
    scale = longest_side / max(sequence.frame_size)
    width, height = (max(1, round(side * scale)) for side in sequence.frame_size)
    points, found = points_with_toes(sequence.frame(frame))
    limit = 8.0 * max(width, height)  # OpenCV's fixed-point numbers overflow further out
    xy = np.clip(points[0] * [width / sequence.frame_size[0], height / sequence.frame_size[1]], -limit, limit)
    image = _ground(picture, width, height)
    thick = max(2, round(min(width, height) / 140))
    for (start, end), colour in zip(STICKS, POINT_COLOURS, strict=False):
        if found[0, start] and found[0, end]:
            ends = (tuple(int(v) for v in xy[start].round()), tuple(int(v) for v in xy[end].round()))
            cv2.line(image, *ends, colour, thick, cv2.LINE_AA)
    for index, (name, colour) in enumerate(zip((*JOINTS, "", ""), POINT_COLOURS, strict=True)):
        if found[0, index]:
            place = (int(xy[index, 0].round()), int(xy[index, 1].round()))
            cv2.circle(image, place, round(1.4 * thick), colour, -1, cv2.LINE_AA)
            if name in marked:
                cv2.circle(image, place, round(3.5 * thick), RING, max(1, thick // 2), cv2.LINE_AA)
    return image


def _ground(picture: np.ndarray | Tensor | None, width: int, height: int) -> np.ndarray:
    if picture is None:
        return np.full((height, width, 3), 28, np.uint8)
    pixels = np.ascontiguousarray(picture if isinstance(picture, np.ndarray) else picture.cpu().numpy())
    kind = cv2.INTER_AREA if pixels.shape[1] > width else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=kind) * DIMMED).astype(np.uint8)
