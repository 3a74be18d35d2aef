"""Finds where the figure stands in a picture whose skeleton nobody can detect."""

from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from torch import Tensor

_SIDE_PX: Final = 256
_SMALLEST, _LARGEST = 0.02, 0.85
"""Share of the picture that a figure may cover."""
_LOWEST: Final = 0.3
"""Height of a figure, as a share of the picture's: less is a part of it, such as a face."""

Box = tuple[float, float, float, float]


def find_figure(image: UInt8[Tensor, "height width 3"]) -> tuple[Box, str]:
    """Boxes the figure as (left, top, right, bottom) in px, and says how it was found.

    First by colour against the border of the picture (drawn characters stand on a plain ground), then by
    grabCut (Rother et al., SIGGRAPH 2004), at last by the guess that it fills the middle.
    """
    height, width = image.shape[:2]
    scale = _SIDE_PX / max(height, width)
    small = cv2.resize(image.cpu().numpy(), (max(8, round(width * scale)), max(8, round(height * scale))),
                       interpolation=cv2.INTER_AREA)  # fmt: skip
    for mask, how in ((_unlike_the_border(small), "its colour"), (_grab_cut(small), "grabCut")):
        box = _largest_part(mask)
        if box is not None:
            across, down = width / small.shape[1], height / small.shape[0]
            return (box[0] * across, box[1] * down, box[2] * across, box[3] * down), how
    return (0.25 * width, 0.1 * height, 0.75 * width, 0.9 * height), "a guess: the middle of the picture"


def _unlike_the_border(picture: UInt8[ndarray, "height width 3"]) -> Bool[ndarray, "height width"]:
    """Marks pixels far from every colour that the border has (top, left and right edges; feet may touch the bottom)."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32)
    edge = max(2, len(picture) // 50)
    border = np.concatenate([part.reshape(-1, 3) for part in (lab[:edge], lab[:, :edge], lab[:, -edge:])])
    middle = np.median(border, axis=0)
    spread = np.percentile(np.linalg.norm(border - middle, axis=1), 90)
    if spread > 20:  # a busy ground: colour says nothing
        return np.zeros(picture.shape[:2], bool)
    far: Bool[ndarray, "height width"] = np.linalg.norm(lab - middle, axis=2) > max(18.0, 1.5 * float(spread))
    return far


def _grab_cut(picture: UInt8[ndarray, "height width 3"]) -> Bool[ndarray, "height width"]:
    """Separates the figure from what lies outside a rectangle 8 % from the border."""
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    inset = (round(0.08 * width), round(0.04 * height), round(0.84 * width), round(0.93 * height))
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # grabCut starts with k-means; the same picture must give the same box
    try:
        cv2.grabCut(picture, mask, inset, background, foreground, 3, cv2.GC_INIT_WITH_RECT)
    except cv2.error:  # one colour only: there is nothing to separate
        return np.zeros((height, width), bool)
    return np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _largest_part(mask: Bool[ndarray, "height width"]) -> Box | None:
    """Boxes the largest part and those at least a fifth as large; None when that cannot be a figure."""
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    if count < 2:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = 1 + np.flatnonzero(areas >= areas.max() / 5)
    rows, columns = np.nonzero(np.isin(labels, kept))
    (left, right), (top, bottom) = np.percentile(columns, (1, 99)), np.percentile(rows, (1, 99))  # specks do not count
    share = len(rows) / mask.size
    if not _SMALLEST <= share <= _LARGEST or bottom - top < _LOWEST * len(mask):
        return None
    return float(left), float(top), float(right + 1), float(bottom + 1)
