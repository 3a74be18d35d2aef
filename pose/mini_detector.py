"""The mini detector: heatmaps from our own small network, decoded to people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pose.sequence import VISIBLE
from pose.sessions import open_session
from pose.skeleton import JOINTS, NUM_JOINTS
from pose.track import DetectorUnavailableError, Person

NECK: Final = JOINTS.index("neck")
MIN_JOINTS: Final = 4
"""Fewer joints than this are no person."""
NECK_PEAK: Final = 0.5
"""Two necks count only at this confidence; the first one at `VISIBLE`."""
NECK_GAP: Final = 0.19
"""The least distance of two necks, as a part of the picture's side."""


def is_mini(path: Path) -> bool:
    """Tells whether an ONNX file has the mini detector's input and output."""
    session = open_session(path)
    outputs = session.get_outputs()
    return session.get_inputs()[0].name == "pixels" and len(outputs) == 1 and outputs[0].name == "heatmaps"


class MiniDetector:
    """Runs the mini network: `pixels` (N, 3, S, S) RGB in [0, 1] to `heatmaps` (N, 18, S/4, S/4) in [0, 1].

    A picture is scaled to fit the square and centred on grey 0.5. A joint is its heatmap's peak with the centroid of
    the 3x3 cells around it; the centre of cell i is (i + 0.5) * stride px. Several clear necks mean several people;
    every joint then belongs to the nearest neck.

    Raises:
        DetectorUnavailableError: The file is missing or no such network.
    """

    def __init__(self, weights: Path) -> None:
        if not Path(weights).is_file():
            raise DetectorUnavailableError(
                f"the mini detector's weights are missing: {weights}; install the program again, or train them with "
                "`studio train --recipe mini-pose`"
            )
        self._session = open_session(Path(weights))
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4:
            raise DetectorUnavailableError(
                f"{weights} takes an input of shape {shape}, not (N, 3, S, S); it is no mini detector"
            )
        self._side = shape[2] if isinstance(shape[2], int) else 128
        self._one_by_one = shape[0] == 1

    def detect(self, frame: UInt8[Tensor, "height width 3"]) -> list[Person]:
        """Finds everyone in one picture."""
        return self.detect_batch([frame])[0]

    def detect_batch(self, frames: Sequence[UInt8[Tensor, "height width 3"]]) -> list[list[Person]]:
        """Finds everyone in several pictures."""
        if self._one_by_one and len(frames) > 1:
            return [people for frame in frames for people in self.detect_batch([frame])]
        boxed = [letterbox(frame.numpy(), self._side) for frame in frames]
        pixels = np.stack([pixels for pixels, _, _ in boxed])
        (heatmaps,) = self._session.run(["heatmaps"], {"pixels": pixels})
        return [
            [_in_frame(person, scale, offset, self._side) for person in decode_people(np.asarray(maps, np.float32))]
            for maps, (_, scale, offset) in zip(heatmaps, boxed, strict=True)
        ]


def letterbox(
    frame: UInt8[np.ndarray, "height width 3"], side: int
) -> tuple[Float[np.ndarray, "3 side side"], float, tuple[float, float]]:
    """Fits a picture into a square, centred on grey; gives back the scale and the (x, y) offset in px of the square."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    resized = cv2.resize(
        frame, (new_width, new_height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    x, y = (side - new_width) // 2, (side - new_height) // 2
    square = np.full((side, side, 3), 0.5, np.float32)
    square[y : y + new_height, x : x + new_width] = resized.astype(np.float32) / 255
    return np.ascontiguousarray(square.transpose(2, 0, 1)), scale, (float(x), float(y))


def decode_people(heatmaps: Float[np.ndarray, "joints rows cols"]) -> list[Float[np.ndarray, "joints 3"]]:
    """Turns heatmaps into (x, y, confidence) in parts of the picture, for each person found."""
    joints, rows, cols = heatmaps.shape
    if joints != NUM_JOINTS:
        raise ValueError(f"heatmaps must have {NUM_JOINTS} channels, got {joints}; the weights are of another version")
    necks = _neck_peaks(heatmaps[NECK])
    if len(necks) < 2:
        people = [_peaks(heatmaps)]
    else:
        y, x = np.mgrid[:rows, :cols]
        distance = np.stack([(y - row) ** 2 + (x - col) ** 2 for row, col in necks])
        owner = distance.argmin(0)
        people = [_peaks(np.where(owner == number, heatmaps, 0)) for number in range(len(necks))]
    return [person for person in people if (person[:, 2] >= VISIBLE).sum() >= MIN_JOINTS]


def _neck_peaks(heatmap: Float[np.ndarray, "rows cols"]) -> list[tuple[int, int]]:
    """Finds clear local maxima that stand apart, strongest first."""
    summit = cv2.dilate(heatmap, np.ones((3, 3), np.uint8))
    spots = np.argwhere((heatmap >= NECK_PEAK) & (heatmap >= summit))
    spots = spots[np.argsort([-heatmap[row, col] for row, col in spots], kind="stable")] if len(spots) else spots
    kept: list[tuple[int, int]] = []
    gap = NECK_GAP * max(heatmap.shape)
    for row, col in spots.tolist():
        if all((row - r) ** 2 + (col - c) ** 2 >= gap**2 for r, c in kept):
            kept.append((row, col))
    return kept


def _peaks(heatmaps: Float[np.ndarray, "joints rows cols"]) -> Float[np.ndarray, "joints 3"]:
    """Finds each joint's peak, refined by the centroid around it; x and y in parts of the picture."""
    joints, rows, cols = heatmaps.shape
    best = heatmaps.reshape(joints, -1).argmax(1)
    row, col = best // cols, best % cols
    padded = np.pad(heatmaps, ((0, 0), (1, 1), (1, 1)))
    steps = np.array([-1, 0, 1])
    around = padded[
        np.arange(joints)[:, None, None], row[:, None, None] + 1 + steps[:, None], col[:, None, None] + 1 + steps
    ].clip(min=0)
    total = np.maximum(around.sum((1, 2)), 1e-6)
    y = row + 0.5 + (around.sum(2) * steps).sum(1) / total
    x = col + 0.5 + (around.sum(1) * steps).sum(1) / total
    confidence = heatmaps.reshape(joints, -1).max(1).clip(0, 1)
    return np.stack([x / cols, y / rows, confidence], 1)


def _in_frame(person: np.ndarray, scale: float, offset: tuple[float, float], side: int) -> Person:
    """Takes a person from parts of the square to px of the picture; what lies below the threshold is missing."""
    found = person[:, 2] >= VISIBLE
    xy = np.where(found[:, None], (person[:, :2] * side - np.array(offset)) / scale, -1.0)
    confidence = np.where(found, person[:, 2], 0.0)
    return Person.from_joints(torch.from_numpy(xy.astype(np.float32)), torch.from_numpy(confidence.astype(np.float32)))
